"""Serves a table of tools: on a WebSocket port, or on one transport.

The accept loop and the live connections end one after the other: a cancelled `serve_websocket`
stops accepting, says goodbye to everyone (close code 1001, REL-005), and only then ends.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, Final, cast

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, wrap_server_stream
from wsproto.utilities import ProtocolError

from godot.errors import ConfigError, Unavailable
from godot.json.structure import shown
from godot.json.weight import weigh
from godot.mcp.access import Gate, Refused
from godot.mcp.budget import OWN_BYTES, Account, Claim, Pool
from godot.mcp.heavy import message_weight, off_the_loop
from godot.mcp.places import REFUSAL_S, Place, Places, accept_connections, http_answer, peer_address
from godot.mcp.session import Call, Run, Send, ServerInfo, Session, Stop, parse
from godot.mcp.toolbox import INSIDE, ROLES, Answer, Later, Role, Toolbox, caller, trace
from godot.mcp.transport import (
    GOODBYE_S,
    READ_BYTES,
    SUBPROTOCOL,
    Reader,
    Transport,
    TransportClosed,
    WebSocketTransport,
)
from godot.mcp.websocket.frames import is_plain_http
from godot.mcp.websocket.meter import Meter

HANDSHAKE_S: Final = 5.0
"""How long a peer may take from the TCP connection to the end of its upgrade request."""

MAX_RUNNING: Final = 4
"""Calls of one connection that are worked on at once; the others in flight wait. What they answer waits for a
peer that does not read, so this bounds the memory that such a peer can take. Dewey reads for four at once.
A call that only waits for something to happen (`Tool.waits`) is not worked on until it has happened."""


@attrs.frozen
class Watched:
    """What clients may learn of when it changes: an experimental capability of MCP, by its name.

    A client that names it in `capabilities.experimental` of `initialize` gets its value there in the answer, and as
    `notifications/<capability>` whenever it has changed.

    :param changed: returns when the value is another one than when it was called.
    """

    capability: str
    value: Callable[[], Mapping[str, Any]]
    changed: Callable[[], Awaitable[None]]


@attrs.frozen
class Server:
    """What is served, to whom, and to whom it tells what happens.

    :param report: gets an event (`bug`, `refused`, `dropped`), the peer's address, and the reason.
    :param max_message_bytes: a larger frame closes its connection with code 1009.
    :param max_in_flight: calls of one connection; beyond, its next frames are left unread.
    :param peer_timeout_s: after which a peer is dropped that takes no answer, or does not answer a ping.
    :param max_connections: beyond, a newcomer is refused with 503.
    :param prefix: of the settings that a refusal names.
    :param http_port: where HTTP is answered, for those who ask here for it.
    :param received: bounds what was read and is not answered yet, of all connections.
    :param answers: bounds what was answered and is not read yet, of all connections.
    """

    info: ServerInfo
    toolbox: Toolbox
    report: Callable[[str, str, str], None]
    gate: Gate = Gate()
    max_message_bytes: int = 16 * 1024 * 1024
    max_in_flight: int = 1_000
    peer_timeout_s: float = 30.0
    max_connections: int = 1_000
    prefix: str = "GODOT"
    http_port: int | None = None
    received: Pool = attrs.field(factory=Pool)
    answers: Pool = attrs.field(factory=Pool)
    watched: Watched | None = None
    live: set[Transport] = attrs.field(factory=set)
    """The WebSocket connections that there are now."""


async def serve(
    server: Server,
    transport: Transport,
    *,
    peer: str = INSIDE,
    roles: frozenset[Role] = ROLES,
    meter: Meter | None = None,
) -> None:
    """Answer one connection. Returns when its other end has closed it.

    Calls are answered as they finish, so that a slow query does not delay what comes behind it;
    those of a tool that is `in_order` have done their work before the next frame is read. When the
    connection ends, calls still running are cancelled. A bug in a tool is reported and answers its call;
    a bug in what reads the frames ends the connection (code 1011), and goes no further.

    :param roles: what the other end may do.
    :param meter: has claimed room for each frame; it is given back when all calls in the frame are answered.
    """
    caller.set(peer)
    offered = {} if server.watched is None else {server.watched.capability: server.watched.value}
    session = Session(server.info, server.toolbox, roles, partial(server.report, "refused", peer), offered)
    in_flight: dict[Call, trio.CancelScope] = {}
    places = trio.Semaphore(server.max_in_flight)
    workers = trio.Semaphore(MAX_RUNNING)
    unread = Account(server.answers, 0)

    async def send(frame: str) -> None:
        claim = await unread.claim(len(frame))
        began = trio.current_time()
        try:
            with server.answers.patience(began + server.peer_timeout_s) as patience, suppress(TransportClosed):
                await transport.send(frame)
                return
        finally:
            claim.release()
        if patience.cancelled_caught:
            taken_s = trio.current_time() - began
            server.report("dropped", peer, f"it did not take an answer of {len(frame):,} bytes within {taken_s:.0f} s")
        calls.cancel_scope.cancel()  # the other end is gone, or leaves its answers unread
        await trio.lowlevel.checkpoint()

    async def finish(call: Call, answer: Answer) -> None:
        if len(answer.json) > OWN_BYTES and server.answers.is_crowded_by(len(answer.json)):
            answer = Answer.error(
                Unavailable(
                    "there is no room for the answer, since other clients do not read theirs "
                    f"({server.prefix}_MAX_BYTES_IN_FLIGHT); ask again later"
                )
            )
        frame = session.answer(call, answer)
        if frame is not None:
            await send(frame)

    async def fail(call: Call, bug: Exception) -> None:
        server.report("bug", peer, f"{call.tool.name}: {bug!r}")
        frame = session.fail(call)
        if frame is not None:
            await send(frame)

    async def run(call: Call) -> None:
        if call.tool.waits:
            begun = await call.tool.begin(call.arguments)
            async with workers:
                await wait_and_finish(call, begun)
        else:
            async with workers:
                await finish(call, await call.tool.call(call.arguments))

    async def wait_and_finish(call: Call, begun: Answer | Later) -> None:
        await finish(call, await call.tool.finish(begun))

    async def run_in_order(call: Call, claim: Claim | None) -> None:
        try:
            begun = await call.tool.begin(call.arguments)
            if not isinstance(begun, Later):
                await finish(call, begun)
                return
        except Exception as bug:  # noqa: BLE001 - the top of the handler of a call
            await fail(call, bug)
            return
        await start_beside(call, claim, partial(wait_and_finish, call, begun))

    async def beside(
        call: Call, scope: trio.CancelScope, claim: Claim | None, work: Callable[[], Awaitable[None]]
    ) -> None:
        try:
            with scope:
                await work()
        except Exception as bug:  # noqa: BLE001 - the top of the handler of a call
            await fail(call, bug)
        finally:
            del in_flight[call]
            places.release()
            if claim is not None:
                claim.release()

    async def start_beside(call: Call, claim: Claim | None, work: Callable[[], Awaitable[None]]) -> None:
        await places.acquire()
        in_flight[call] = scope = trio.CancelScope()
        if claim is not None:
            claim.keep()
        calls.start_soon(beside, call, scope, claim, work, name=f"{call.tool.name} {shown(call.id, 40)}")

    async def tell_changes(watched: Watched) -> None:
        told = session.told[watched.capability]
        try:
            while True:
                if (value := watched.value()) == told:
                    await watched.changed()
                else:
                    await send(session.notification(watched.capability, value))
                    told = value
        except Exception as bug:  # noqa: BLE001 - the other end learns of no further change, and is served as before
            server.report("bug", peer, f"{watched.capability}: {bug!r}")

    async def read_frame() -> None:
        # In a function of its own, so that nothing of a frame is kept while the next one is awaited.
        frame = await transport.receive()
        message_weight.set(weight := weigh(frame))
        claim = None if meter is None else meter.claim()
        try:
            for event in session.take(await off_the_loop(weight, parse, frame)):
                match event:
                    case Send(answer):
                        await send(answer)
                    case Run(call):
                        trace.set(call.trace_id)
                        if call.tool.in_order:
                            await run_in_order(call, claim)
                        else:
                            await start_beside(call, claim, partial(run, call))
                    case Stop(call):
                        if call in in_flight:
                            in_flight[call].cancel()
        finally:
            if claim is not None:
                claim.release()

    async def read_frames() -> None:
        is_told = False
        try:
            while True:
                await read_frame()
                if server.watched is not None and session.told and not is_told:
                    is_told = True
                    calls.start_soon(tell_changes, server.watched)
        except TransportClosed:
            calls.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as calls:
            await read_frames()
    except* Exception as bugs:  # noqa: BLE001 - the top of the connection handler
        for bug in bugs.exceptions:
            server.report("bug", peer, f"it ended the connection: {bug!r}")
        with trio.move_on_after(GOODBYE_S):
            await transport.aclose(1011)


async def open_listeners(host: str, port: int, prefix: str = "GODOT") -> list[trio.SocketListener]:
    """Bind a TCP address.

    :param port: 0 picks a free one.
    :param prefix: of the settings that a refusal names.
    :raises ConfigError: the address is in use, not ours, or not allowed.
    """
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except socket.gaierror as exc:
        raise ConfigError(f"{prefix}_HOST: there is no host {host}: {exc.strerror}") from exc
    except OSError as exc:
        if exc.errno == errno.EADDRNOTAVAIL:
            raise ConfigError(f"{prefix}_HOST: {host} is no address of this machine") from exc
        raise ConfigError(f"cannot listen on {host} port {port}: {exc.strerror or exc}; choose another port") from exc


def listening_url(listeners: Sequence[trio.SocketListener]) -> str:
    """Return the URL of what was bound, with the port that was really taken."""
    host, port = listeners[0].socket.getsockname()[:2]
    return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"


async def serve_websocket(
    server: Server,
    listeners: list[trio.SocketListener],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept and answer connections until cancelled; then say goodbye to each.

    A bug ends no more than its call, or its connection (code 1011), and is reported.
    """
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
class _Giving:
    """Why a connection is given up, when it is.

    :param scope: ends it.
    """

    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    code: int = 1000
    reason: str | None = None

    def up(self, code: int, reason: str) -> None:
        self.code, self.reason = code, reason
        self.scope.cancel()


