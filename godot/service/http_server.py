"""Serves an ASGI application on Hypercorn's HTTP/1.1, with a deadline for every peer.

Only the protocol of Hypercorn is used. Its own server also speaks HTTP/2, in which one connection carries a hundred
bodies at once. And it waits without end for a peer that does not read, which would keep the daemon from stopping.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, cast

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIReceiveEvent, ConnectionState
from hypercorn.utils import parse_socket_addr
from starlette.types import ASGIApp

from godot.mcp.places import Place, Places, accept_connections, peer_address

GRACE_S: Final = 2.0
"""How long requests under way may take after the stop; a part of the drain (`GODOT_DRAIN_S`)."""

SILENT_S: Final = 5.0
"""How long a silent connection is kept, and how long a request may take to arrive."""

UNREAD_S: Final = 30.0
"""How long a peer may take to read a piece of an answer."""

LINGER_S: Final = 1.0
"""How long reading goes on when a peer is answered before it has sent all: closing at once would lose the answer."""


async def serve_app(
    app: ASGIApp,
    places: Places,
    listeners: list[trio.SocketListener],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests until cancelled; requests under way then have `GRACE_S` to end."""
    config = Config()
    config.accesslog = config.errorlog = None
    config.include_server_header = False
    config.keep_alive_timeout = config.read_timeout = SILENT_S  # type: ignore[assignment]
    config.h11_max_incomplete_size = 16 * 1024
    context = WorkerContext(None)
    stopping = trio.Event()

    async def keep_connections(*, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        async with trio.open_nursery() as connections:
            connections.cancel_scope.shield = True
            task_status.started(connections)
            await stopping.wait()
            await context.terminated.set()
            connections.cancel_scope.deadline = trio.current_time() + GRACE_S

    async def handle(place: Place, stream: trio.SocketStream) -> None:
        await _Connection(ASGIWrapper(cast(Any, app)), config, context, place, stream).run()

    async with trio.open_nursery() as nursery:
        connections: trio.Nursery = await nursery.start(keep_connections)
        try:
            await accept_connections(places, listeners, handle, connections, task_status=task_status)
        finally:
            stopping.set()


_OVER: Final = (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError)
"""Errors of a stream at its end. Busy: data behind a request closes it while the answer is still being sent."""


class _Http1(H11Protocol):
    """HTTP/1.1 that does not become HTTP/2, neither by an upgrade nor by the first line of a request."""

    async def _check_protocol(self, event: h11.Request) -> None:
        pass


class _Inbox:
    """Passes a request to the application one piece at a time, and drops the rest once the application answers.

    Hypercorn's own queue would wait for an application that takes no more, and the connection would stay for ever.
    """

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[ASGIReceiveEvent](math.inf)
        self._changed = trio.Event()
        self._is_answering = False

    async def put(self, message: ASGIReceiveEvent) -> None:
        """Add a piece; wait until the one before is taken."""
        while self._receive.statistics().current_buffer_used and not self._is_answering:
            await self._changed.wait()
        if not (self._is_answering and message["type"] == "http.request"):
            self._send.send_nowait(message)

    async def take(self) -> ASGIReceiveEvent:
        """Wait for a piece."""
        message = await self._receive.receive()
        self._wake()
        return message

    def note_answering(self) -> None:
        """Note that the application answers."""
        self._is_answering = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class _Tasks(TaskGroup):
    """Runs an application for each request."""

    async def spawn_app(
        self,
        app: Any,
        config: Config,
        scope: Any,
        send: Callable[[Any], Awaitable[None]],
    ) -> Callable[[Any], Awaitable[None]]:
        """Start the application; return a function that passes it the request piece by piece."""
        del config
        inbox = _Inbox()

        async def answer(message: Any) -> None:
            inbox.note_answering()
            await send(message)

        async def run() -> None:
            await app(scope, inbox.take, answer, trio.to_thread.run_sync, trio.from_thread.run)
            await answer(None)

        self.spawn(run)
        return inbox.put


class _Connection(TCPServer):
    """One connection, with deadlines for its peer in both directions."""

    def __init__(
        self, app: ASGIWrapper, config: Config, context: WorkerContext, place: Place, stream: trio.SocketStream
    ) -> None:
        super().__init__(app, config, context, ConnectionState({}), cast(Any, stream))
        self._place = place
        self._socket_stream = stream
        self._read_to_the_end = trio.Event()

    async def run(self) -> None:
        """Answer requests. Returns when the connection is over."""
        socket = self._socket_stream.socket
        try:
            client = parse_socket_addr(socket.family, socket.getpeername())
            server = parse_socket_addr(socket.family, socket.getsockname())
            async with _Tasks() as task_group:
                self._task_group = task_group
                self.protocol = cast(
                    Any,
                    _Http1(
                        self.app,
                        self.config,
                        self.context,
                        task_group,
                        ConnectionState(self.state),
                        False,
                        client,
                        server,
                        self.protocol_send,
                    ),
                )
                await self.idle_task.restart(task_group, self._idle_timeout)
                try:
                    await self._read_data()
                finally:
                    self._read_to_the_end.set()
        except* OSError:
            pass  # the peer is gone
        except* Exception as bugs:  # noqa: BLE001 - the top of the connection handler
            for bug in bugs.exceptions:
                self._place.places.report("bug", peer_address(self._socket_stream), f"it ended the connection: {bug!r}")
        finally:
            await trio.aclose_forcefully(self.stream)

    async def protocol_send(self, event: Event) -> None:
        """Send the output of the protocol; give the connection up when the peer does not take it."""
        if isinstance(event, Updated):
            (self._place.note_silent if event.idle else self._place.note_asked)()
        if isinstance(event, RawData):
            async with self.send_lock:
                with trio.move_on_after(UNREAD_S), suppress(*_OVER):
                    await self.stream.send_all(event.data)
                    return
            self._place.scope.cancel()  # the peer is gone, or does not read
        elif isinstance(event, Closed):
            with trio.move_on_after(LINGER_S), suppress(*_OVER):
                await self._socket_stream.send_eof()
                await self._read_to_the_end.wait()
            self._place.scope.cancel()
        else:
            await super().protocol_send(event)
