"""The client, over memory channels and over real WebSockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from godot.json.text import dumps, loads
from godot.mcp.client import CallFailed, CallRefused, Client
from godot.mcp.memory import in_process, memory_transports
from godot.mcp.server import serve
from godot.mcp.toolbox import Answer
from godot.mcp.transport import Connect, Transport, Unreachable
from godot.mcp.websocket.dial import CONNECT_S
from godot.mcp.websocket.listen import serve_websocket
from godot.service.ports import open_listeners
from tests.unit.mcp.ends import Bench, ask_raw, client_of, echo, listening, opened, ping_frame, way_to


async def test_a_call_brings_what_the_tool_said(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench()
    async with client_of(in_process(partial(serve, bench.server()))) as client:
        answer = await client.call("echo", b'{"text":"hi"}')
        assert answer == Answer('{"echo":"hi"}', {"echo": "hi"})
        failed = await client.call("away", b"{}")
        assert failed == Answer("Redis: away", {"error": "Redis: away", "kind": "unavailable"}, is_error=True)


async def test_many_calls_share_a_connection_and_each_gets_its_own_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    connections = 0

    async def serve_and_count(transport: Transport) -> None:
        nonlocal connections
        connections += 1
        await serve(bench.server(), transport)

    said: list[tuple[str, str]] = []

    async def ask(client: Client, tool: str, text: str) -> None:
        answer = await client.call(tool, dumps({"text": text}))
        said.append((text, loads(answer.json)["echo"]))

    async with client_of(in_process(serve_and_count)) as client, trio.open_nursery() as nursery:
        nursery.start_soon(ask, client, "wait", "slow")
        await trio.testing.wait_all_tasks_blocked()
        for number in range(20):
            nursery.start_soon(ask, client, "echo", str(number))
        await trio.testing.wait_all_tasks_blocked()
        assert len(said) == 20
        bench.tools.open.set()
    assert said[-1] == ("slow", "slow")
    assert all(asked == heard for asked, heard in said)
    assert connections == 1


async def test_a_call_that_is_given_up_is_cancelled_on_the_other_side_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    async with client_of(in_process(partial(serve, bench.server()))) as client:
        with trio.move_on_after(3) as patience:
            await client.call("wait", b'{"text":"one"}')
        assert patience.cancelled_caught
        assert trio.current_time() == 3
        await trio.testing.wait_all_tasks_blocked()
        assert bench.tools.cancelled.texts == ["one"]
        assert await echo(client) == "hi"


async def test_a_call_to_a_tool_that_is_not_there_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    async with client_of(in_process(partial(serve, Bench().server()))) as client:
        with pytest.raises(CallRefused, match=r"^Unknown tool: ecko; did you mean 'echo'\? \(-32602\)$") as refused:
            await client.call("ecko", b"{}")
        assert refused.value.code == -32602


class Script:
    """A server that does something else on each connection."""

    def __init__(self, *turns: Callable[[Transport], Awaitable[None]]) -> None:
        self.turns = list(turns)

    def connect(self) -> Connect:
        async def take_turn(transport: Transport) -> None:
            try:
                await self.turns.pop(0)(transport)
            finally:
                await transport.aclose()

        return in_process(take_turn)


async def hang_up(transport: Transport) -> None:
    del transport


async def hang_up_after_two_calls(transport: Transport) -> None:
    await transport.receive()
    await transport.receive()


def say(frame: str) -> Callable[[Transport], Awaitable[None]]:
    async def turn(transport: Transport) -> None:
        await transport.receive()
        await transport.send(frame)
        await transport.receive()

    return turn


async def test_when_the_server_is_gone_every_call_in_flight_fails_and_the_next_one_reconnects(
    autojump_clock: trio.testing.MockClock,
) -> None:
    script = Script(hang_up_after_two_calls, partial(serve, Bench().server()))
    failed: list[str] = []

    async def ask(client: Client) -> None:
        try:
            await client.call("echo", b"{}")
        except CallFailed as exc:
            failed.append(str(exc))

    async with client_of(script.connect()) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, client)
            nursery.start_soon(ask, client)
        assert failed == ["the connection broke before the answer"] * 2
        assert await echo(client) == "hi"


async def test_a_server_that_hangs_up_at_once_fails_that_call_and_the_next_one_reconnects(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A Dewey that is just restarting accepts and closes; it must not count as connected for ever."""
    script = Script(*[hang_up] * 5, partial(serve, Bench().server()))
    async with client_of(script.connect()) as client:
        with trio.fail_after(10):
            for _ in range(5):
                with pytest.raises(CallFailed):
                    await client.call("echo", b"{}")
            assert await echo(client) == "hi"


@pytest.mark.parametrize(
    "frame",
    ["not JSON", '{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}'],
)
async def test_a_server_that_cannot_be_understood_or_does_not_understand_is_left(
    frame: str, autojump_clock: trio.testing.MockClock
) -> None:
    script = Script(say(frame), partial(serve, Bench().server()))
    async with client_of(script.connect()) as client:
        with pytest.raises(CallFailed, match="the connection broke before the answer"):
            await client.call("echo", b"{}")
        assert await echo(client) == "hi"


