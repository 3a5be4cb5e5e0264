"""A network between two programs that can be made slow, cut and black-holed: a proxy on TCP or on a unix socket.

Law of this module: it never loses a byte in the middle of a connection and goes on with it. A connection is
delivered late, or it ends; that is what a network can do to TCP. Late means also: after the one who sent it
has given up and said the same on another connection.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

import attrs
import trio

Dial: TypeAlias = Callable[[], Awaitable[trio.SocketStream]]

CHUNK_BYTES: Final = 64 * 1024
IDLE_CUT_S: Final = 0.2
"""A connection on which nothing is said is cut all the same after this time."""

LAG_S: Final = 3.0
"""When a black hole closes, each connection that was in it wakes up within this time: retransmissions back off."""


@attrs.define(eq=False)
class _Connection:
    ends: tuple[trio.SocketStream, ...]
    scope: trio.CancelScope
    cut_at: float | None = None
    """The share of the next chunk that passes before the connection is cut."""

    def reset(self) -> None:
        """End both sides with a reset, in which what is not yet delivered is lost."""
        for end in self.ends:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.scope.cancel()


class Link:
    """The way to one program, whose place may change when it is started again."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name = name
        self.dial: Dial | None = None
        """Opens a connection to the program; None while there is none."""
        self.port = 0
        """Where it listens on 127.0.0.1, when it listens on TCP."""
        self.carried_bytes = 0
        self._rng = rng
        self._connections: set[_Connection] = set()
        self._holes = 0
        self._hole_closed = trio.Event()
        self._delays: list[float] = []

    async def run_on_tcp(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry connections from a free port. Runs until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        await self._run(listeners, task_status)

    async def run_on_unix(self, path: Path, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry connections from a unix socket. Runs until cancelled."""
        listening = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        await listening.bind(str(path))
        listening.listen(128)
        await self._run([trio.SocketListener(listening)], task_status)

    # What can be done to it.

    async def delay(self, by_s: float, duration_s: float) -> None:
        """Hold up everything that passes by some time. Returns when it is over."""
        self._delays.append(by_s)
        try:
            await trio.sleep(duration_s)
        finally:
            self._delays.remove(by_s)

    async def cut(self) -> None:
        """End every connection in the middle of what it carries next. Returns when they are ended."""
        cut = list(self._connections)
        for connection in cut:
            connection.cut_at = self._rng.random()
        await trio.sleep(IDLE_CUT_S)
        for connection in cut:
            connection.reset()

    async def black_hole(self, duration_s: float) -> None:
        """Let nothing pass. Returns when it is over; then what was held is delivered, each connection in its time."""
        self._holes += 1
        try:
            await trio.sleep(duration_s)
        finally:
            self._holes -= 1
            if not self._holes:
                self._hole_closed.set()
                self._hole_closed = trio.Event()

    # How it carries.

    async def _run(self, listeners: list[trio.SocketListener], task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._carry, listeners)
            task_status.started()

    async def _carry(self, near: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            async with near:
                await self._pass_holes()
                if self.dial is None:
                    return
                async with await self.dial() as far:
                    await self._carry_between(near, far)

    async def _carry_between(self, near: trio.SocketStream, far: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            connection = _Connection((near, far), nursery.cancel_scope)
            self._connections.add(connection)
            try:
                async with trio.open_nursery() as directions:
                    directions.start_soon(self._pump, connection, near, far)
                    directions.start_soon(self._pump, connection, far, near)
            finally:
                self._connections.discard(connection)

    async def _pump(self, connection: _Connection, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        try:
            while chunk := await source.receive_some(CHUNK_BYTES):
                if self._delays:
                    await trio.sleep(sum(self._delays))
                await self._pass_holes()
                if connection.cut_at is not None:
                    await sink.send_all(chunk[: int(len(chunk) * connection.cut_at)])
                    connection.reset()
                await sink.send_all(chunk)
                self.carried_bytes += len(chunk)
            await self._pass_holes()
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            connection.scope.cancel()

    async def _pass_holes(self) -> None:
        if not self._holes:
            return
        while self._holes:
            await self._hole_closed.wait()
        await trio.sleep(self._rng.uniform(0, LAG_S))
