"""Server and client together: over memory channels, and over real WebSockets."""

from __future__ import annotations

import json
import math
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream
from wsproto.events import TextMessage

from godot.errors import BufferUnavailable, ConfigError
from godot.json.structure import argument
from godot.json.text import dumps, loads
from godot.mcp.client import CallFailed, CallRefused, Client
from godot.mcp.memory import MemoryTransport, in_process, memory_transports
from godot.mcp.server import Server, serve
from godot.mcp.session import ServerInfo
from godot.mcp.toolbox import Answer, Tool, Toolbox
from godot.mcp.transport import Connect, Transport, TransportClosed, Unreachable
from godot.mcp.websocket.dial import CONNECT_S, Address, over_websocket
from godot.mcp.websocket.listen import serve_websocket
from godot.service.ports import open_listeners


@attrs.frozen
class Ask:
    text: str = argument("said again", default="")


class Notes:
    """What happened, in its order, and a way to wait for it."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._more = trio.Event()

    def append(self, text: str) -> None:
        self.texts.append(text)
        self._more.set()
        self._more = trio.Event()

    async def reach(self, count: int) -> None:
        while len(self.texts) < count:
            await self._more.wait()


class Tools:
    """Tools that can be held up, and that note what became of them."""

    def __init__(self) -> None:
        self.started, self.cancelled, self.finished = Notes(), Notes(), Notes()
        self.open = trio.Event()
        self.toolbox = Toolbox(
            [
                Tool(name="echo", title="Echo", description="Says it again at once.", arguments=Ask, run=self.echo),
                Tool(name="wait", title="Wait", description="Says it again when it may.", arguments=Ask, run=self.wait),
                Tool(
                    name="wait_in_order",
                    title="Wait in order",
                    description="The same, in order.",
                    arguments=Ask,
                    run=self.wait,
                    in_order=True,
                ),
                Tool(name="fail", title="Fail", description="Has a bug.", arguments=Ask, run=self.fail),
                Tool(name="away", title="Away", description="Redis is away.", arguments=Ask, run=self.away),
            ]
        )

    async def echo(self, ask: Ask) -> Answer:
        self.finished.append(ask.text)
        return Answer.of({"echo": ask.text})

    async def wait(self, ask: Ask) -> Answer:
        self.started.append(ask.text)
        try:
            await self.open.wait()
        except trio.Cancelled:
            self.cancelled.append(ask.text)
            raise
        self.finished.append(ask.text)
        return Answer.of({"echo": ask.text})

    async def fail(self, _: Ask) -> Answer:
        raise KeyError("a bug")

    async def away(self, _: Ask) -> Answer:
        raise BufferUnavailable("Redis: away")


@attrs.define
class Bench:
    """A server over some tools, and what it reports."""

    tools: Tools = attrs.Factory(Tools)
    reports: list[tuple[str, str, str]] = attrs.Factory(list)

    def server(self, **settings: Any) -> Server:
        return Server(
            ServerInfo("test", "1", ""), self.tools.toolbox, lambda *report: self.reports.append(report), **settings
        )


def call_frame(request_id: int | str, tool: str, text: str = "") -> str:
    params = {"name": tool, "arguments": {"text": text}}
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params})


def ping_frame(request_id: int | str = 1) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "ping"})


def cancel_frame(request_id: int | str) -> str:
    params = {"requestId": request_id}
    return json.dumps({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})


@asynccontextmanager
async def served(bench: Bench) -> AsyncIterator[MemoryTransport]:
    """Serve one connection over memory channels; the other end is yielded."""
    client, server = memory_transports(buffered=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, bench.server(), server)
        yield client
        nursery.cancel_scope.cancel()


async def next_id(transport: MemoryTransport) -> Any:
    return loads(await transport.receive())["id"]


# The server, over memory channels


async def test_calls_are_answered_as_they_finish_so_that_a_slow_one_delays_none(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    async with served(bench) as transport:
        await transport.send(call_frame(1, "wait"))
        await transport.send(call_frame(2, "echo"))
        assert await next_id(transport) == 2
        bench.tools.open.set()
        assert await next_id(transport) == 1


async def test_calls_of_a_tool_that_keeps_order_are_answered_before_the_next_frame_is_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    async with served(bench) as transport:
        for number in range(3):
            await transport.send(call_frame(number, "wait_in_order", str(number)))
        await transport.send(call_frame(3, "echo", "3"))
        await trio.testing.wait_all_tasks_blocked()
        assert bench.tools.started.texts == ["0"]
        bench.tools.open.set()
        assert [await next_id(transport) for _ in range(4)] == [0, 1, 2, 3]
        assert bench.tools.finished.texts == ["0", "1", "2", "3"]


async def test_a_cancelled_call_stops_its_tool_and_gets_no_answer(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench()
    async with served(bench) as transport:
        await transport.send(call_frame(1, "wait", "one"))
        await transport.send(call_frame(2, "wait", "two"))
        await trio.testing.wait_all_tasks_blocked()
        await transport.send(cancel_frame(1))
        await trio.testing.wait_all_tasks_blocked()
        assert bench.tools.cancelled.texts == ["one"]
        bench.tools.open.set()
        await transport.send(ping_frame("last"))
        assert {await next_id(transport), await next_id(transport)} == {2, "last"}


async def test_when_the_connection_ends_its_calls_are_cancelled_and_serve_returns(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    client, server = memory_transports(buffered=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, bench.server(), server)
        await client.send(call_frame(1, "wait", "one"))
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
    assert bench.tools.cancelled.texts == ["one"]


async def test_an_answer_that_is_left_unread_for_too_long_ends_the_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    client, server = memory_transports()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, bench.server(peer_timeout_s=30.0), server)
            await client.send(call_frame(1, "echo"))
    assert trio.current_time() == 30


async def test_what_the_world_or_the_arguments_did_is_an_answer_and_no_bug(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    async with served(bench) as transport:
        await transport.send(call_frame(1, "away"))
        result = loads(await transport.receive())["result"]
        assert (result["isError"], result["content"][0]["text"]) == (True, "Redis: away")
        await transport.send(
            '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"echo","arguments":{"txt":1}}}'
        )
        result = loads(await transport.receive())["result"]
        assert result["isError"] is True
        assert "unknown field 'txt'; did you mean 'text'?" in result["content"][0]["text"]
    assert bench.reports == []


# The client, over memory channels


@asynccontextmanager
async def client_of(connect: Connect) -> AsyncIterator[Client]:
    client = Client(connect, name="tests", version="1")
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        yield client
        nursery.cancel_scope.cancel()


async def echo(client: Client, text: str = "hi") -> str:
    answer = await client.call("echo", dumps({"text": text}))
    return str(loads(answer.json)["echo"])


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


@asynccontextmanager
async def listening(bench: Bench, **settings: Any) -> AsyncIterator[str]:
    """Serve on a free port, for at most five seconds; its URL is yielded."""
    with trio.fail_after(5):
        listeners = await open_listeners("127.0.0.1", 0)
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_websocket, bench.server(**settings), listeners)
            yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
            nursery.cancel_scope.cancel()


def address(url: str) -> tuple[str, int]:
    return "127.0.0.1", int(url.rpartition(":")[2])


@asynccontextmanager
async def opened(url: str, subprotocols: Sequence[str] = ()) -> AsyncIterator[WebSocketConnection]:
    """Open a WebSocket whose socket is closed in any case; trio-websocket's client leaves some behind."""
    async with await trio.open_tcp_stream(*address(url)) as stream, trio.open_nursery() as nursery:
        connection = await wrap_client_stream(
            nursery, stream, url.removeprefix("ws://"), "/", subprotocols=subprotocols
        )
        async with connection:
            yield connection
        nursery.cancel_scope.cancel()