@pytest.mark.parametrize("result", ["{}", '{"content":[]}', '{"content":[{"type":"image"}]}', "null", "7"])
async def test_a_result_that_is_no_answer_of_a_tool_is_a_failed_call(
    result: str, autojump_clock: trio.testing.MockClock
) -> None:
    script = Script(say(f'{{"jsonrpc":"2.0","id":1,"result":{result}}}'))
    async with client_of(script.connect()) as client:
        with pytest.raises(CallFailed, match="what came back is no answer of a tool"):
            await client.call("echo", b"{}")


async def test_answers_nobody_waits_for_are_ignored(autojump_clock: trio.testing.MockClock) -> None:
    async def chatty(transport: Transport) -> None:
        for frame in (
            '{"jsonrpc":"2.0","id":77,"result":{}}',
            '{"jsonrpc":"2.0","method":"notifications/x"}',
            "[]",
            "7",
        ):
            await transport.send(frame)
        await serve(Bench().server(), transport)

    async with client_of(Script(chatty).connect()) as client:
        assert await echo(client) == "hi"


async def test_a_connection_that_is_dropped_fails_its_calls_and_the_next_one_reconnects(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    async with client_of(in_process(partial(serve, bench.server()))) as client:
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(CallFailed, match="the connection broke before the answer"):
                    await client.call("wait", b'{"text":"one"}')

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            client.disconnect()
        assert await echo(client) == "hi"
        assert bench.tools.cancelled.texts == ["one"]


async def test_nobody_there_is_a_failed_call_and_is_asked_again_by_the_next_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    tried = 0

    @asynccontextmanager
    async def nobody() -> AsyncIterator[Transport]:
        nonlocal tried
        tried += 1
        await trio.lowlevel.checkpoint()
        if tried:
            raise Unreachable("nowhere", "it is not there")
        yield memory_transports()[0]

    async with client_of(nobody) as client:
        for _ in range(2):
            with pytest.raises(CallFailed, match=r"^cannot connect to nowhere: it is not there$"):
                await client.call("echo", b"{}")
    assert tried == 2


# Over a real WebSocket


async def test_a_call_whose_connection_is_closed_for_it_says_what_the_server_said() -> None:
    async with listening(Bench(), max_message_bytes=1_000_000) as url, client_of(way_to(url)) as client:
        with pytest.raises(CallFailed) as failed:
            await echo(client, "x" * 20_000_000)
        assert failed.value.code == 1009
        assert "GODOT_MAX_MESSAGE_BYTES allows 1,000,000" in failed.value.said
        assert str(failed.value).startswith("the connection broke ")
        assert failed.value.said in str(failed.value)
        assert await echo(client) == "hi"


async def test_a_call_that_finds_no_place_says_so_in_the_words_of_the_server() -> None:
    async with (
        listening(Bench(), max_connections=1) as url,
        opened(url) as holder,
        client_of(way_to(url)) as client,
    ):
        await ask_raw(holder, ping_frame())
        with pytest.raises(CallFailed, match=r"all 1 connections are in use; see GODOT_MAX_CONNECTIONS$") as failed:
            await client.call("echo", b"{}")
        assert failed.value.code == 503


async def test_the_client_calls_over_a_websocket_and_reconnects_when_its_server_was_restarted() -> None:
    bench = Bench()
    with trio.fail_after(5):
        listeners = await open_listeners("127.0.0.1", 0)
        host, port = listeners[0].socket.getsockname()
        async with client_of(way_to(f"ws://{host}:{port}")) as client:
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_websocket, bench.server(), listeners)
                assert await echo(client, "before") == "before"
                nursery.cancel_scope.cancel()
            with pytest.raises(CallFailed):
                await client.call("echo", b"{}")
            with pytest.raises(CallFailed, match=rf"^cannot connect to ws://127.0.0.1:{port}: "):
                await client.call("echo", b"{}")
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_websocket, bench.server(), await open_listeners(host, port))
                assert await echo(client, "after") == "after"
                nursery.cancel_scope.cancel()


async def serve_tcp(talk: Callable[[trio.SocketStream], Awaitable[None]], *, task_status: trio.TaskStatus[str]) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await talk(stream)

    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, [listener])
        task_status.started(f"ws://127.0.0.1:{port}")


async def speak_garbage(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"\x00\x01 this is no HTTP \r\n\r\n")


async def refuse_upgrade(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")


async def close_at_once(stream: trio.SocketStream) -> None:
    await stream.receive_some()


@pytest.mark.parametrize("talk", [speak_garbage, refuse_upgrade, close_at_once])
async def test_what_does_not_speak_websocket_is_a_failed_call(
    talk: Callable[[trio.SocketStream], Awaitable[None]],
) -> None:
    with trio.fail_after(CONNECT_S - 1):
        async with trio.open_nursery() as nursery:
            url: str = await nursery.start(serve_tcp, talk)
            async with client_of(way_to(url)) as client:
                for _ in range(2):
                    with pytest.raises(CallFailed, match=f"^cannot connect to {url}: it "):
                        await client.call("echo", b"{}")
            nursery.cancel_scope.cancel()


async def test_an_answer_over_the_maximum_is_a_failed_call_and_the_next_one_reconnects() -> None:
    async with listening(Bench()) as url, client_of(way_to(url, max_message_bytes=10_000)) as client:
        with pytest.raises(CallFailed):
            await echo(client, "x" * 20_000)
        assert await echo(client) == "hi"
