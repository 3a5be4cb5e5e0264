"""The two ends of a pipe in the hands of a test: a host, and a Godot that can be away; and what they say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from godot.connect.pipe import HostGone, Pipe
from godot.mcp.memory import MemoryTransport, memory_transports
from godot.mcp.transport import Transport, Unreachable

URL = "ws://127.0.0.1:9060"
LONG = 10_000.0  # virtual seconds

INITIALIZE = '{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}'
INITIALIZED = '{"jsonrpc":"2.0","method":"notifications/initialized"}'
WELCOME = '{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18"}}'
NOTICE = '{"jsonrpc":"2.0","method":"notifications/progress","params":{}}'


def call(request_id: object, method: str = "tools/call") -> str:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method})


def result(request_id: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "result": {}})


def cancelled(request_id: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}})


class FakeHost:
    """A host: what it says, what it has read, and when."""

    def __init__(self) -> None:
        self._say, self._said = trio.open_memory_channel[bytes](1_000_000)
        self._wrote, self._written = trio.open_memory_channel[str](1_000_000)
        self.reads = trio.Event()
        self.reads.set()
        self.gone = False
        self.told: list[str] = []

    def says(self, *lines: str) -> None:
        for line in lines:
            self._say.send_nowait(line.encode() + b"\n")

    def ends(self) -> None:
        self._say.close()

    async def hears(self) -> str:
        return await self._written.receive()

    async def hears_error(self) -> tuple[Any, int, str]:
        answer = json.loads(await self.hears())
        assert answer.keys() == {"jsonrpc", "id", "error"}
        return answer["id"], answer["error"]["code"], answer["error"]["message"]

    @property
    def heard(self) -> int:
        return self._written.statistics().current_buffer_used

    @property
    def unread(self) -> int:
        return self._said.statistics().current_buffer_used

    async def read(self) -> bytes:
        try:
            return await self._said.receive()
        except trio.EndOfChannel:
            return b""

    async def write(self, line: str) -> None:
        await self.reads.wait()
        if self.gone:
            raise HostGone
        assert "\n" not in line
        self._wrote.send_nowait(line)

    async def tell(self, text: str) -> None:
        self.told.append(text)


class FakeGodot:
    """A Godot that can be away, and whose connections end in the hands of the test."""

    def __init__(self) -> None:
        self.trouble: Unreachable | None = None
        self.tries: list[float] = []
        self._accepted, self._connections = trio.open_memory_channel[MemoryTransport](1_000)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Transport]:
        await trio.lowlevel.checkpoint()
        self.tries.append(trio.current_time())
        if self.trouble is not None:
            raise self.trouble
        ours, theirs = memory_transports()
        self._accepted.send_nowait(theirs)
        try:
            yield ours
        finally:
            await ours.aclose()

    async def accepts(self) -> MemoryTransport:
        return await self._connections.receive()

    def goes(self) -> None:
        self.trouble = Unreachable(URL, "Connection refused")

    def comes(self) -> None:
        self.trouble = None


@asynccontextmanager
async def piping(host: FakeHost, godot: FakeGodot) -> AsyncIterator[None]:
    with trio.fail_after(LONG):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Pipe(godot.connect, host, URL).run)
            yield
            nursery.cancel_scope.cancel()
