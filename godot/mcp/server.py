"""Serves a table of tools: on a WebSocket port, or on one transport.

The accept loop and the live connections end one after the other: a cancelled `serve_websocket`
stops accepting, says goodbye to everyone (close code 1001, REL-005), and only then ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, wrap_server_stream
from wsproto.utilities import ProtocolError

from godot.errors import ConfigError
from godot.mcp.session import Call, Run, Send, ServerInfo, Session, Stop
from godot.mcp.tools import Toolbox
from godot.mcp.transport import GOODBYE_S, READ_BYTES, SUBPROTOCOL, Transport, TransportClosed, WebSocketTransport

HANDSHAKE_S: Final = 5.0
"""How long a peer may take from the TCP connection to the end of its upgrade request."""

SEND_S: Final = 30.0
"""How long a peer may leave an answer unread before it is dropped."""

MAX_CALLS_IN_FLIGHT: Final = 1_000
"""Calls of one connection that run at once; beyond, its next frames are left unread."""


@attrs.frozen
class Server:
    """What is served, and to whom it tells what happens.

    :param report: gets one line for each connection that ended with a bug of ours.
    :param max_message_bytes: a larger frame closes its connection with code 1009.
    """

    info: ServerInfo
    toolbox: Toolbox
    report: Callable[[str], None]
    max_message_bytes: int = 16 * 1024 * 1024


async def serve(server: Server, transport: Transport) -> None:
    """Answer one connection. Returns when its other end has closed it.

    Calls are answered as they finish, so that a slow query does not delay what comes behind it;
    those of a tool that is `in_order` are finished before the next frame is read. When the
    connection ends, calls still running are cancelled.
    """
    session = Session(server.info, server.toolbox)
    running: dict[Call, trio.CancelScope] = {}
    slots = trio.Semaphore(MAX_CALLS_IN_FLIGHT)

    async def send(frame: str) -> None:
        with trio.move_on_after(SEND_S) as patience:
            await transport.send(frame)
        if patience.cancelled_caught:
            raise TransportClosed(f"an answer was left unread for {SEND_S:g} s")

    async def run(call: Call) -> None:
        frame = session.answer(call, await call.tool.call(call.arguments))
        if frame is not None:
            await send(frame)

    async def run_beside(call: Call, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await run(call)
        except TransportClosed:
            calls.cancel_scope.cancel()
        finally:
            del running[call]
            slots.release()

    async with trio.open_nursery() as calls:
        try:
            while True:
                for event in session.receive(await transport.receive()):
                    match event:
                        case Send(frame):
                            await send(frame)
                        case Run(call) if call.tool.in_order:
                            await run(call)
                        case Run(call):
                            await slots.acquire()
                            running[call] = scope = trio.CancelScope()
                            calls.start_soon(run_beside, call, scope, name=f"{call.tool.name} {call.id!r:.40}")
                        case Stop(call):
                            if call in running:
                                running[call].cancel()
        except TransportClosed:
            calls.cancel_scope.cancel()


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Bind a TCP address.

    :param port: 0 picks a free one.
    :raises ConfigError: the address is in use, not ours, or not allowed.
    """
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as exc:
        raise ConfigError(f"cannot listen on {host} port {port}: {exc.strerror or exc}; choose another port") from exc


def listening_url(listeners: Sequence[trio.SocketListener]) -> str:
    """Return the URL of what was bound, with the port that was really taken."""
    host, port = listeners[0].socket.getsockname()[:2]
    return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"


async def serve_websocket(
    server: Server,
    listeners: list[trio.SocketListener],
    *,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept and answer connections until cancelled; then say goodbye to each.

    A bug in a tool ends its connection (code 1011) and is reported; it does not end the server.
    """
    live: set[Transport] = set()
    stopping = trio.Event()

    async def keep_connections(*, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        # A cancelled handler would leave its client with code 1006; so the handlers are shielded from the
        # stop, and end because their connections do.
        async with trio.open_nursery() as connections:
            connections.cancel_scope.shield = True
            task_status.started(connections)
            await stopping.wait()
            with trio.move_on_after(GOODBYE_S):
                async with trio.open_nursery() as goodbyes:
                    for transport in live:
                        goodbyes.start_soon(transport.aclose, 1001, "shutting down")
            connections.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        connections: trio.Nursery = await nursery.start(keep_connections)
        try:
            await trio.serve_listeners(
                partial(_handle, server, live),
                listeners,
                handler_nursery=connections,
                task_status=task_status,
            )
        finally:
            stopping.set()


async def _handle(server: Server, live: set[Transport], stream: trio.SocketStream) -> None:
    """Answer one TCP connection; nothing that happens on it leaves this function.

    trio-websocket's own server lets an error of one connection end them all; so only its handshake
    and framing are used, each connection in a nursery of its own.
    """
    peer = _peer(stream)
    try:
        async with stream, trio.open_nursery() as nursery:
            request = None
            with trio.move_on_after(HANDSHAKE_S):
                request = await wrap_server_stream(
                    nursery,
                    stream,
                    max_message_size=server.max_message_bytes,
                    receive_buffer_size=READ_BYTES,
                )
            if request is not None:
                await _converse(server, live, request)
            nursery.cancel_scope.cancel()
    except* (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionClosed, ProtocolError):
        pass  # the peer is gone, or does not speak WebSocket
    except* Exception as bugs:  # noqa: BLE001 - the top of the connection handler
        for bug in bugs.exceptions:
            server.report(f"connection of {peer} ended by a bug: {bug!r}")


async def _converse(server: Server, live: set[Transport], request: WebSocketRequest) -> None:
    offered = SUBPROTOCOL in request.proposed_subprotocols
    transport = WebSocketTransport(await request.accept(subprotocol=SUBPROTOCOL if offered else None))
    code = 1011
    live.add(transport)
    try:
        await serve(server, transport)
        code = 1000
    finally:
        live.discard(transport)
        with trio.move_on_after(GOODBYE_S, shield=True):
            await transport.aclose(code)


def _peer(stream: trio.SocketStream) -> str:
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:
        return "a peer that is gone"
    return f"{host}:{port}"
