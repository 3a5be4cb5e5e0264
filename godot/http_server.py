"""Serves an ASGI application on Hypercorn's HTTP/1.1, one connection at a time and no longer than a peer deserves.

Hypercorn's own server also speaks HTTP/2, where one connection carries a hundred bodies at once, and it waits without
end for a peer that does not read: such a peer would hold the daemon up when it stops. So only its protocol is used.
"""

from __future__ import annotations

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
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr
from starlette.types import ASGIApp

from godot.mcp.places import Place, Places, accept_connections, peer_address

GRACE_S: Final = 2.0
"""How long requests under way may take after the stop; a part of the drain (`GODOT_DRAIN_S`)."""

SILENT_S: Final = 5.0
"""How long a connection is kept that says nothing, and how long a request may take to be told."""

UNREAD_S: Final = 30.0
"""How long a peer may take to read a piece of an answer."""


async def serve_app(
    app: ASGIApp,
    places: Places,
    listeners: list[trio.SocketListener],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests until cancelled; what is under way then has `GRACE_S` to end."""
    config = Config()
    config.accesslog = config.errorlog = None
    config.include_server_header = False
    config.keep_alive_timeout = config.read_timeout = SILENT_S  # type: ignore[assignment]
    config.h11_max_incomplete_size = 16 * 1024
    config.max_app_queue_size = 1  # else ten pieces of a body wait for an application that waits for room
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


class _Http1(H11Protocol):
    """HTTP/1.1 that does not become HTTP/2, neither by an upgrade nor by what the first line says."""

    async def _check_protocol(self, event: h11.Request) -> None:
        pass


class _Connection(TCPServer):
    """One connection, whose peer has a deadline in both directions."""

    def __init__(
        self, app: ASGIWrapper, config: Config, context: WorkerContext, place: Place, stream: trio.SocketStream
    ) -> None:
        super().__init__(app, config, context, ConnectionState({}), cast(Any, stream))
        self._place = place
        self._socket_stream = stream

    async def run(self) -> None:
        """Answer what comes. Returns when the connection is over."""
        socket = self._socket_stream.socket
        try:
            client = parse_socket_addr(socket.family, socket.getpeername())
            server = parse_socket_addr(socket.family, socket.getsockname())
            async with TaskGroup() as task_group:
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
                await self._read_data()
        except* OSError:
            pass  # the peer is gone
        except* Exception as bugs:  # noqa: BLE001 - the top of the connection handler
            for bug in bugs.exceptions:
                self._place.places.report("bug", peer_address(self._socket_stream), f"it ended the connection: {bug!r}")
        finally:
            await trio.aclose_forcefully(self.stream)

    async def protocol_send(self, event: Event) -> None:
        """Send what the protocol says, for as long as the peer takes it."""
        if isinstance(event, Updated):
            (self._place.note_silent if event.idle else self._place.note_asked)()
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            try:
                with trio.fail_after(UNREAD_S):
                    await self.stream.send_all(event.data)
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError, trio.TooSlowError):
                # Busy: the connection is just being closed, since what came behind the request is no HTTP.
                await trio.aclose_forcefully(self.stream)
                await self.protocol.handle(Closed())
