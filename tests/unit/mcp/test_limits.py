"""What one connection can take of the server: calls in flight, calls worked on, time, and no more."""

from __future__ import annotations

import json
from collections.abc import Callable

import trio
import trio.testing

from godot.mcp.memory import MemoryTransport, memory_transports
from godot.mcp.server import MAX_RUNNING, Server, serve
from godot.mcp.session import ServerInfo
from godot.mcp.transport import TransportClosed
from godot.mcp.websocket.listen import serve_websocket
from godot.service.ports import open_listeners
from tests.fakes import SlowTool


def server(
    tool: SlowTool,
    *,
    max_in_flight: int = 1_000,
    peer_timeout_s: float = 30.0,
    report: Callable[[str, str, str], None] = lambda event, peer, reason: None,
) -> Server:
    return Server(
        ServerInfo("test", "1", ""),
        tool.toolbox,
        report,
        max_in_flight=max_in_flight,
        peer_timeout_s=peer_timeout_s,
    )


def call(number: int) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": "slow"}})


def ping() -> str:
    return json.dumps({"jsonrpc": "2.0", "id": "ping", "method": "ping"})


async def answers(client: MemoryTransport, ids: list[int | str]) -> None:
    """Read answers to that many requests, and look whether they are these."""
    assert sorted([json.loads(await client.receive())["id"] for _ in ids], key=str) == sorted(ids, key=str)


async def test_beyond_max_in_flight_a_connection_is_read_no_further(autojump_clock: trio.testing.MockClock) -> None:
    tool = SlowTool()
    client, other = memory_transports(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, server(tool, max_in_flight=2), other)
        for number in range(3):
            await client.send(call(number))
        await client.send(ping())
        with trio.move_on_after(1) as patience:
            await client.receive()
        assert patience.cancelled_caught, "the ping stands behind a call that has no place yet"
        assert tool.running == 2
        tool.let.set()
        await answers(client, [0, 1, 2, "ping"])
        await client.aclose()


async def test_calls_that_are_not_yet_worked_on_hold_nothing_up(autojump_clock: trio.testing.MockClock) -> None:
    tool = SlowTool()
    client, other = memory_transports(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, server(tool), other)
        for number in range(MAX_RUNNING + 2):
            await client.send(call(number))
        await client.send(ping())
        await answers(client, ["ping"])
        await trio.testing.wait_all_tasks_blocked()
        assert tool.running == MAX_RUNNING
        tool.let.set()
        await answers(client, list(range(MAX_RUNNING + 2)))
        await client.aclose()


async def test_a_peer_that_takes_no_answer_is_dropped_after_its_time(autojump_clock: trio.testing.MockClock) -> None:
    tool = SlowTool()
    said: list[tuple[str, ...]] = []
    client, other = memory_transports()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, server(tool, peer_timeout_s=30, report=lambda *each: said.append(each)), other)
        await client.send(ping())
    assert trio.current_time() == 30
    assert said == [("dropped", "inside", "it did not take an answer of 41 bytes within 30 s")]


async def test_a_peer_that_does_not_answer_a_ping_is_dropped() -> None:
    reports: list[tuple[str, ...]] = []
    with trio.fail_after(10):
        listeners = await open_listeners("127.0.0.1", 0)
        async with trio.open_nursery() as nursery:
            served = server(SlowTool(), peer_timeout_s=0.1, report=lambda *each: reports.append(each))
            await nursery.start(serve_websocket, served, listeners)
            port = listeners[0].socket.getsockname()[1]
            async with await trio.open_tcp_stream("127.0.0.1", port) as silent:
                await silent.send_all(
                    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                )
                said = b""
                while more := await silent.receive_some():
                    said += more
            _, _, frames = said.partition(b"\r\n\r\n")
            assert frames[0] == 0x89, "it was asked with a ping whether it is there"
            assert [(event, reason) for event, _, reason in reports] == [
                ("dropped", "it did not answer a ping within 0.1 s")
            ]
            nursery.cancel_scope.cancel()


async def test_calls_in_flight_end_with_their_connection(autojump_clock: trio.testing.MockClock) -> None:
    tool = SlowTool()
    client, other = memory_transports(1)
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, server(tool), other)
            await client.send(call(1))
            await trio.testing.wait_all_tasks_blocked()
            assert tool.running == 1
            await client.aclose()
    try:
        await client.send(ping())
    except TransportClosed:
        return
    raise AssertionError("the connection should be closed")
