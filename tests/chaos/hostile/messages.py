"""The largest messages, and the worst: many values, deep ones, long names, batches, what is no JSON and no text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import orjson

from tests.chaos.hostile.crew import Kind, Visitor, call

ROOM: Final = 1024
"""Bytes of a message that are left for what stands around its bulk."""


INITIALIZE: Final = (
    b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-03-26","capabilities":{},'
    b'"clientInfo":{"name":"hostile","version":"1"}}}'
)
"""The one version that has batches."""


def fill(pattern: bytes, size: int) -> bytes:
    """Return a pattern as often as it fits."""
    return pattern * (size // len(pattern))


def _size(visitor: Visitor) -> int:
    """Choose a size: one in four is the largest that is allowed."""
    largest = visitor.crowd.max_message_bytes - ROOM
    return largest if visitor.rng.random() < 0.25 else int(largest * visitor.rng.uniform(0.01, 0.3))


def _distinct_arrays(size: int) -> bytes:
    """Short arrays under different keys: for the index, each value is one of its own."""
    return orjson.dumps({f"k{n}": list(range(100 * n, 100 * n + 100)) for n in range(size // 820)})


BULKS: Final[tuple[Callable[[int], bytes], ...]] = (
    lambda size: b'{"a":[%b1]}' % fill(b"1,", size),
    lambda size: b'{"a":[%b{}]}' % fill(b"{},", size),
    lambda size: b'{"a":"%b"}' % fill(b"x", size),
    lambda size: b'{"a":"%b"}' % fill(rb"\u0041", size),
    lambda size: b'{"a":"%b"}' % fill("Zoë ".encode(), size),
    lambda size: b'{"a":[%b1]}' % fill(b"[" * 200 + b"]" * 200 + b",", size),
    _distinct_arrays,
)


async def log_largest(visitor: Visitor) -> None:
    """Log an entry of the largest size, durably."""
    async with visitor.websocket() as socket:
        await visitor.log(socket, visitor.rng.choice(BULKS)(_size(visitor)))


async def log_long_message(visitor: Visitor) -> None:
    """Log a message that has no end."""
    async with visitor.websocket() as socket:
        await visitor.log(socket, b"{}", fill(visitor.rng.choice((b"a ", b"ab", b"<", b'\\"')), _size(visitor)))


async def send_too_much(visitor: Visitor) -> None:
    """Send a frame that is larger than is allowed, whole or in parts."""
    part = fill(b"x", visitor.crowd.max_message_bytes // 4)
    async with visitor.websocket() as socket:
        if visitor.rng.random() < 0.5:
            await socket.send(part * 4 + b"xx")
        else:
            for number in range(5):
                await socket.send(part, 0 if number else 1, final=number == 4)
        await visitor.outcome(socket)


async def send_long_name(visitor: Visitor) -> None:
    """Send something very long where a short name belongs."""
    name = fill(b"logger_", _size(visitor))
    frames: tuple[Callable[[bytes], bytes], ...] = (
        lambda name: call("logger_log", b'{"component":"hostile","level":"%b","message":"m"}' % name),
        lambda name: call("logger_log", b'{"component":"%b","level":"INFO","message":"m"}' % name),
        lambda name: call("logger_log", b'{"component":"hostile","level":"INFO","message":"m","%b":1}' % name),
        lambda name: call(name.decode(), b"{}"),
        lambda name: b'{"jsonrpc":"2.0","id":1,"method":"%b"}' % name,
        lambda name: b'{"jsonrpc":"2.0","id":"%b","method":"ping"}' % name,
        lambda name: call("logger_query", b'{"search":"%b"}' % name),
        lambda name: call("logger_query", b'{"component":"%b"}' % name),
        lambda name: call("logger_query", b'{"cursor":"%b"}' % name),
        lambda name: call("logger_query", b'{"start_time":"%b"}' % name),
        lambda name: call("logger_tail", b'{"wait_s":0,"cursor":"%b"}' % name),
    )
    async with visitor.websocket() as socket:
        await socket.send(visitor.rng.choice(frames)(name))
        await visitor.outcome(socket)


async def send_batch(visitor: Visitor) -> None:
    """Send a JSON-RPC batch of a great many messages, at times where there are none."""
    size = _size(visitor)
    ping = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    bodies = (fill(b"1,", size), fill(b"[],", size), fill(ping + b",", size // 4))
    async with visitor.websocket() as socket:
        if visitor.rng.random() < 0.8:
            await socket.send(INITIALIZE)
            await visitor.outcome(socket)
        await socket.send(b"[%b%b]" % (visitor.rng.choice(bodies), ping))
        await visitor.outcome(socket)


async def send_nonsense(visitor: Visitor) -> None:
    """Send what is not JSON, not text, or ends too early."""
    size = _size(visitor)
    bodies = (
        fill(b"[", size),
        fill(b'{"a":', size),
        fill(b"9", size),
        fill(b"-", size),
        b'"' + fill(b"\\", size | 1),
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":%b' % fill(b"[[],", size),
        b'{"jsonrpc":"2.0","id":%b,"method":"ping"}' % fill(b"9", size),
        fill(b"\xff\xfe", size),
        fill(b"a", size) + b"\xe2\x82",
        fill(b"\0", size),
    )
    async with visitor.websocket() as socket:
        await socket.send(visitor.rng.choice(bodies), visitor.rng.choice((1, 1, 2)))
        await visitor.outcome(socket)


async def log_batch_of_refused(visitor: Visitor) -> None:
    """Log 1,000 entries at once, each of which is refused with a reason of its own."""
    longest = min(15_000, visitor.crowd.max_message_bytes // 1_100)
    name = fill(b"unknown_", visitor.rng.randrange(8, longest))
    entries = (
        b'{"component":"hostile","level":"INFO","message":"m","%b":1}' % name,
        b'{"component":"hostile","level":"%b","message":"m"}' % name,
        b'{"component":"hostile","level":"INFO","messag":"%b"}' % name,
        b"1",
        b"[]",
    )
    logs = b",".join([visitor.rng.choice(entries)] * 1_000)
    async with visitor.websocket() as socket:
        await visitor.ask(socket, "logger_log_batch", b'{"logs":[%b]}' % logs)


async def post_bad_lines(visitor: Visitor) -> None:
    """Post lines over HTTP none of which is an entry, or more than is allowed."""
    lines = (b"1\n", b'{"x":1}\n', b"[[[[\n", b"\xff\n", b"\n", b'{"component":"hostile","level":"NO","message":"m"}\n')
    await visitor.post(fill(visitor.rng.choice(lines), _size(visitor) + visitor.rng.choice((0, 0, 0, 2 * ROOM))))


KINDS: Final = (
    Kind("largest entries", log_largest, pause_s=8.0),
    Kind("longest messages", log_long_message, pause_s=8.0),
    Kind("frames over the limit", send_too_much, pause_s=6.0),
    Kind("longest names", send_long_name, pause_s=4.0),
    Kind("JSON-RPC batches", send_batch, pause_s=6.0),
    Kind("nonsense", send_nonsense, pause_s=4.0),
    Kind("batches of refused", log_batch_of_refused, pause_s=5.0),
    Kind("bad lines over HTTP", post_bad_lines, pause_s=6.0),
)
