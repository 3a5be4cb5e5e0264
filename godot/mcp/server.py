"""Serves a table of tools on one connection, over any transport."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

import attrs
import trio

from godot.json.structure import shown
from godot.json.weight import weigh
from godot.mcp.access import Gate
from godot.mcp.budget import OWN_BYTES, Account, Claim, Pool
from godot.mcp.errors import Crowded
from godot.mcp.heavy import message_weight, off_the_loop
from godot.mcp.jsonrpc import parse
from godot.mcp.session import Call, Run, Send, ServerInfo, Session, Stop
from godot.mcp.toolbox import INSIDE, ROLES, Answer, Later, Role, Toolbox, caller, trace
from godot.mcp.transport import GOODBYE_S, Transport, TransportClosed

MAX_RUNNING: Final = 4
"""Calls of one connection that are worked on at once; the others in flight wait. Their answers stay in memory while the
peer does not read, so this bounds the memory that such a peer can take. Dewey runs four reads at once. A call that only
waits for an event (`Tool.waits`) counts from that event on."""


@attrs.frozen
class Watched:
    """A value that clients may follow: an experimental capability of MCP.

    A client that names it in `capabilities.experimental` of `initialize` gets the value in the answer, and again as
    `notifications/<capability>` whenever it has changed.

    :param changed: returns when the value differs from what it was at the call.
    """

    capability: str
    value: Callable[[], Mapping[str, Any]]
    changed: Callable[[], Awaitable[None]]


@attrs.frozen
class Server:
    """The tools that are served, their limits, and where events are reported.

    :param report: called with an event (`bug`, `refused`, `dropped`), the peer's address, and the reason.
    :param max_message_bytes: a larger frame closes its connection with code 1009.
    :param max_in_flight: calls of one connection; at this number its next frames are left unread.
    :param peer_timeout_s: a peer is dropped that takes no answer, or answers no ping, for so long.
    :param max_connections: at this number new connections are refused with 503.
    :param prefix: of the settings that refusals name.
    :param http_port: the port for HTTP; clients that speak HTTP here are told.
    :param received: bounds the frames of all connections that are read and not answered yet.
    :param answers: bounds the answers of all connections that the peers have not read yet.
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
    """The open WebSocket connections."""


async def serve(
    server: Server,
    transport: Transport,
    *,
    peer: str = INSIDE,
    roles: frozenset[Role] = ROLES,
    claim_frame: Callable[[], Claim] | None = None,
) -> None:
    """Answer one connection. Returns when its other end has closed it.

    Calls are answered as they finish, so that a slow query does not delay the calls behind it. A tool that is
    `in_order` has done its work before the next frame is read. When the connection ends, calls still running are
    cancelled. A bug in a tool is reported and answers its call; a bug in the reading of frames ends the connection
    (code 1011), and goes no further.

    :param roles: what the other end may do.
    :param claim_frame: returns the room claimed for a frame; it is given back when all calls in the frame are answered.
    """
    caller.set(peer)
    try:
        async with trio.open_nursery() as calls:
            await _Connection(server, transport, peer, roles, claim_frame, calls).read_frames()
    except* Exception as bugs:  # noqa: BLE001 - the top of the connection handler
        for bug in bugs.exceptions:
            server.report("bug", peer, f"it ended the connection: {bug!r}")
        with trio.move_on_after(GOODBYE_S):
            await transport.aclose(1011)


