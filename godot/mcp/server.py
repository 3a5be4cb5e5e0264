"""Serves a table of tools to one connection, whatever carries it."""

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
from godot.mcp.session import Call, Run, Send, ServerInfo, Session, Stop, parse
from godot.mcp.toolbox import INSIDE, ROLES, Answer, Later, Role, Toolbox, caller, trace
from godot.mcp.transport import GOODBYE_S, Transport, TransportClosed

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
    claim_frame: Callable[[], Claim] | None = None,
) -> None:
    """Answer one connection. Returns when its other end has closed it.

    Calls are answered as they finish, so that a slow query does not delay what comes behind it;
    those of a tool that is `in_order` have done their work before the next frame is read. When the
    connection ends, calls still running are cancelled. A bug in a tool is reported and answers its call;
    a bug in what reads the frames ends the connection (code 1011), and goes no further.

    :param roles: what the other end may do.
    :param claim_frame: returns the room claimed for a frame; it is given back when all calls in the frame are answered.
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
                Crowded(
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
        claim = None if claim_frame is None else claim_frame()
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
