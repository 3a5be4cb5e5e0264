"""Opening a WebSocket: where to, what goes wrong on the way, and how it is closed."""

from __future__ import annotations

import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing
from trio_websocket import CloseReason, ConnectionClosed, WebSocketRequest, serve_websocket

from godot.mcp.transport import RefusedByServer, TransportClosed, Unreachable
from godot.mcp.websocket import dial
from godot.mcp.websocket.connection import PIECE_CHARS
from godot.mcp.websocket.dial import CONNECT_S, SILENT_S, Address, NoAddress, over_websocket


@pytest.mark.parametrize(
    ("url", "host", "port", "resource", "shown"),
    [
        ("ws://127.0.0.1:9060", "127.0.0.1", 9060, "/", "ws://127.0.0.1:9060"),
        ("ws://[::1]:9060/", "::1", 9060, "/", "ws://[::1]:9060"),
        ("wss://godot.example/mcp?key=secret", "godot.example", 443, "/mcp?key=secret", "wss://godot.example/mcp"),
        ("ws://godot-mcp", "godot-mcp", 80, "/", "ws://godot-mcp"),
    ],
)
def test_a_url_is_taken_apart(url: str, host: str, port: int, resource: str, shown: str) -> None:
    address = Address.parse(url)
    assert (address.host, address.port, address.resource, str(address)) == (host, port, resource, shown)
    assert address.secure == url.startswith("wss")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:9060",
        "http://h:1",
        "ws://",
        "ws://h:x",
        "ws://[::1",
        "ws://u:secret@h",
        "ws://h/a b",
        "ws://h/ü",
        "ws://a..b",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_one_that_can(url: str) -> None:
    with pytest.raises(NoAddress) as refused:
        Address.parse(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "it broke off the handshake"),
        (b"220 mail.example ESMTP\r\n", "it broke off the handshake"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", "it does not speak WebSocket"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "it answered HTTP 200"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "it answered HTTP 302"),
        (b"HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "it does not speak WebSocket"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\nhalf", "it broke off the handshake"),
    ],
)
async def test_who_does_not_shake_hands_is_not_waited_for(answer: bytes, why: str) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(answer)

    with trio.fail_after(CONNECT_S - 1):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
            address = Address.parse(f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}")
            with pytest.raises(Unreachable, match=why):
                async with over_websocket(address, max_message_bytes=1000)():
                    pass
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def listening(accept: Callable[[WebSocketRequest], Awaitable[None]]) -> AsyncIterator[Address]:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            port = (
                await nursery.start(
                    partial(serve_websocket, accept, "127.0.0.1", 0, ssl_context=None, max_message_size=2**24)
                )
            ).port
            yield Address.parse(f"ws://127.0.0.1:{port}")
            nursery.cancel_scope.cancel()


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[trio.SocketStream]:
    """What is opened while the test runs."""
    opened: list[trio.SocketStream] = []
    open_stream = dial._open_stream

    async def remember(address: Address, deadline: float) -> dial.Stream:
        stream = await open_stream(address, deadline)
        assert isinstance(stream, trio.SocketStream)
        opened.append(stream)
        return stream

    monkeypatch.setattr(dial, "_open_stream", remember)
    return opened


async def test_the_kernel_looks_after_a_connection_that_is_silent(streams: list[trio.SocketStream]) -> None:
    async def accept(request: WebSocketRequest) -> None:
        await request.accept()

    async with listening(accept) as address, over_websocket(address, max_message_bytes=1000)():
        assert streams[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert streams[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == SILENT_S // 2


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"all 4 connections\n are in use\n", ", all 4 connections are in use"),
        (b"\x1b[31mred\x07", ",  [31mred "),
        (b"<html><h1>503</h1>", ""),
        (b"", ""),
        (b"x" * 10_000, ", " + "x" * 200),
    ],
)
async def test_a_server_that_is_busy_is_quoted_in_one_harmless_line(body: bytes, words: str) -> None:
    async def refuse(request: WebSocketRequest) -> None:
        await request.reject(503, body=body)

    async with listening(refuse) as address:
        with pytest.raises(Unreachable) as refused:
            async with over_websocket(address, max_message_bytes=1000)():
                pass
    assert (refused.value.why, refused.value.status) == (f"it answered HTTP 503{words}", 503)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_says_what_the_server_said_and_repeats_no_token(
    status: int, streams: list[trio.SocketStream]
) -> None:
    shown: list[bytes] = []

    async def refuse(request: WebSocketRequest) -> None:
        shown.extend(value for name, value in request.headers if name == b"authorization")
        await request.reject(status, body=b"no such\n token\n")

    async with listening(refuse) as address:
        with pytest.raises(RefusedByServer) as refused:
            async with over_websocket(address, "sesame-0451", max_message_bytes=1000)():
                pass
        assert refused.value.status == status
        assert refused.value.why == f"HTTP {status}, no such token"
        assert str(refused.value) == f"cannot connect to {address}: HTTP {status}, no such token"
        assert shown == [b"Bearer sesame-0451"]
    assert streams[0].socket.fileno() == -1


async def test_a_socket_is_closed_although_the_server_hung_up_first(streams: list[trio.SocketStream]) -> None:
    async def hang_up(request: WebSocketRequest) -> None:
        await (await request.accept()).aclose(1011, "a bug")

    async with listening(hang_up) as address:
        async with over_websocket(address, max_message_bytes=1000)() as transport:
            with pytest.raises(TransportClosed, match=r"^close code 1011, a bug$"):
                await transport.receive()
        assert streams[0].socket.fileno() == -1


async def test_who_is_cancelled_still_says_goodbye_and_waits_for_no_more_than_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dial, "GOODBYE_S", math.inf)  # who waits for longer than the answer never ends
    said: list[CloseReason | None] = []

    async def listen(request: WebSocketRequest) -> None:
        with pytest.raises(ConnectionClosed) as closed:
            await (await request.accept()).get_message()
        said.append(closed.value.reason)

    async with listening(listen) as address:
        with trio.CancelScope() as scope:
            async with over_websocket(address, max_message_bytes=1000)():
                scope.cancel()
                await trio.sleep_forever()
    assert [reason and reason.code for reason in said] == [1000]


async def test_who_does_not_speak_tls_is_not_spoken_to_without() -> None:
    heard: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            heard.append(bytes(await stream.receive_some()))
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with trio.fail_after(CONNECT_S - 1):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
            address = Address.parse(f"wss://127.0.0.1:{listeners[0].socket.getsockname()[1]}")
            with pytest.raises(Unreachable, match=r"(?i)wrong.version.number"):
                async with over_websocket(address, "sesame-0451", max_message_bytes=1000)():
                    pass
            nursery.cancel_scope.cancel()
    assert b"sesame" not in heard[0]


@pytest.mark.parametrize("size", [PIECE_CHARS, PIECE_CHARS + 1, 5 * PIECE_CHARS])
async def test_a_large_message_arrives_whole_and_what_is_said_meanwhile_behind_it(size: int) -> None:
    """LIM-001: it travels in pieces."""
    heard: list[str | bytes] = []

    async def accept(request: WebSocketRequest) -> None:
        connection = await request.accept()
        while len(heard) < 3:
            heard.append(await connection.get_message())
        await connection.aclose()

    with trio.fail_after(20):
        async with listening(accept) as address, over_websocket(address, max_message_bytes=1_000)() as transport:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.send, "ü" * size)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(transport.send, "small")
                nursery.start_soon(transport.send, "x" * size)
            with pytest.raises(TransportClosed):
                await transport.receive()
    assert heard[0] == "ü" * size
    assert sorted(map(len, heard[1:])) == [5, size]