class _Connection:
    """One connection: reads its frames, runs the calls in them, and sends the answers.

    :param calls: runs the calls; it is cancelled when the other end is gone.
    """

    def __init__(
        self,
        server: Server,
        transport: Transport,
        peer: str,
        roles: frozenset[Role],
        claim_frame: Callable[[], Claim] | None,
        calls: trio.Nursery,
    ) -> None:
        offered = {} if server.watched is None else {server.watched.capability: server.watched.value}
        self._server = server
        self._transport = transport
        self._peer = peer
        self._claim_frame = claim_frame
        self._calls = calls
        self._session = Session(server.info, server.toolbox, roles, partial(server.report, "refused", peer), offered)
        self._in_flight: dict[Call, trio.CancelScope] = {}
        self._places = trio.Semaphore(server.max_in_flight)
        self._workers = trio.Semaphore(MAX_RUNNING)
        self._unread = Account(server.answers, 0)

    async def read_frames(self) -> None:
        """Take in one frame after the other. Returns when the transport is closed."""
        watched = self._server.watched
        try:
            while True:
                await self._read_frame()
                if watched is not None and self._session.told:
                    self._calls.start_soon(self._tell_changes, watched)
                    watched = None
        except TransportClosed:
            self._calls.cancel_scope.cancel()

    async def _read_frame(self) -> None:
        # In a function of its own, so that nothing of a frame is kept while the next one is awaited.
        frame = await self._transport.receive()
        message_weight.set(weight := weigh(frame))
        claim = None if self._claim_frame is None else self._claim_frame()
        try:
            for event in self._session.take(await off_the_loop(weight, parse, frame)):
                match event:
                    case Send(answer):
                        await self._send(answer)
                    case Run(call):
                        trace.set(call.trace_id)
                        if call.tool.in_order:
                            await self._run_in_order(call, claim)
                        else:
                            await self._start_beside(call, claim, partial(self._run, call))
                    case Stop(call):
                        if call in self._in_flight:
                            self._in_flight[call].cancel()
        finally:
            if claim is not None:
                claim.release()

    async def _run_in_order(self, call: Call, claim: Claim | None) -> None:
        try:
            begun = await call.tool.begin(call.arguments)
            if not isinstance(begun, Later):
                await self._answer(call, begun)
                return
        except Exception as bug:  # noqa: BLE001 - the top of the handler of a call
            await self._fail(call, bug)
            return
        await self._start_beside(call, claim, partial(self._finish, call, begun))

    async def _start_beside(self, call: Call, claim: Claim | None, work: Callable[[], Awaitable[None]]) -> None:
        """Start work in a task of its own, as soon as fewer than `max_in_flight` are under way."""
        await self._places.acquire()
        self._in_flight[call] = scope = trio.CancelScope()
        if claim is not None:
            claim.keep()
        self._calls.start_soon(self._beside, call, scope, claim, work, name=f"{call.tool.name} {shown(call.id, 40)}")

    async def _beside(
        self, call: Call, scope: trio.CancelScope, claim: Claim | None, work: Callable[[], Awaitable[None]]
    ) -> None:
        try:
            with scope:
                await work()
        except Exception as bug:  # noqa: BLE001 - the top of the handler of a call
            await self._fail(call, bug)
        finally:
            del self._in_flight[call]
            self._places.release()
            if claim is not None:
                claim.release()

    async def _run(self, call: Call) -> None:
        if call.tool.waits:
            begun = await call.tool.begin(call.arguments)
            async with self._workers:
                await self._finish(call, begun)
        else:
            async with self._workers:
                await self._answer(call, await call.tool.call(call.arguments))

    async def _finish(self, call: Call, begun: Answer | Later) -> None:
        await self._answer(call, await call.tool.finish(begun))

    async def _answer(self, call: Call, answer: Answer) -> None:
        if len(answer.json) > OWN_BYTES and self._server.answers.is_crowded_by(len(answer.json)):
            answer = Answer.error(
                Crowded(
                    "there is no room for the answer, since other clients do not read theirs "
                    f"({self._server.prefix}_MAX_BYTES_IN_FLIGHT); ask again later"
                )
            )
        frame = self._session.answer(call, answer)
        if frame is not None:
            await self._send(frame)

    async def _fail(self, call: Call, bug: Exception) -> None:
        self._server.report("bug", self._peer, f"{call.tool.name}: {bug!r}")
        frame = self._session.fail(call)
        if frame is not None:
            await self._send(frame)

    async def _send(self, frame: str) -> None:
        """Send a frame; end the connection when the other end is gone, or does not take it in time."""
        answers = self._server.answers
        claim = await self._unread.claim(len(frame))
        began = trio.current_time()
        try:
            with answers.patience(began + self._server.peer_timeout_s) as patience, suppress(TransportClosed):
                await self._transport.send(frame)
                return
        finally:
            claim.release()
        if patience.cancelled_caught:
            taken_s = trio.current_time() - began
            reason = f"it did not take an answer of {len(frame):,} bytes within {taken_s:.0f} s"
            self._server.report("dropped", self._peer, reason)
        self._calls.cancel_scope.cancel()
        await trio.lowlevel.checkpoint()

    async def _tell_changes(self, watched: Watched) -> None:
        """Send a notification whenever the value has changed. Runs until cancelled."""
        told = self._session.told[watched.capability]
        try:
            while True:
                if (value := watched.value()) == told:
                    await watched.changed()
                else:
                    await self._send(self._session.notification(watched.capability, value))
                    told = value
        except Exception as bug:  # noqa: BLE001 - the other end learns of no further change, and is served as before
            self._server.report("bug", self._peer, f"{watched.capability}: {bug!r}")
