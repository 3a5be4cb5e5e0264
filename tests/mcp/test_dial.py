"""Opening a WebSocket: where to, what goes wrong on the way, and how it is closed."""

from __future__ import annotations

import socket
from functools import partial

import pytest
import trio
from trio_websocket import WebSocketRequest, serve_websocket

from godot.errors import ConfigError
from godot.mcp.dial import CONNECT_S, SILENT_S, Address, over_websocket
from godot.mcp.transport import Unreachable


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
    ["", "127.0.0.1:9060", "http://h:1", "ws://", "ws://h:x", "ws://[::1", "ws://u:secret@h", "ws://h/a b", "ws://h/ü"],
)
def test_a_url_that_cannot_be_used_is_refused_with_one_that_can(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
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


async def test_the_kernel_looks_after_a_connection_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def accept(request: WebSocketRequest) -> None:
        await request.accept()

    dialled: list[trio.SocketStream] = []
    dial = connect._dial

    async def remember(address: Address) -> trio.SocketStream:
        stream = await dial(address)
        assert isinstance(stream, trio.SocketStream)
        dialled.append(stream)
        return stream

    monkeypatch.setattr(connect, "_dial", remember)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            port = (await nursery.start(partial(serve_websocket, accept, "127.0.0.1", 0, ssl_context=None))).port
            async with over_websocket(Address.parse(f"ws://127.0.0.1:{port}"), max_message_bytes=1000)():
                assert dialled[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert dialled[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == SILENT_S // 2
            nursery.cancel_scope.cancel()
