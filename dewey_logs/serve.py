"""Dewey as a server: alone on its port, or ready to be called inside Godot."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import attrs
import trio

from dewey_logs.daily import run_daily
from dewey_logs.follow import Followers
from dewey_logs.metrics import DeweyMetrics
from dewey_logs.postgres import PostgresStore
from dewey_logs.retention import run_retention
from dewey_logs.settings import DeweyServeSettings, DeweySettings
from dewey_logs.tools import dewey_tools
from dewey_logs.tools.storing import Storing
from godot import __version__
from godot.errors import ConfigError, StoreUnavailable
from godot.mcp.budget import Pool
from godot.mcp.server import Server
from godot.mcp.session import ServerInfo
from godot.mcp.toolbox import Toolbox
from godot.mcp.websocket.listen import serve_websocket
from godot.service.backoff import delays
from godot.service.doors import Doors, open_doors
from godot.service.exposition import Registry
from godot.service.lag import Watchdog
from godot.service.lines import PeerLog, choose_format, print_line, ready_line, status_line
from godot.service.orphans import reap_orphans
from godot.service.ports import http_url, listening_url
from godot.service.signals import Lifecycle
from godot.service.site import Site, serve_http
from godot.toolnames import DEWEY_QUERY

INSTRUCTIONS: Final = (
    "Dewey keeps the log entries of a system of MCP servers in PostgreSQL. Components do not call it: they log to "
    f"Godot, which stores here. To find entries use {DEWEY_QUERY}."
)


STATUS_S: Final = 60.0

ABOUT: Final = (
    "The log store of Godot: it keeps the log entries of a system of MCP servers in PostgreSQL, and finds them. "
    "Components log to Godot."
)

DEWEY_INFO: Final = ServerInfo("dewey", __version__, INSTRUCTIONS)


@attrs.frozen
class OpenDewey:
    """Dewey's tools, and what they work on."""

    toolbox: Toolbox
    store: PostgresStore
    storing: Storing


@asynccontextmanager
async def open_dewey(settings: DeweySettings, metrics: DeweyMetrics) -> AsyncIterator[OpenDewey]:
    """Make Dewey's tools and the store that they work on; nothing is connected yet.

    :raises ConfigError: there is no database, or its DSN is none.
    """
    if settings.database_url is None:
        raise ConfigError("DATABASE_URL is not set: Dewey needs a PostgreSQL, such as postgresql://dewey@host/winni")
    store = PostgresStore(settings.database_url, query_timeout_s=settings.query_timeout_s, role=settings.database_role)
    storing = Storing(store, Followers(store), metrics.stored)
    try:
        tools = dewey_tools(
            store,
            partitions_ahead=settings.partitions_ahead,
            retention_days=settings.retention_days,
            partitioned=settings.partition_enabled,
            storing=storing,
        )
        yield OpenDewey(Toolbox([metrics.measured(tool) for tool in tools]), store, storing)
    finally:
        store.close()


async def run_own_retention(store: PostgresStore, settings: DeweySettings) -> None:
    """Let old entries go, and say so. Runs until cancelled."""

    def tell(deleted: int, before: str) -> None:
        print_line(status_line("retention", deleted=deleted, before=before))

    def hold(days: int, before: str) -> None:
        reason = (
            f"{days} days would go at once: if a clock is wrong, put it right within an hour, else they go then; "
            "`godot clear` deletes them now"
        )
        print_line(status_line("retention_held", days=days, before=before, reason=reason))

    await run_retention(store, settings.retention_days, tell=tell, hold=hold)


async def run_own_maintenance(store: PostgresStore, settings: DeweySettings) -> None:
    """Make the partitions of the days to come (DEW-005), also where no Godot asks for it. Runs until cancelled."""

    async def prepare() -> None:
        made = await store.maintain(
            ahead_days=settings.partitions_ahead,
            retention_days=settings.retention_days,
            partitioned=settings.partition_enabled,
        )
        if made.created:
            print_line(status_line("partitions", created=len(made.created), moved=made.moved))

    await run_daily(prepare, lambda: datetime.now(UTC))