async def _handle(server: Server, stopping: trio.Event, place: Place, stream: trio.SocketStream) -> None:
    """Answer one TCP connection; nothing that happens on it leaves this function.

    trio-websocket's own server lets an error of one connection end them all; so only its handshake
    and framing are used, each connection in a nursery of its own.
    """
    peer = peer_address(stream)
    giving = _Giving()
    meter = Meter(
        stream,
        Account(server.received, server.max_message_bytes),
        largest=server.max_message_bytes,
        setting=f"{server.prefix}_MAX_MESSAGE_BYTES",
        timeout_s=server.peer_timeout_s,
        give_up=giving.up,
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
                await _admit(server, peer, place, request, meter, giving)
            if stopping.is_set():
                # The answer to our goodbye is read by a task in here; whoever says it cancels us when it is done.
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
    """Tell somebody who speaks HTTP, such as a browser or a health checker, which port does."""
    reason = "this port speaks WebSocket (MCP)"
    server.report("refused", peer, f"plain HTTP: {reason}")
    where = "" if server.http_port is None else f"; HTTP is on port {server.http_port}"
    answer = http_answer("426 Upgrade Required", "Connection: Upgrade\r\nUpgrade: websocket", f"{reason}{where}")
    with trio.move_on_after(REFUSAL_S):
        await stream.send_all(answer)
        await stream.send_eof()
        while await stream.receive_some(READ_BYTES):  # closing with something unread would take the answer back
            pass


async def _admit(
    server: Server, peer: str, place: Place, request: WebSocketRequest, meter: Meter, giving: _Giving
) -> None:
    # trio-websocket's public `headers` leave out Host.
    host = request._event.host
    try:
        roles = server.gate.admit(host, request.headers)
    except Refused as refused:
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
        with giving.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_keep_alive, server, peer, connection, meter, nursery.cancel_scope)
                await serve(server, transport, peer=peer, roles=roles, meter=meter)
                nursery.cancel_scope.cancel()
        if giving.reason is not None:
            server.report("refused", peer, giving.reason)
        code = giving.code
    finally:
        server.live.discard(transport)
        with trio.move_on_after(GOODBYE_S, shield=True):
            await transport.aclose(code, giving.reason)


async def _keep_alive(
    server: Server, peer: str, connection: WebSocketConnection, meter: Meter, scope: trio.CancelScope
) -> None:
    """Ping a peer twice in its time, and drop it when it does not answer. Returns when it is gone."""
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
