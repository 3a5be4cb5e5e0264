"""Puts a daemon together out of its settings: which Redis, which Dewey, which database.

Embedded servers and the client of Dewey live in a nursery outside of the pipeline's, because they have
to outlive its drain.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from dewey_logs.inside import InsideStore
from dewey_logs.metrics import DeweyMetrics
from dewey_logs.serve import DEWEY_INFO, open_dewey, run_own_retention
from dewey_logs.tools import DEFINITIONS
from godot import __version__
from godot.buffer.redis import RedisBuffer
from godot.buffer.redis.servers import find_servers
from godot.combined import CombinedSettings
from godot.daemon import run_pipeline
from godot.embedded import EmbeddedPostgres, EmbeddedRedis, EmbeddedServer
from godot.embedded.binaries import find_redis
from godot.embedded.datadir import DataDir, default_data_dir
from godot.errors import ConfigError, StoreUnavailable
from godot.mcp.client import Client
from godot.mcp.memory import in_process
from godot.mcp.server import Server, serve
from godot.mcp.toolbox import INSIDE
from godot.mcp.transport import Connect
from godot.mcp.websocket.dial import Address, NoAddress, over_websocket
from godot.pipeline.dewey import RemoteDewey, RemoteStore, Store
from godot.service.descriptors import raise_limit, share_out
from godot.service.doors import Doors, check_address, make_gate, open_doors
from godot.service.exposition import Registry
from godot.service.lag import Watchdog
from godot.service.lines import PeerLog, choose_format, print_line, ready_line, status_line
from godot.service.orphans import reap_orphans
from godot.service.ports import http_url, listening_url
from godot.service.signals import Lifecycle
from godot.service.tokens import read_token
from godot.stations import Dependencies

DEWEY_ANSWER_MAX_BYTES: Final = 16 * 1024 * 1024
"""Far above what `dewey_query_logs` answers at the most."""

ENDPOINTS_CHECK_S: Final = 5.0
ENDPOINTS_RETRY_S: Final = 60.0
"""How often `endpoints.json` is checked for; and how often writing it is tried again, and reported, when that fails."""

PRIVATE_DAEMON: Final = "private"
"""The name of a daemon that has its Redis to itself."""


async def run_up(settings: CombinedSettings, life: Lifecycle) -> int:
    """Run Redis, PostgreSQL, Dewey and Godot in one process tree, until stopped (`godot up`).

    :returns: the exit code.
    :raises ConfigError: something cannot be started; no process is left behind.
    """
    choose_format(settings.log_format)
    with DataDir(settings.data_dir or default_data_dir()) as directory:
        doors = await open_doors(settings)
        url = http_url(doors.http)
        endpoints: dict[str, object] = {}

        def write_endpoints() -> None:
            if endpoints:
                pids = {"daemon": os.getpid(), "redis": redis.pid, "postgres": postgres.pid}
                try:
                    directory.write_endpoints({**endpoints, "pids": pids})
                except ConfigError as exc:
                    _tell(str(exc))  # the daemon itself goes on

        redis = EmbeddedRedis(directory.path / "redis", aof=settings.aof, notify=_tell, on_change=write_endpoints)
        postgres = EmbeddedPostgres(directory.path / "postgres", notify=_tell, on_change=write_endpoints)
        async with trio.open_nursery() as servers:
            await _start(servers, redis, postgres)
            servers.start_soon(_keep_endpoints, directory, write_endpoints, name="endpoints")

            def announce() -> None:
                urls = {"mcp": listening_url(doors.mcp), "http": url, "dewey": None}
                endpoints.update(urls, database=postgres.url, redis=redis.url)
                write_endpoints()
                print_line(ready_line(listening_url(doors.mcp), url, __version__))

            with_database = attrs.evolve(settings, database_url=postgres.url)
            code = await _run(with_database, life, doors, redis.url, PRIVATE_DAEMON, announce, redis.lost_file)
            servers.cancel_scope.cancel()
    return code


async def run_serve(settings: CombinedSettings, life: Lifecycle) -> int:
    """Run Godot as its environment says, until stopped (`godot serve`).

    Without REDIS_URL it has a Redis of its own; without DEWEY_MCP_URL Dewey runs inside.

    :returns: the exit code.
    :raises ConfigError: something cannot be started; no process is left behind.
    """
    _check_destination(settings)
    choose_format(settings.log_format)
    with ExitStack() as held:
        doors = await open_doors(settings)
        async with trio.open_nursery() as servers:
            if settings.redis_url is None:
                directory = held.enter_context(DataDir(settings.data_dir or default_data_dir()))
                redis = EmbeddedRedis(directory.path / "redis", aof=settings.aof, notify=_tell, on_change=lambda: None)
                await _start(servers, redis)
                redis_url, daemon, lost_file = redis.url, PRIVATE_DAEMON, redis.lost_file
            else:
                lost_file = None
                port = doors.mcp[0].socket.getsockname()[1]
                redis_url, daemon = settings.redis_url, f"{socket.gethostname()}:{port}"
            announce = partial(print_line, ready_line(listening_url(doors.mcp), http_url(doors.http), __version__))
            code = await _run(settings, life, doors, redis_url, settings.daemon or daemon, announce, lost_file)
            servers.cancel_scope.cancel()
    return code


async def check_serve(settings: CombinedSettings) -> list[str]:
    """Return the problems that would end the start of `godot serve`, as far as they show before anything is started."""
    problems: list[str] = []

    async def check_dewey() -> None:
        _check_destination(settings)
        if settings.dewey_mcp_url is not None:
            _address_of_dewey(settings.dewey_mcp_url, settings.dewey_token_file)
        else:
            async with open_dewey(settings, DeweyMetrics(Registry())):
                pass

    async def check_redis() -> None:
        if settings.redis_url is None:
            find_redis()
        else:
            find_servers(settings.redis_url, settings.queue_name)

    async def check_gate() -> None:
        await check_address(settings)
        make_gate(settings)

    async def check_descriptors() -> None:
        share_out("GODOT_MAX_CONNECTIONS", settings.max_connections, raise_limit())

    for check in (check_dewey, check_redis, check_gate, check_descriptors):
        try:
            await check()
        except ConfigError as exc:
            problems += exc.problems
    return problems


def _check_destination(settings: CombinedSettings) -> None:
    if settings.dewey_mcp_url is None and settings.database_url is None:
        raise ConfigError(
            "neither DEWEY_MCP_URL nor DATABASE_URL is set, so there is nowhere to store; "
            "set one of them, or run `godot up`, which brings its own database"
        )


async def _keep_endpoints(directory: DataDir, write: Callable[[], None]) -> None:
    """Write `endpoints.json` again when it has been deleted. Runs until cancelled."""
    pause_s = ENDPOINTS_CHECK_S
    while True:
        await trio.sleep(pause_s)
        if directory.lacks_endpoints:
            write()
        pause_s = ENDPOINTS_RETRY_S if directory.lacks_endpoints else ENDPOINTS_CHECK_S


async def _start(servers: trio.Nursery, *embedded: EmbeddedServer) -> None:
    async with trio.open_nursery() as starts:
        for server in embedded:
            starts.start_soon(partial(servers.start, server.run, name=server.name))


async def _run(
    settings: CombinedSettings,
    life: Lifecycle,
    doors: Doors,
    redis_url: str,
    daemon: str,
    announce: Callable[[], None],
    lost_file: Callable[[int], bool] | None,
) -> int:
    buffer = RedisBuffer(
        redis_url,
        queue=settings.queue_name,
        daemon=daemon,
        max_size=settings.max_queue_size,
        max_bytes=settings.max_queue_bytes,
        replicas=settings.redis_replicas,
        vouched=settings.redis_durable,
        lost_file=lost_file,
    )
    registry = Registry()
    async with _way_to_dewey(settings, registry) as way, trio.open_nursery() as nursery:
        names = ("questions", "waits", "clears") if way.store else ("questions", "waits", "clears", "stores")
        clients = {name: Client(way.connect, name="godot", version=__version__) for name in names}
        if os.getpid() == 1:
            nursery.start_soon(reap_orphans, name="orphans")
        nursery.start_soon(Watchdog(registry, "godot", _say).run, name="watchdog")
        for name, client in clients.items():
            await nursery.start(client.run, name=f"dewey, {name}")
        timeout_s = settings.dewey_timeout_s
        dewey = RemoteDewey(
            way.store or RemoteStore(clients["stores"], timeout_s=timeout_s),
            clients["questions"],
            clients["waits"],
            clients["clears"],
            timeout_s=timeout_s,
        )
        nursery.start_soon(doors.watch_tokens, name="tokens")
        dependencies = Dependencies(
            buffer=buffer,
            dewey=dewey,
            dewey_definitions=DEFINITIONS,
            listeners=doors.mcp,
            http=doors.http,
            gate=doors.gate,
            connections=doors.connections,
            registry=registry,
            refresh=way.refresh,
            write=print_line,
        )
        code = await run_pipeline(settings, dependencies, life, announce)
        nursery.cancel_scope.cancel()
    return code


@attrs.frozen
class _Way:
    """How Dewey is reached.

    :param connect: for questions.
    :param refresh: called before a scrape of what Dewey counts, when it is inside.
    :param store: takes what is to be stored, when Dewey is inside; None: that goes where questions go.
    """

    connect: Connect
    refresh: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
    store: Store | None = None


@asynccontextmanager
async def _way_to_dewey(settings: CombinedSettings, registry: Registry) -> AsyncIterator[_Way]:
    if settings.dewey_mcp_url is not None:
        address, token = _address_of_dewey(settings.dewey_mcp_url, settings.dewey_token_file)
        yield _Way(over_websocket(address, token, max_message_bytes=DEWEY_ANSWER_MAX_BYTES))
        return
    metrics = DeweyMetrics(registry)
    report = PeerLog(print_line).note
    async with open_dewey(settings, metrics) as dewey:
        try:
            await dewey.store.migrate()
        except StoreUnavailable as exc:
            _tell(f"the database is away, entries wait in Redis: {exc}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_own_retention, dewey.store, settings, name="retention")
            yield _Way(
                in_process(partial(serve, Server(DEWEY_INFO, dewey.toolbox, report))),
                partial(metrics.refresh, dewey.store.count_partitions),
                InsideStore(dewey.storing, metrics, settings.dewey_timeout_s, partial(report, "bug", INSIDE)),
            )
            nursery.cancel_scope.cancel()


def _address_of_dewey(url: str, token_file: Path | None) -> tuple[Address, str | None]:
    token = None if token_file is None else read_token(token_file)
    try:
        return Address.parse(url), token
    except NoAddress as exc:
        raise ConfigError(f"DEWEY_MCP_URL: {exc}") from None


def _tell(text: str) -> None:
    _say("server", reason=text)


def _say(event: str, **fields: object) -> None:
    print_line(status_line(event, **fields))