def way_to(url: str, max_message_bytes: int = 100_000) -> Connect:
    return over_websocket(Address.parse(url), max_message_bytes=max_message_bytes)


async def ask_raw(connection: WebSocketConnection, frame: str | bytes) -> Any:
    await connection.send_message(frame)
    return loads(await connection.get_message())


async def assert_alive(url: str) -> None:
    async with opened(url) as connection:
        assert (await ask_raw(connection, ping_frame()))["result"] == {}


@pytest.mark.parametrize(
    ("offered", "chosen"), [([], None), (["mcp"], "mcp"), (["chat", "mcp"], "mcp"), (["chat"], None)]
)
async def test_the_subprotocol_is_echoed_exactly_when_it_was_offered(offered: list[str], chosen: str | None) -> None:
    async with listening(Bench()) as url, opened(url, subprotocols=offered) as connection:
        assert connection.subprotocol == chosen
        assert (await ask_raw(connection, ping_frame()))["result"] == {}


async def test_a_call_goes_through_in_text_and_is_taken_in_binary_too() -> None:
    """GOD-000: a bare tools/call as the first frame of a connection."""
    bench = Bench()
    async with listening(bench) as url, opened(url) as connection:
        await connection.send_message(call_frame(7, "echo", "ü").encode())
        answer = await connection.get_message()
        assert isinstance(answer, str)  # JavaScript's clients ignore binary answers
        assert loads(answer)["id"] == 7