async def run_serve(settings: DeweyServeSettings, life: Lifecycle) -> int:
    """Serve Dewey's tools on its own port until stopped (`dewey serve`).

    Waits for its database when that is not there yet, and says so; the ready line comes after it.

    :returns: the exit code.
    :raises ConfigError: it cannot listen, or the database does not fit this program.
    """
    choose_format(settings.log_format)

    def tell(is_up: bool, reason: str) -> None:
        more = {} if is_up else {"reason": reason}
        print_line(status_line("database_back" if is_up else "database_down", **more, **metrics.state()))

    def say(event: str, **fields: object) -> None:
        print_line(status_line(event, **fields))

    metrics = DeweyMetrics(Registry(), tell)
    async with open_dewey(settings, metrics) as dewey:
        doors = await open_doors(settings)
        server = _server(settings, dewey, doors)
        site = _site(dewey, metrics, doors)
        await _wait_for_database(dewey.store)
        async with trio.open_nursery() as nursery:
            if os.getpid() == 1:
                nursery.start_soon(reap_orphans, name="orphans")
            nursery.start_soon(doors.watch_tokens, name="tokens")
            nursery.start_soon(Watchdog(metrics.registry, "dewey", say).run, name="watchdog")
            nursery.start_soon(run_own_retention, dewey.store, settings, name="retention")
            nursery.start_soon(run_own_maintenance, dewey.store, settings, name="maintenance")
            nursery.start_soon(_run_status_line, metrics, name="status line")
            await nursery.start(partial(serve_websocket, server, doors.mcp), name="listener")
            await nursery.start(serve_http, site, doors.http, name="http")
            print_line(ready_line(listening_url(doors.mcp), http_url(doors.http), __version__))
            life.ready.set()
            await life.stop.wait()
            nursery.cancel_scope.cancel()
        print_line(status_line("stopped", **metrics.state()))
    return 0


def _server(settings: DeweyServeSettings, dewey: OpenDewey, doors: Doors) -> Server:
    return Server(
        DEWEY_INFO,
        dewey.toolbox,
        report=PeerLog(print_line).note,
        gate=doors.gate,
        max_message_bytes=settings.max_message_bytes,
        max_in_flight=settings.max_inflight,
        peer_timeout_s=settings.peer_timeout_s,
        max_connections=doors.connections.mcp,
        prefix="DEWEY",
        http_port=doors.http[0].socket.getsockname()[1],
        received=Pool(settings.max_bytes_in_flight),
        answers=Pool(settings.max_bytes_in_flight),
    )


def _site(dewey: OpenDewey, metrics: DeweyMetrics, doors: Doors) -> Site:
    async def refresh() -> None:
        await metrics.refresh(dewey.store.count_partitions)

    async def health() -> tuple[int, dict[str, Any]]:
        await refresh()
        state = "ready" if metrics.database_up else "down"
        return (200 if metrics.database_up else 503), {"status": state, "database": metrics.database_up}

    return Site(
        "Dewey",
        ABOUT,
        doors.gate,
        health,
        metrics.registry,
        refresh,
        PeerLog(print_line).note,
        max_connections=doors.connections.http,
        prefix="DEWEY",
    )


async def _run_status_line(metrics: DeweyMetrics) -> None:
    """Write the state once a minute. Runs until cancelled."""
    while True:
        await trio.sleep(STATUS_S)
        print_line(status_line("status", **metrics.state()))


async def _wait_for_database(store: PostgresStore) -> None:
    said = None
    for pause in delays(0.2, longest=5.0):
        try:
            await store.migrate()
            return
        except StoreUnavailable as exc:
            if str(exc) != said:
                said = str(exc)
                print_line(status_line("database_down", reason=said))
        await trio.sleep(pause)
