"""100,000 frames that no client should send, against the real listener in this process.

In this process, so that what they leave behind can be counted: tasks, objects, connections.
"""

from __future__ import annotations

import gc
import json
import math
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import pytest
import trio
import trio.testing

from dewey_logs.tools import DEFINITIONS
from godot.buffer.memory import MemoryBuffer
from godot.daemon import run_pipeline
from godot.mcp.access import Gate
from godot.mcp.websocket import listen
from godot.service.ports import open_listeners
from godot.service.signals import Lifecycle
from godot.settings import GodotSettings
from godot.stations import Dependencies
from tests.fakes import FakeDewey

SEED: Final = 20261120
FRAMES: Final = 100_000
PIPELINED: Final = 1_000
FATAL_EVERY: Final = 100
MAX_BYTES: Final = 16 * 1024

UPGRADE: Final = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@asynccontextmanager
async def pipeline() -> AsyncIterator[tuple[int, list[str]]]:
    """Run the whole pipeline over the in-memory twins; yield its port and the lines that it writes."""
    lines: list[str] = []
    listeners = await open_listeners("127.0.0.1", 0)
    dewey = FakeDewey()
    dependencies = Dependencies(MemoryBuffer(100_000), dewey, listeners, Gate(), DEFINITIONS, lines.append)
    life = Lifecycle()
    settings = GodotSettings(max_message_bytes=MAX_BYTES)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_pipeline, settings, dependencies, life, lambda: None)
        await life.ready.wait()
        yield listeners[0].socket.getsockname()[1], lines
        life.stop.set()


def ws_frame(payload: bytes, first: int = 0x81, *, masked: bool = True) -> bytes:
    """Write a WebSocket frame; the mask is zero, which leaves the payload as it is."""
    bit = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head = bytes([first, bit | size])
    elif size < 65536:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    return head + (b"\0\0\0\0" if masked else b"") + payload


