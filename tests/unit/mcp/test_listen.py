"""The server on a real port: what WebSockets bring, and how they end."""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed
from wsproto.events import TextMessage

from godot.json.text import loads
from godot.mcp.websocket.listen import serve_websocket
from godot.service.ports import open_listeners
from tests.unit.mcp.ends import Bench, address, ask_raw, assert_alive, call_frame, listening, opened, ping_frame


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