async def test_a_frame_over_the_maximum_closes_its_connection_with_1009() -> None:
    async with listening(Bench(), max_message_bytes=10_000) as url:
        async with opened(url) as connection:
            assert (await ask_raw(connection, call_frame(1, "echo", "x" * 9_000)))["id"] == 1
            await connection.send_message(call_frame(2, "echo", "x" * 11_000))
            with pytest.raises(ConnectionClosed) as closed:
                await connection.get_message()
            assert closed.value.reason is not None
            assert closed.value.reason.code == 1009
        await assert_alive(url)


async def test_a_stop_says_goodbye_with_1001_to_everyone_and_then_ends() -> None:
    """REL-005."""
    bench = Bench()
    with trio.fail_after(5):
        listeners = await open_listeners("127.0.0.1", 0)
        url = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        codes: list[int] = []

        async def stay(*, task_status: trio.TaskStatus[None]) -> None:
            async with opened(url) as connection:
                await connection.send_message(call_frame(1, "wait", "one"))
                task_status.started()
                with pytest.raises(ConnectionClosed) as closed:
                    await connection.get_message()
                assert closed.value.reason is not None
                codes.append(closed.value.reason.code)

        async with trio.open_nursery() as clients:
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_websocket, bench.server(), listeners)
                for _ in range(3):
                    await clients.start(stay)
                await bench.tools.started.reach(3)
                nursery.cancel_scope.cancel()
            with pytest.raises(OSError, match=r"all attempts to connect .* failed"):
                await trio.open_tcp_stream(*address(url))
    assert codes == [1001, 1001, 1001]
    assert bench.tools.cancelled.texts == ["one"] * 3
    assert bench.reports == []


async def test_a_stop_does_not_wait_for_those_who_are_gone_or_never_said_hello(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """REL-005."""
    monkeypatch.setattr("godot.mcp.websocket.listen.GOODBYE_S", 0.1)
    monkeypatch.setattr("godot.mcp.websocket.listen.HANDSHAKE_S", math.inf)
    bench = Bench()
    with trio.fail_after(5):
        listeners = await open_listeners("127.0.0.1", 0)
        url = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_websocket, bench.server(), listeners)
            silent = await trio.open_tcp_stream(*address(url))
            frozen = await upgraded(url)  # takes part in nothing any more, not even in the goodbye
            await trio.testing.wait_all_tasks_blocked(0.02)
            nursery.cancel_scope.cancel()
        # Both peers still hold their ends open: the server alone has closed the connections.
        assert await silent.receive_some() == b""
        assert (await frozen.receive_some()).startswith(b"\x88"), "it was told goodbye"
        await silent.aclose()
        await frozen.aclose()
    assert bench.reports == []


