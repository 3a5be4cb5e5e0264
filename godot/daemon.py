"""Wires the stations of an entry's journey, and nothing else. Read this first.

    clients ─▶ listener ─▶ [channel] ─▶ batcher ─▶ buffer ─▶ sender ─▶ Dewey
                                        100/100 ms  Redis    backoff   PostgreSQL

One nursery supervises all of it. What PRODUCES (listener, maintenance, status line) runs inside the
cancel scope `intake`; what must FINISH (batcher, sender) does not. A stop cancels `intake`; with it
the channel's last sender closes; the batcher runs dry and closes its own channel; the sender delivers
what is left and returns; the nursery's deadline bounds it all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

import attrs
import trio

from godot import __version__
from godot.buffer.protocol import Buffer
from godot.errors import BufferUnavailable
from godot.intake.accept import Door
from godot.intake.ndjson import ndjson_way
from godot.intake.tools import intake_tools
from godot.mcp.access import Gate
from godot.mcp.budget import Pool
from godot.mcp.server import Server, Watched
from godot.mcp.session import ServerInfo
from godot.mcp.toolbox import Toolbox
from godot.mcp.websocket.listen import serve_websocket
from godot.pipeline.batcher import Batcher
from godot.pipeline.channel import open_entry_channel
from godot.pipeline.dewey import Dewey
from godot.pipeline.facade import facade_tools
from godot.pipeline.levels import CAPABILITY, Levels
from godot.pipeline.maintenance import run_maintenance
from godot.pipeline.metrics import MeasuredBuffer, MeasuredDewey, Metrics
from godot.pipeline.sender import Sender
from godot.pipeline.status import Status, run_durability_look, run_status_line
from godot.service.descriptors import Connections
from godot.service.exposition import Registry
from godot.service.signals import Lifecycle
from godot.service.site import Site, serve_http
from godot.service.supervise import supervise
from godot.settings import GodotSettings

INSTRUCTIONS: Final = (
    "Godot is the flight recorder of a system of MCP servers. Send log entries with logger_log "
    "(one) or logger_log_batch (up to 1,000). To find out what happened, use logger_query: by trace_id for "
    "one request through all servers, by component, level, time or text for the rest. "
    "logger_status tells whether anything is held back or was dropped."
)

ABOUT: Final = (
    "The flight recorder for a system of MCP servers. Components send their log entries here over MCP; it loses none, "
    "and finds them again by trace id."
)

LAST_WORD_S: Final = 1.0
"""How long a drain waits, when all is delivered, for what the sender still does: tell of drops, or ask whether a Dewey
that is away is back. What is not told then is kept, and told at the next start."""

LOOK_S: Final = 0.1
"""How often a drain looks whether all is delivered."""

DURABILITY_LOOK_S: Final = 5.0
"""How often Redis is looked at, beside each new connection to it: CONFIG SET changes a server that runs."""


@attrs.frozen
class Dependencies:
    """What the stations stand on: whatever differs between `up`, `serve` and a test.

    :param listeners: bound, and accepting nothing yet.
    :param gate: who may connect.
    :param dewey_arguments: what Dewey's tools take, by their names.
    :param write: gets each line for the operator.
    :param http: as `listeners`, for HTTP; none: nothing is served there.
    :param registry: what is scraped, Godot's own metrics aside.
    :param refresh: called before a scrape.
    :param connections: how many there may be.
    """

    buffer: Buffer
    dewey: Dewey
    listeners: list[trio.SocketListener]
    gate: Gate
    dewey_arguments: Mapping[str, type[Any]]
    write: Callable[[str], None]
    http: list[trio.SocketListener] = attrs.Factory(list)
    registry: Registry = attrs.Factory(Registry)
    refresh: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
    connections: Connections = Connections(mcp=1_000, http=250)


async def run_pipeline(
    settings: GodotSettings, parts: Dependencies, life: Lifecycle, on_ready: Callable[[], None]
) -> int:
    """Take entries in and deliver them until `life.stop`, then drain (REL-005).

    :param on_ready: called when calls are answered.
    :returns: the exit code: 0, or 1 when entries that were answered `queued` could not be written to Redis.
    """
    status = Status(parts.write, parts.buffer, max_size=settings.max_queue_size, max_bytes=settings.max_queue_bytes)
    levels = Levels()
    inlet, outlet = open_entry_channel(entry_max_bytes=settings.max_queue_bytes)
    wake_sender, pushed = trio.open_memory_channel[None](1)
    metrics = Metrics(parts.registry)
    dewey = MeasuredDewey(parts.dewey, metrics)
    batcher = Batcher(
        outlet,
        MeasuredBuffer(parts.buffer, metrics),
        wake_sender,
        batch_size=settings.batch_size,
        batch_timeout_s=settings.batch_timeout_ms / 1000,
        on_counts=partial(status.pushed, by="batcher"),
        on_failure=partial(status.failed, by="batcher"),
    )
    sender = Sender(
        parts.buffer,
        dewey,
        pushed,
        batch_size=settings.batch_size,
        on_counts=partial(status.counted, by="sender"),
        on_failure=partial(status.failed, by="sender"),
        on_delivery=status.delivered,
    )
    door = Door(inlet, status, levels, ack=settings.ack, on_accepted=metrics.accepted)
    toolbox = godot_toolbox(door, dewey, status, parts.buffer, levels, dewey_arguments=parts.dewey_arguments)
    server = Server(
        ServerInfo("godot", __version__, INSTRUCTIONS),
        toolbox,
        report=status.peer,
        gate=parts.gate,
        max_message_bytes=settings.max_message_bytes,
        max_in_flight=settings.max_inflight,
        peer_timeout_s=settings.peer_timeout_s,
        max_connections=parts.connections.mcp,
        http_port=parts.http[0].socket.getsockname()[1] if parts.http else None,
        received=Pool(settings.max_bytes_in_flight),
        answers=Pool(settings.max_bytes_in_flight),
        watched=Watched(CAPABILITY, lambda: {"levels": levels.current()}, levels.changed),
    )
    maintain = partial(
        run_maintenance, dewey, levels, parts.buffer, on_failure=status.not_maintained, on_success=status.maintained
    )
    report_failure = partial(status.line, "restart")

    async def refresh() -> None:
        metrics.connections, metrics.channel = len(server.live), outlet.waiting
        metrics.bytes_in_flight = {
            "received": server.received.bytes,
            "answers": server.answers.bytes,
            "http": site.bodies.bytes,
        }
        await metrics.refresh(status, parts.buffer)
        await parts.refresh()

    site = Site(
        "Godot",
        ABOUT,
        parts.gate,
        partial(health, status),
        parts.registry,
        refresh,
        status.peer,
        ways=[ndjson_way(door)],
        max_body_bytes=settings.max_message_bytes,
        bodies=Pool(settings.max_bytes_in_flight),
        max_connections=parts.connections.http,
    )

    await status.look_first()
    await levels.recall(parts.buffer)
    batched = trio.Event()

    async def batch() -> None:
        await batcher.run()
        batched.set()

    async def deliver() -> None:
        async with trio.open_nursery() as delivering:
            delivering.start_soon(end_when_empty, batched, parts.buffer, delivering.cancel_scope, name="end of drain")
            await supervise("sender", sender.run, report=lambda text: report_failure(reason=text))
            delivering.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(batch, name="batcher")
        nursery.start_soon(deliver, name="sender")
        async with inlet:
            with trio.CancelScope() as intake:
                async with trio.open_nursery() as producers:
                    await producers.start(partial(serve_websocket, server, parts.listeners), name="listener")
                    if parts.http:
                        await producers.start(serve_http, site, parts.http, name="http")
                    producers.start_soon(
                        partial(supervise, "maintenance", maintain, report=lambda text: report_failure(reason=text)),
                        name="maintenance",
                    )
                    producers.start_soon(
                        partial(run_durability_look, status, parts.buffer, interval_s=DURABILITY_LOOK_S),
                        name="look at durability",
                    )
                    producers.start_soon(
                        partial(run_status_line, status, interval_s=settings.status_s), name="status line"
                    )
                    on_ready()
                    life.ready.set()
                    await life.stop.wait()
                    status.line("draining", seconds=f"{settings.drain_s:g}")
                    nursery.cancel_scope.deadline = trio.current_time() + settings.drain_s
                    intake.cancel()
    lost = batcher.unwritten
    status.line("stopped", drained=not nursery.cancel_scope.cancelled_caught, lost=lost)
    return 1 if lost else 0


async def end_when_empty(batched: trio.Event, buffer: Buffer, sending: trio.CancelScope) -> None:
    """End the sender, when nothing is queued or in flight any more and nothing will be.

    With a Dewey that is away it would go on for the whole drain, for nothing.
    """
    await batched.wait()
    while True:
        with suppress(BufferUnavailable):
            counts = await buffer.counts()
            if not counts.queued + counts.in_flight:
                break
        await trio.sleep(LOOK_S)
    sending.deadline = trio.current_time() + LAST_WORD_S


async def health(status: Status) -> tuple[int, dict[str, Any]]:
    """Tell for /readyz whether entries are taken in.

    While Dewey is away they are kept (`degraded`), and whoever stopped sending for that would lose them: 200. The same
    when Redis may lose them. Without Redis they are refused: 503. Who has not been looked at yet is not called well.
    """
    state = await status.snapshot()
    if not status.redis_up:
        return 503, {"status": "down", **state}
    seen = (status.dewey_up, status.durable)
    return 200, {"status": "degraded" if False in seen else "starting" if None in seen else "ready", **state}


def godot_toolbox(
    door: Door,
    dewey: Dewey,
    status: Status,
    buffer: Buffer,
    levels: Levels,
    *,
    dewey_arguments: Mapping[str, type[Any]],
) -> Toolbox:
    """Make the table of tools of Godot's port.

    :param dewey_arguments: what Dewey's tools take, by their names; the facades here take the same.
    """
    return Toolbox([*intake_tools(door), *facade_tools(dewey, status, buffer, levels, dewey_arguments=dewey_arguments)])