class Hostile:
    """Makes frames. Those of `harmless` leave the connection open, those of `fatal` end it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._harmless: list[Callable[[], bytes]] = [
            self.noise,
            self.truncated,
            self.mutated,
            self.wrong_types,
            self.out_of_order,
            self.fragments,
            self.ping,
        ]
        self._fatal: list[Callable[[], bytes]] = [
            lambda: ws_frame(b" " * (MAX_BYTES + 1)),  # too large: 1009
            lambda: ws_frame(b'{"id":"\xff"}'),  # not UTF-8: 1007
            lambda: ws_frame(b"{}", masked=False),  # a client has to mask: 1002
            lambda: ws_frame(b"{}", first=0x83),  # no such opcode
            lambda: ws_frame(b"{}", first=0xF1),  # reserved bits
            lambda: ws_frame(b"p" * 200, first=0x89),  # a ping that is too long
            lambda: ws_frame(b"\x03", first=0x88),  # half a close code
            lambda: ws_frame(b"", first=0x80),  # the rest of a message that was not begun
            lambda: ws_frame(self.call())[:-7],  # cut in the middle
            lambda: ws_frame(self.call())[:1],
            lambda: self.random.randbytes(40),
        ]

    def call(self, **arguments: object) -> bytes:
        params = {"name": self.random.choice(["logger_log", "logger_query", "logger_status", "x"])}
        fields = {"component": "fuzz", "level": "LOUD", "message": "m", **arguments}
        request = {"jsonrpc": "2.0", "id": self.random.randrange(10), "method": "tools/call"}
        return json.dumps({**request, "params": {**params, "arguments": fields}}).encode()

    def harmless(self) -> bytes:
        return self.random.choice(self._harmless)()

    def fatal(self) -> bytes:
        return self.random.choice(self._fatal)()

    def noise(self) -> bytes:
        text = "".join(self.random.choices('{}[]":,0123456789eE+-.truefalsn \\u\x00é😀', k=self.random.randrange(60)))
        return ws_frame(text.encode(), first=self.random.choice([0x81, 0x82]))

    def truncated(self) -> bytes:
        text = self.call()
        return ws_frame(text[: self.random.randrange(len(text))])

    def mutated(self) -> bytes:
        text = bytearray(self.call())
        for _ in range(self.random.randrange(1, 4)):
            text[self.random.randrange(len(text))] = self.random.randrange(32, 127)
        return ws_frame(bytes(text))

    def wrong_types(self) -> bytes:
        odd: list[Any] = [None, True, 1.5, -1, "", "x", [], {}, [[]], {"a": {}}, 10**30, "\ud800"]
        request = {
            "jsonrpc": self.random.choice(["2.0", *odd]),
            "id": self.random.choice(odd),
            "method": self.random.choice(["tools/call", "tools/list", "initialize", "ping", *odd]),
            "params": self.random.choice(odd + [{"name": name, "arguments": value} for name in odd for value in odd]),
        }
        for name in self.random.sample(list(request), self.random.randrange(3)):
            del request[name]
        return ws_frame(json.dumps(self.random.choice([request, [request], [request] * 3, odd])).encode())

    def out_of_order(self) -> bytes:
        number = self.random.randrange(10)
        message = self.random.choice(
            [
                {"jsonrpc": "2.0", "id": number, "result": {}},
                {"jsonrpc": "2.0", "id": number, "error": {"code": 1, "message": "no"}},
                {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}},
                {"jsonrpc": "2.0", "method": "notifications/initialized"},
                {"jsonrpc": "2.0", "id": number, "method": "initialize", "params": {"protocolVersion": "2025-03-26"}},
                {"jsonrpc": "2.0", "id": number, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}},
                {"jsonrpc": "2.0", "id": number, "method": "server/discover", "params": {}},
            ]
        )
        return ws_frame(json.dumps(message).encode())

    def fragments(self) -> bytes:
        text = self.call()
        middle = self.random.randrange(len(text))
        return ws_frame(text[:middle], first=0x01) + self.ping() + ws_frame(text[middle:], first=0x80)

    def ping(self) -> bytes:
        return ws_frame(self.random.randbytes(self.random.randrange(126)), first=0x89)


@asynccontextmanager
async def websocket(port: int) -> AsyncIterator[trio.SocketStream]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(UPGRADE)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await stream.receive_some(1)
        yield stream


async def send_and_find(port: int, frames: bytes, wanted: str) -> None:
    """Send everything at once, and read until an answer with this id has come."""
    async with websocket(port) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, frames)
        needle = json.dumps({"id": wanted}).strip("{}").replace(": ", ":").encode()
        seen = b""
        while needle not in seen:
            more = await stream.receive_some()
            assert more, "the connection was closed"
            seen = seen[-len(needle) :] + more


async def send_and_read_to_the_end(port: int, frames: bytes) -> None:
    async with websocket(port) as stream:
        with suppress(trio.BrokenResourceError):
            await stream.send_all(frames)
            await stream.send_eof()
            while await stream.receive_some():
                pass


def good_call(identity: str) -> bytes:
    fields = {"component": "fuzz", "level": "INFO", "message": "well-formed"}
    params = {"name": "logger_log", "arguments": fields}
    return ws_frame(json.dumps({"jsonrpc": "2.0", "id": identity, "method": "tools/call", "params": params}).encode())


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


def objects() -> int:
    gc.collect()
    return len(gc.get_objects())


async def test_100_000_hostile_frames_leave_nothing_behind_and_the_next_call_is_answered() -> None:
    hostile = Hostile(SEED)
    with trio.fail_after(120):
        async with pipeline() as (port, lines):
            await send_and_find(port, good_call("first"), "first")
            await trio.testing.wait_all_tasks_blocked(0.01)
            tasks_before, objects_before = tasks(), objects()
            sent = 0
            while sent < FRAMES:
                frames = b"".join(hostile.harmless() for _ in range(PIPELINED - FATAL_EVERY // 10))
                await send_and_find(port, frames + good_call(f"after-{sent}"), f"after-{sent}")
                for _ in range(FATAL_EVERY // 10):
                    await send_and_read_to_the_end(port, hostile.harmless() + hostile.fatal() + good_call("unheard"))
                sent += PIPELINED
            await send_and_find(port, good_call("last"), "last")
            while tasks() > tasks_before:  # the last connections are still saying goodbye
                await trio.testing.wait_all_tasks_blocked(0.01)
            # Each of the 101 well-formed calls since then is an entry in the store, of some ten objects.
            assert objects() - objects_before < 50 * FRAMES // PIPELINED
            assert not [line for line in lines if "event=bug" in line]


async def test_1_000_connections_that_break_off_in_the_middle_of_the_handshake_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listen, "HANDSHAKE_S", math.inf)  # a peer that is gone is not waited for
    with trio.fail_after(60):
        async with pipeline() as (port, lines):
            await send_and_find(port, good_call("first"), "first")
            await trio.testing.wait_all_tasks_blocked(0.01)
            before = tasks()
            for number in range(1_000):
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    await stream.send_all(UPGRADE[: number % len(UPGRADE)])
                    if number % 2:  # every other one is reset instead of closed
                        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            while tasks() > before:
                await trio.testing.wait_all_tasks_blocked(0.01)
            await send_and_find(port, good_call("last"), "last")
            assert not [line for line in lines if "event=bug" in line]