@pytest.mark.parametrize("pieces", [1, 7])
async def test_a_browser_on_this_port_is_told_which_one_speaks_http(pieces: int) -> None:
    bench = Bench()
    request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with listening(bench, http_port=9061) as url:
        async with await trio.open_tcp_stream(*address(url)) as stream:
            for start in range(0, len(request), len(request) // pieces):
                await stream.send_all(request[start : start + len(request) // pieces])
                await trio.testing.wait_all_tasks_blocked()
            head, _, body = (await stream.receive_some()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 426 ")
        assert body == b"this port speaks WebSocket (MCP); HTTP is on port 9061\n"
        await assert_alive(url)
    assert [reason for _, _, reason in bench.reports] == ["plain HTTP: this port speaks WebSocket (MCP)"]


@pytest.mark.parametrize("asked", [b"upgrade: WebSocket", b"Upgrade: h2c, websocket"])
async def test_who_asks_for_a_websocket_in_his_own_spelling_gets_it(asked: bytes) -> None:
    async with listening(Bench()) as url, await trio.open_tcp_stream(*address(url)) as stream:
        await stream.send_all(UPGRADE.replace(b"Upgrade: websocket", asked))
        assert not (await stream.receive_some()).startswith(b"HTTP/1.1 426 ")


@pytest.mark.parametrize("parts", [[20_000_000], [600_000, 600_000]])
async def test_a_message_that_is_too_large_is_refused_with_its_size_and_the_setting(parts: list[int]) -> None:
    bench, limit = Bench(), 1_000_000
    async with listening(bench, max_message_bytes=limit) as url, opened(url) as connection:
        for size in parts:
            await connection._send(TextMessage("x" * size, message_finished=False))
        with pytest.raises(ConnectionClosed) as closed:
            await connection.get_message()
        reason = (
            f"a message of {sum(parts):,} or more bytes; GODOT_MAX_MESSAGE_BYTES allows {limit:,}: send it in parts"
        )
        assert closed.value.reason is not None
        assert (closed.value.reason.code, closed.value.reason.reason) == (1009, reason)
        await assert_alive(url)
    assert [(event, said) for event, _, said in bench.reports] == [("refused", reason)]


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


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def upgraded(url: str) -> trio.SocketStream:
    """Return a TCP stream behind its upgrade to a WebSocket."""
    stream = await trio.open_tcp_stream(*address(url))
    await stream.send_all(UPGRADE)
    assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
    return stream


@contextmanager
def aborting(stream: trio.SocketStream) -> Iterator[None]:
    """Close a TCP connection by a reset, as a crash of the peer's host looks."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with closing(stream.socket):
        yield


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: 127",
        b"\x00\xff garbage \r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        UPGRADE,
        UPGRADE + b"\x81",  # half a frame
        UPGRADE + b"\x81\xfe\x10\x00abcd",  # 4 of 4,096 bytes
        UPGRADE + b"\xf3\x80abcd",  # reserved bits and opcode
        UPGRADE + b"\x81\x05hello",  # unmasked
    ],
    ids=["nothing", "half a request", "garbage", "TLS", "upgrade", "half a frame", "a part", "reserved", "unmasked"],
)
async def test_a_client_that_aborts_in_the_middle_is_no_bug_and_the_server_lives(begun: bytes) -> None:
    bench = Bench()
    async with listening(bench) as url:
        for wait_s in (0, 0.02):
            stream = await trio.open_tcp_stream(*address(url))
            with aborting(stream):
                await stream.send_all(begun) if begun else None
                await trio.sleep(wait_s)
        await trio.testing.wait_all_tasks_blocked(0.02)
        await assert_alive(url)
    assert bench.reports == []


async def test_a_client_that_aborts_while_its_call_runs_is_no_bug() -> None:
    bench = Bench()
    async with listening(bench) as url:
        async with opened(url) as connection:
            await connection.send_message(call_frame(1, "wait", "one"))
            await bench.tools.started.reach(1)
            stream = connection._stream
            assert isinstance(stream, trio.SocketStream)
            with aborting(stream):
                pass
        await bench.tools.cancelled.reach(1)
        await assert_alive(url)
    assert bench.reports == []


async def test_a_text_frame_that_is_not_utf_8_ends_its_connection_only() -> None:
    bench = Bench()
    async with listening(bench) as url:
        async with await upgraded(url) as stream:
            await stream.send_all(b"\x81\x82\x00\x00\x00\x00\xff\xfe")  # masked with zeros
            assert await stream.receive_some() == b""
        await assert_alive(url)
    assert bench.reports == []


async def test_a_bug_in_a_tool_answers_its_call_and_is_reported() -> None:
    bench = Bench()
    async with listening(bench) as url, opened(url) as connection:
        assert (await ask_raw(connection, call_frame(1, "fail")))["error"]["code"] == -32603
        assert (await ask_raw(connection, ping_frame()))["result"] == {}
        await assert_alive(url)
    ((event, peer, reason),) = bench.reports
    assert (event, peer.startswith("127.0.0.1:")) == ("bug", True)
    assert reason == "fail: KeyError('a bug')"


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


async def test_an_address_in_use_is_a_fault_of_the_operators() -> None:
    with trio.fail_after(5):
        (listener,) = await open_listeners("127.0.0.1", 0)
        port = listener.socket.getsockname()[1]
        with pytest.raises(ConfigError, match=f"^cannot listen on 127.0.0.1 port {port}: .*choose another port$"):
            await open_listeners("127.0.0.1", port)
        await listener.aclose()


# Memory transports


async def test_a_closed_transport_says_so_on_both_ends() -> None:
    one, other = memory_transports(buffered=1)
    await one.aclose()
    for end in (one, other):
        with pytest.raises(TransportClosed):
            await end.send("x")
        with pytest.raises(TransportClosed):
            await end.receive()
