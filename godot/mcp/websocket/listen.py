"""Listens for WebSockets, and serves each of them.

The accept loop ends before the open connections: a cancelled `serve_websocket` stops accepting, says goodbye on every
connection (close code 1001, REL-005), and only then ends.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Final, cast

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, wrap_server_stream
from wsproto.utilities import ProtocolError

from godot.mcp.access import PeerRefused
from godot.mcp.budget import Account
from godot.mcp.places import REFUSAL_S, Place, Places, accept_connections, http_answer, peer_address
from godot.mcp.server import Server, serve
from godot.mcp.transport import GOODBYE_S
from godot.mcp.websocket.connection import READ_BYTES, SUBPROTOCOL, Reader, WebSocketTransport
from godot.mcp.websocket.frames import is_plain_http
from godot.mcp.websocket.meter import Meter

HANDSHAKE_S: Final = 5.0
"""How long a peer may take from the TCP connection to the end of its upgrade request."""


async def serve_websocket(
    server: Server,
    listeners: list[trio.SocketListener],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept and answer connections until cancelled; then say goodbye to each.

    A bug ends only its call, or its connection (code 1011), and is reported.
    """
    stopping = trio.Event()

    async def keep_connections(*, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        # A cancelled handler would leave its client with code 1006. So the handlers are shielded from the stop, and end
        # when their connections end.
        async with trio.open_nursery() as connections:
            connections.cancel_scope.shield = True
            task_status.started(connections)
            await stopping.wait()
            with trio.move_on_after(GOODBYE_S):
                async with trio.open_nursery() as goodbyes:
                    for transport in server.live:
                        goodbyes.start_soon(transport.aclose, 1001, "shutting down")
            connections.cancel_scope.cancel()

    places = Places(server.max_connections, f"{server.prefix}_MAX_CONNECTIONS", server.report)
    async with trio.open_nursery() as nursery:
        connections: trio.Nursery = await nursery.start(keep_connections)
        try:
            await accept_connections(
                places, listeners, partial(_handle, server, stopping), connections, task_status=task_status
            )
        finally:
            stopping.set()


@attrs.define(eq=False)
class _Ending:
    """How we end a connection, and why, if its peer does not.

    :param scope: is cancelled to end it.
    """

    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    code: int = 1000
    reason: str | None = None

    def give_up(self, code: int, reason: str) -> None:
        self.code, self.reason = code, reason
        self.scope.cancel()


async def _handle(server: Server, stopping: trio.Event, place: Place, stream: trio.SocketStream) -> None:
    """Answer one TCP connection; no error on it leaves this function.

    In trio-websocket's own server an error of one connection ends them all. So only its handshake and framing are used,
    and each connection has a nursery of its own.
    """
    peer = peer_address(stream)
    ending = _Ending()
    meter = Meter(
        stream,
        Account(server.received, server.max_message_bytes),
        largest=server.max_message_bytes,
        setting=f"{server.prefix}_MAX_MESSAGE_BYTES",
        timeout_s=server.peer_timeout_s,
        give_up=ending.give_up,
    )
    try:
        async with stream, trio.open_nursery() as nursery:
            request = None
            with trio.move_on_after(HANDSHAKE_S) as handshake:
                if is_plain_http(await meter.read_request()):
                    await _send_elsewhere(server, peer, stream)
                    return
                request = await wrap_server_stream(
                    cast(trio.Nursery, Reader(nursery, handshake)),
                    meter,
                    max_message_size=server.max_message_bytes,
                    receive_buffer_size=READ_BYTES,
                )
            if request is not None:
                await _upgrade(server, peer, place, request, meter, ending)
            if stopping.is_set():
                # A task in this nursery reads the answer to our goodbye; `serve_websocket` cancels us after that.
                await trio.sleep_forever()
            nursery.cancel_scope.cancel()
    except* (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionClosed, ProtocolError):
        pass  # the peer is gone, or does not speak WebSocket
    except* Exception as bugs:  # noqa: BLE001 - the top of the connection handler
        for bug in bugs.exceptions:
            server.report("bug", peer, f"it ended the connection: {bug!r}")
    finally:
        meter.release()


async def _send_elsewhere(server: Server, peer: str, stream: trio.SocketStream) -> None:
    """Tell an HTTP client, such as a browser or a health checker, which port speaks HTTP."""
    reason = "this port speaks WebSocket (MCP)"
    server.report("refused", peer, f"plain HTTP: {reason}")
    where = "" if server.http_port is None else f"; HTTP is on port {server.http_port}"
    answer = http_answer("426 Upgrade Required", "Connection: Upgrade\r\nUpgrade: websocket", f"{reason}{where}")
    with trio.move_on_after(REFUSAL_S):
        await stream.send_all(answer)
        await stream.send_eof()
        while await stream.receive_some(READ_BYTES):  # with bytes unread, closing would reset the connection
            pass


async def _upgrade(
    server: Server, peer: str, place: Place, request: WebSocketRequest, meter: Meter, ending: _Ending
) -> None:
    """Answer an upgrade request, and serve the WebSocket until it is closed."""
    # trio-websocket's public `headers` leave out Host.
    host = request._event.host
    try:
        roles = server.gate.roles_for(host, request.headers)
    except PeerRefused as refused:
        server.report("refused", peer, refused.reason)
        headers = [(b"Content-Type", b"text/plain; charset=utf-8")]
        if refused.status == HTTPStatus.UNAUTHORIZED:
            headers.append((b"WWW-Authenticate", b"Bearer"))
        with trio.move_on_after(GOODBYE_S):
            await request.reject(refused.status, extra_headers=headers, body=f"{refused.reason}\n".encode())
        return
    place.note_asked()
    offered = SUBPROTOCOL in request.proposed_subprotocols
    connection = await request.accept(subprotocol=SUBPROTOCOL if offered else None)
    transport = WebSocketTransport(connection)
    code = 1011
    server.live.add(transport)
    try:
        with ending.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_keep_alive, server, peer, connection, meter, nursery.cancel_scope)
                await serve(server, transport, peer=peer, roles=roles, claim_frame=meter.claim)
                nursery.cancel_scope.cancel()
        if ending.reason is not None:
            server.report("refused", peer, ending.reason)
        code = ending.code
    finally:
        server.live.discard(transport)
        with trio.move_on_after(GOODBYE_S, shield=True):
            await transport.aclose(code, ending.reason)


async def _keep_alive(
    server: Server, peer: str, connection: WebSocketConnection, meter: Meter, scope: trio.CancelScope
) -> None:
    """Ping a peer twice in each timeout, and drop it if it does not answer. Returns when the peer is gone."""
    timeout_s = server.peer_timeout_s
    try:
        while True:
            await trio.sleep(timeout_s / 2)
            with trio.move_on_after(timeout_s) as patience:
                await connection.ping()
            if patience.cancelled_caught and meter.waits_for_peer:
                server.report("dropped", peer, f"it did not answer a ping within {timeout_s:g} s")
                scope.cancel()
                return
    except (ConnectionClosed, ProtocolError):
        return
