"""Connections without end, and strangers."""

from __future__ import annotations

from typing import Final

import trio

from tests.chaos.hostile.crew import Kind, Visitor

STORM: Final = 100
IDLE_S: Final = 60.0

UPGRADE: Final = (
    b"GET / HTTP/1.1\r\nHost: %b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%b\r\n"
)


async def stay(visitor: Visitor) -> None:
    """Connect and say nothing, with or without the handshake of WebSocket."""
    async with visitor.tcp() as socket:
        if visitor.rng.random() < 0.7:
            await socket.upgrade()
        with trio.move_on_after(visitor.rng.uniform(1, IDLE_S)):
            await socket.rest()
            visitor.count("cut")
            return
        visitor.count("left")


async def come_and_go(visitor: Visitor) -> None:
    """Connect and leave again, a hundred times."""
    for _ in range(STORM):
        if visitor.rng.random() < 0.3:
            async with visitor.websocket():
                pass
        async with visitor.tcp(http=visitor.rng.random() < 0.2):
            pass
        await trio.lowlevel.checkpoint()
    visitor.count("left")


async def come_uninvited(visitor: Visitor) -> None:
    """Come from a strange page, under a strange name, with a token of one's own, or ask for what there is not."""
    heads = (
        UPGRADE % (b"evil.example", b""),
        UPGRADE % (b"localhost", b"Origin: http://evil.example\r\n"),
        UPGRADE % (b"localhost", b"Origin: null\r\n"),
        UPGRADE % (b"localhost", b"Authorization: Bearer nonsense\r\nOrigin: http://evil.example\r\n"),
        b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"x" * 10_000),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (b"X-Filling: nothing\r\n" * 500),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"nonsense\r\n\r\n",
    )
    async with visitor.tcp(http=visitor.rng.random() < 0.3) as socket:
        await socket.stream.send_all(visitor.rng.choice(heads))
        with trio.move_on_after(10):
            await visitor.http_status(socket)
            return
        visitor.count("left")


KINDS: Final = (
    Kind("idle connections", stay, pause_s=2.0, clients="idle", patience_s=2 * IDLE_S),
    Kind("connect and leave", come_and_go, pause_s=6.0),
    Kind("strangers", come_uninvited, pause_s=0.5, clients=2),
)
