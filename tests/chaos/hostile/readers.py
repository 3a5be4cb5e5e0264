"""Peers that stop: that do not read, do not finish what they began to send, or say nothing for ever."""

from __future__ import annotations

from typing import Final

import trio

from tests.chaos.hostile.crew import Kind, Visitor, call

HELD_S: Final = 35.0
"""For so long, at the longest, such a connection is held: the daemon drops one that does not read after 30 s."""

SMALL_BUFFER: Final = 4096
BURST_S: Final = 1.5

LARGE: Final = b'{"limit":1000,"max_bytes":900000,"component":["batches-v7","hostile","batches-twice-v4"]}'


async def read_no_answers(visitor: Visitor) -> None:
    """Ask much, and read nothing of the answers."""
    async with visitor.websocket(receive_buffer=SMALL_BUFFER) as socket:
        for number in range(visitor.rng.randint(5, 60)):
            await socket.send(call("logger_query", LARGE, number))
        await _hold(visitor)


async def read_slowly(visitor: Visitor) -> None:
    """Ask much, and read a little of it now and then."""
    async with visitor.websocket(receive_buffer=SMALL_BUFFER) as socket:
        await socket.send(call("logger_query", LARGE))
        for _ in range(visitor.rng.randint(10, 100)):
            if not await socket.stream.receive_some(1000):
                visitor.count("cut")
                return
            await trio.sleep(0.2)
        visitor.count("left")


async def send_half_a_frame(visitor: Visitor) -> None:
    """Say that much comes, and send a part of it."""
    size = visitor.crowd.max_message_bytes - 1
    async with visitor.websocket() as socket:
        await socket.stream.send_all(socket.head(size) + b"x" * int(size * visitor.rng.uniform(0.0, 0.5)))
        await _hold(visitor)


async def send_half_a_handshake(visitor: Visitor) -> None:
    """Connect, and say less than a request."""
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nX-Filling: "
    async with visitor.tcp(http=visitor.rng.random() < 0.3) as socket:
        await socket.stream.send_all(head[: visitor.rng.randrange(len(head))])
        if visitor.rng.random() < 0.5:
            await socket.stream.send_all(b"x" * 2_000_000)
        await socket.rest()
        visitor.count("cut")


async def post_slowly(visitor: Visitor) -> None:
    """Tell the body of a request in drops, and at times leave in the middle."""
    async with visitor.tcp(http=True) as socket:
        await socket.stream.send_all(
            b"POST /v1/entries HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
            % (visitor.crowd.max_message_bytes - 1)
        )
        if visitor.rng.random() < 0.5:
            await socket.stream.send_all(b" " * (visitor.crowd.max_message_bytes // 2))
        for _ in range(visitor.rng.randint(5, 100)):
            await socket.stream.send_all(b"{")
            await trio.sleep(0.5)
        visitor.count("left")


async def ping_without_end(visitor: Visitor) -> None:
    """Ping as fast as it goes, and read no answer."""
    pings = (b"\x89\xfd\0\0\0\0" + b"p" * 125) * 100
    async with visitor.websocket(receive_buffer=SMALL_BUFFER) as socket:
        with trio.move_on_after(BURST_S):
            while True:
                await socket.stream.send_all(pings)
                await trio.sleep(0.01)
        visitor.count("left")


async def continue_without_end(visitor: Visitor) -> None:
    """Send a frame in a great many empty parts."""
    parts = b"\x00\x80\0\0\0\0" * 1000
    async with visitor.websocket() as socket:
        await socket.send(b'{"jsonrpc":"2.0","id":1,"method":"ping"', final=False)
        with trio.move_on_after(BURST_S):
            while True:
                await socket.stream.send_all(parts)
                await trio.sleep(0.02)
        # A burst may have been cut off within a part; then this is an error in the protocol.
        await socket.send(b"}", 0)
        await visitor.outcome(socket)


async def stop_the_terminal(visitor: Visitor) -> None:
    """Read nothing of what the daemon prints."""
    await visitor.daemon.stop_reading(visitor.rng.uniform(2.0, 10.0))
    visitor.count("over")


async def _hold(visitor: Visitor) -> None:
    await trio.sleep(visitor.rng.uniform(1.0, HELD_S))
    visitor.count("left")


KINDS: Final = (
    Kind("answers unread", read_no_answers, clients=2),
    Kind("answers read slowly", read_slowly, clients=2),
    Kind("half a frame", send_half_a_frame, clients=3),
    Kind("half a handshake", send_half_a_handshake, clients=3),
    Kind("slow bodies", post_slowly, clients=2, patience_s=60.0),
    Kind("pings without end", ping_without_end, pause_s=8.0),
    Kind("empty continuations", continue_without_end, pause_s=8.0),
    Kind("an unread terminal", stop_the_terminal, pause_s=15.0),
)
