"""Builds the stations of an entry's journey and joins them; `godot.daemon` runs them.

Nothing here waits: `build` returns before anything has been read, asked or begun.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

import attrs
import trio

from godot import __version__
from godot.buffer.protocol import Buffer
from godot.intake.accept import Door
from godot.intake.ndjson import ndjson_way
from godot.intake.tools import intake_tools
from godot.mcp.access import Gate
from godot.mcp.budget import Pool
from godot.mcp.server import Server, Watched
from godot.mcp.session import ServerInfo
from godot.mcp.toolbox import Definition, Toolbox
from godot.pipeline.batcher import Batcher
from godot.pipeline.channel import Inlet, open_entry_channel
from godot.pipeline.dewey import Dewey
from godot.pipeline.facade import facade_tools
from godot.pipeline.levels import CAPABILITY, Levels
from godot.pipeline.maintenance import run_maintenance
from godot.pipeline.metrics import MeasuredBuffer, MeasuredDewey, Metrics
from godot.pipeline.sender import Sender
from godot.pipeline.status import Status, readiness
from godot.service.descriptors import Connections
from godot.service.exposition import Registry
from godot.service.site import Site
from godot.settings import GodotSettings
from godot.toolnames import LOG, LOG_BATCH, QUERY, STATUS

INSTRUCTIONS: Final = (
    f"Godot is the flight recorder of a system of MCP servers. Send log entries with {LOG} "
    f"(one) or {LOG_BATCH} (up to 1,000). To find out what happened, use {QUERY}: by trace_id for "
    "one request through all servers, by component, level, time or text for the rest. "
    f"{STATUS} tells whether anything is held back or was dropped."
)

ABOUT: Final = (
    "The flight recorder for a system of MCP servers. Components send their log entries here over MCP; it loses none, "
    "and finds them again by trace id."
)


@attrs.frozen
class Dependencies:
    """The things that the stations stand on, and that differ between `up`, `serve` and a test.

    :param listeners: bound, and accepting nothing yet.
    :param gate: who may connect.
    :param dewey_definitions: of Dewey's tools, by their names: Godot offers the same.
    :param write: gets each line for the operator.
    :param http: as `listeners`, for HTTP; none: nothing is served there.
    :param registry: for the metrics; others may have put theirs in.
    :param refresh: called before a scrape.
    :param connections: how many there may be.
    """

    buffer: Buffer
    dewey: Dewey
    listeners: list[trio.SocketListener]
    gate: Gate
    dewey_definitions: Mapping[str, Definition]
    write: Callable[[str], None]
    http: list[trio.SocketListener] = attrs.Factory(list)
    registry: Registry = attrs.Factory(Registry)
    refresh: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
    connections: Connections = Connections(mcp=1_000, http=250)


@attrs.frozen
class Stations:
    """The stations, ready to run.

    :param inlet: keeps the channel open: when it is closed, and each call under way has ended, the batcher runs dry.
    :param maintain: has Dewey keep its partitions, and asks for the levels, until it is cancelled.
    """

    status: Status
    levels: Levels
    server: Server
    site: Site
    inlet: Inlet
    batcher: Batcher
    sender: Sender
    maintain: Callable[[], Awaitable[None]]


def build(settings: GodotSettings, dependencies: Dependencies) -> Stations:
    """Make the stations and join them; nothing runs yet."""
    buffer, metrics = dependencies.buffer, Metrics(dependencies.registry)
    dewey = MeasuredDewey(dependencies.dewey, metrics)
    status = Status(dependencies.write, buffer, max_size=settings.max_queue_size, max_bytes=settings.max_queue_bytes)
    levels = Levels()
    inlet, outlet = open_entry_channel(entry_max_bytes=settings.max_queue_bytes)
    wake_sender, pushed = trio.open_memory_channel[None](1)
    door = Door(inlet, status, levels, ack=settings.ack, on_accepted=metrics.accepted)
    toolbox = godot_toolbox(door, dewey, status, buffer, levels, definitions=dependencies.dewey_definitions)
    server = _server(settings, dependencies, toolbox, status, levels)
    bodies = Pool(settings.max_bytes_in_flight)

    async def refresh() -> None:
        metrics.connections, metrics.channel = len(server.live), outlet.waiting
        pools = {"received": server.received, "answers": server.answers, "http": bodies}
        metrics.bytes_in_flight = {kind: pool.bytes for kind, pool in pools.items()}
        await metrics.refresh(status, buffer)
        await dependencies.refresh()

    return Stations(
        status=status,
        levels=levels,
        server=server,
        site=_site(settings, dependencies, door, status, refresh, bodies),
        inlet=inlet,
        batcher=Batcher(
            outlet,
            MeasuredBuffer(buffer, metrics),
            wake_sender,
            batch_size=settings.batch_size,
            batch_timeout_s=settings.batch_timeout_ms / 1000,
            on_counts=partial(status.pushed, by="batcher"),
            on_failure=partial(status.failed, by="batcher"),
        ),
        sender=Sender(
            buffer,
            dewey,
            pushed,
            batch_size=settings.batch_size,
            on_counts=partial(status.counted, by="sender"),
            on_failure=partial(status.failed, by="sender"),
            on_delivery=status.delivered,
        ),
        maintain=partial(
            run_maintenance, dewey, levels, buffer, on_failure=status.not_maintained, on_success=status.maintained
        ),
    )


def _server(
    settings: GodotSettings, dependencies: Dependencies, toolbox: Toolbox, status: Status, levels: Levels
) -> Server:
    return Server(
        ServerInfo("godot", __version__, INSTRUCTIONS),
        toolbox,
        report=status.peer,
        gate=dependencies.gate,
        max_message_bytes=settings.max_message_bytes,
        max_in_flight=settings.max_inflight,
        peer_timeout_s=settings.peer_timeout_s,
        max_connections=dependencies.connections.mcp,
        http_port=dependencies.http[0].socket.getsockname()[1] if dependencies.http else None,
        received=Pool(settings.max_bytes_in_flight),
        answers=Pool(settings.max_bytes_in_flight),
        watched=Watched(CAPABILITY, lambda: {"levels": levels.current()}, levels.changed),
    )


def _site(
    settings: GodotSettings,
    dependencies: Dependencies,
    door: Door,
    status: Status,
    refresh: Callable[[], Awaitable[None]],
    bodies: Pool,
) -> Site:
    return Site(
        "Godot",
        ABOUT,
        dependencies.gate,
        partial(readiness, status),
        dependencies.registry,
        refresh,
        status.peer,
        ways=[ndjson_way(door)],
        max_body_bytes=settings.max_message_bytes,
        bodies=bodies,
        max_connections=dependencies.connections.http,
    )


def godot_toolbox(
    door: Door,
    dewey: Dewey,
    status: Status,
    buffer: Buffer,
    levels: Levels,
    *,
    definitions: Mapping[str, Definition],
) -> Toolbox:
    """Make the table of tools of Godot's port.

    :param definitions: of Dewey's tools, by their names; Godot offers the same under names of its own.
    """
    return Toolbox([*intake_tools(door), *facade_tools(dewey, status, buffer, levels, definitions=definitions)])
