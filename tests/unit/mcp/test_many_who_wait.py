"""Many callers on one connection, as Godot's followers are on that to Dewey: none takes it from the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import attrs
import pytest
import trio
import trio.testing

from godot.json.text import dumps, loads
from godot.mcp.client import PING_S, Client
from godot.mcp.memory import MemoryTransport, memory_transports
from godot.mcp.server import Server
from godot.mcp.session import ServerInfo
from godot.mcp.toolbox import Answer, Tool, Toolbox
from godot.mcp.transport import Connect, Transport
from godot.mcp.websocket.dial import Address, over_websocket
from godot.mcp.websocket.listen import serve_websocket
from godot.service.ports import listening_url, open_listeners
from tests.fakes import Nothing

FOLLOWERS: Final = 200

WRITE_S: Final = 1.0
"""What each write takes when the event loop has much to do."""


@attrs.define
class BusyTransport:
    """A transport that takes its time for each write, however much is in it."""

    transport: MemoryTransport
    writes: int = 0

    async def send(self, frame: str) -> None:
        await self.send_together([frame])

    async def send_together(self, frames: Sequence[str]) -> None:
        await trio.sleep(WRITE_S)
        self.writes += 1
        await self.transport.send_together(frames)

    async def receive(self) -> str | bytes:
        return await self.transport.receive()

    async def aclose(self, code: int = 1000, reason: str | None = None) -> None:
        await self.transport.aclose(code, reason)


def result(request_id: int) -> str:
    content = [{"type": "text", "text": "{}"}]
    return dumps({"jsonrpc": "2.0", "id": request_id, "result": {"content": content}}).decode()


@asynccontextmanager
async def client_of(connect: Connect) -> AsyncIterator[Client]:
    client = Client(connect, name="tests", version="1")
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        yield client
        nursery.cancel_scope.cancel()


async def test_followers_who_ask_on_at_the_same_moment_are_sent_together_and_cut_by_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A ping stood behind a hundred calls that were not sent yet, and all of them were dropped with it."""
    ours, theirs = memory_transports(2 * FOLLOWERS)
    busy = BusyTransport(ours)
    opened = answered = 0

    @asynccontextmanager
    async def connect() -> AsyncIterator[Transport]:
        nonlocal opened
        opened += 1
        yield busy

    async def answer_all() -> None:
        while True:
            await theirs.send(result(loads(await theirs.receive())["id"]))

    async def follow() -> None:
        nonlocal answered
        await client.call("tail", b"{}")
        answered += 1

    async with client_of(connect) as client, trio.open_nursery() as dewey:
        dewey.start_soon(answer_all)
        async with trio.open_nursery() as followers:
            for _ in range(FOLLOWERS):
                followers.start_soon(follow)
            await trio.testing.wait_all_tasks_blocked()
            client.check()
        await trio.sleep(2 * PING_S)
        dewey.cancel_scope.cancel()
    assert (opened, answered) == (1, FOLLOWERS)
    assert busy.writes < FOLLOWERS / 20


async def test_a_connection_on_which_answers_come_is_kept_however_late_that_of_the_ping_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It stands behind those of others."""
    ours, theirs = memory_transports(2 * FOLLOWERS)
    answered = 0
    asked: list[int] = []

    @asynccontextmanager
    async def connect() -> AsyncIterator[Transport]:
        yield ours

    async def follow() -> None:
        nonlocal answered
        await client.call("tail", b"{}")
        answered += 1

    async with client_of(connect) as client, trio.open_nursery() as followers:
        for _ in range(10):
            followers.start_soon(follow)
        for _ in range(10):
            asked.append(loads(await theirs.receive())["id"])
        client.check()
        assert loads(await theirs.receive())["method"] == "ping"
        for request_id in asked:
            await trio.sleep(PING_S * 0.9)
            client.check()
            await theirs.send(result(request_id))
    assert answered == 10


@pytest.mark.parametrize("chars", [10, 300_000])
async def test_one_websocket_carries_what_many_wait_for_also_when_it_is_large(chars: int) -> None:
    """Of two hundred followers each gets its own answer, and the connection is the same one to the end."""
    go = trio.Event()
    waiting = 0
    peers: set[int] = set()

    async def wait(_: Nothing) -> Answer:
        nonlocal waiting
        waiting += 1
        peers.add(len(server.live))
        await go.wait()
        return Answer.of({"said": "x" * chars})

    tools = Toolbox([Tool(name="wait", title="Wait", description="Waits.", arguments=Nothing, run=wait, waits=True)])
    reports: list[tuple[str, ...]] = []
    server = Server(ServerInfo("test", "1", ""), tools, lambda *each: reports.append(each))
    sizes: list[int] = []

    async def follow() -> None:
        sizes.append(len(loads((await client.call("wait", b"{}")).json)["said"]))

    with trio.fail_after(120):
        listeners = await open_listeners("127.0.0.1", 0)
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_websocket, server, listeners)
            way = over_websocket(Address.parse(listening_url(listeners)), max_message_bytes=16 * 1024 * 1024)
            async with client_of(way) as client:
                async with trio.open_nursery() as followers:
                    for _ in range(FOLLOWERS):
                        followers.start_soon(follow)
                    while waiting < FOLLOWERS:
                        await trio.lowlevel.checkpoint()
                    client.check()
                    go.set()
                assert sizes == [chars] * FOLLOWERS
            nursery.cancel_scope.cancel()
    assert (peers, reports) == ({1}, [])
