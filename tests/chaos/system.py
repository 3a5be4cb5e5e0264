"""The system under test: its programs, their servers and the links between, each started again when it ends.

    clients ─▶ godot serve (one or two) ─▶ Redis
                         └────────────────▶ dewey serve ─▶ PostgreSQL

Every arrow is a `Link`. Redis and PostgreSQL are those of `godot.embedded`, run by this process, which starts
them again as an orchestrator would; so is what a `Service` starts.
"""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from godot.embedded import EmbeddedPostgres, EmbeddedRedis, EmbeddedServer
from tests.chaos.link import Link
from tests.programs import Program, Workplace, until
from tests.terminals import FickleReader

LOOK_S: Final = 0.02
READY_S: Final = 60.0
"""Within this time a program has to be ready, if nothing happens to it. Dewey waits for its database."""

STOP_S: Final = 25.0
"""After SIGTERM: the drain (8 s), the bound of a worker thread (2 s), and 5 s in which it may be suspended."""

KEPT_DAYS: Final = 3650
"""Clients that date their entries date some of them years back."""

BIG_QUEUE: Final = 10_000_000
"""Entries. The bound of the queue is not what is tested: nothing is to be dropped."""


class Service:
    """A program of ours that is started again whenever it ends.

    :param on_ready: gets the URL at which the program takes calls, and None when it has ended.
    """

    def __init__(
        self, name: str, start: Callable[[], Program], on_ready: Callable[[str | None], None], rng: random.Random
    ) -> None:
        self.name = name
        self.problems: list[str] = []
        self.starts = 0
        self.lags: dict[str, list[float]] = {}
        """By what ran: for how many seconds its event loop came to nothing else. A suspended one says so too."""
        self.slowest_start = 0.0
        """The longest time in seconds from a start to the ready line, of starts in which nothing was done to it."""
        self._start, self._on_ready, self._rng = start, on_ready, rng
        self._program: Program | None = None
        self._reader: FickleReader | None = None
        self._ready_at = -math.inf
        self._signals: set[int] = set()
        self._stopping = False

    @property
    def url(self) -> str:
        """Where it takes calls; empty while it does not."""
        return self._program.mcp if self._program is not None else ""

    @property
    def http(self) -> str:
        """Where it answers HTTP; empty while it does not."""
        return self._program.http if self._program is not None else ""

    def disturbed(self) -> float:
        """Return since when it takes calls and has got no signal that ends it; now, when that is not so."""
        return self._ready_at if self.url and not self._signals else trio.current_time()

    async def stop_reading(self, duration_s: float) -> None:
        """Read nothing of what it prints for some time, if it runs."""
        if self.url and self._reader is not None:
            await self._reader.stop_reading(duration_s)

    def pids(self) -> list[int]:
        """Return its process, if there is one."""
        return [self._program.process.pid] if self._program is not None and not self._program.ended else []

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if there is a process; SIGTERM once: the second one would end it at once."""
        if self.pids() and not (number == signal.SIGTERM and number in self._signals):
            self._signals.add(number)
            os.kill(self.pids()[0], number)

    async def run(self) -> None:
        """Keep the program running. Returns after `stop`, when it has ended."""
        while not self._stopping:
            self._signals.clear()
            self._program = program = self._start()
            self._reader = FickleReader(program)
            self.starts += 1
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._reader.run)
                await self._watch(program)
            self._on_ready(None)
            self._judge(program)
            if not self._stopping:
                await trio.sleep(self._rng.uniform(0.05, 0.5))

    async def stop(self) -> None:
        """Tell it to stop for good; `run` returns when it has."""
        self._stopping = True
        self.send(signal.SIGTERM)

    async def _watch(self, program: Program) -> None:
        """Announce that it is ready, and return when it has ended."""
        while not program.ended:
            if not program.mcp and (lines := [line for line in program.out if line.startswith("ready ")]):
                said = dict(word.split("=", 1) for word in lines[0].split()[1:])
                program.mcp, program.http = said["mcp"], said["http"]
                self._ready_at = trio.current_time()
                if not self._signals:
                    self.slowest_start = max(self.slowest_start, time.monotonic() - program.started)
                self._on_ready(program.mcp)
            await trio.sleep(LOOK_S)

    def _judge(self, program: Program) -> None:
        code = program.process.wait()
        # 1 after SIGTERM: entries that nobody was promised could not be written, because Redis was away.
        expected = {-number for number in self._signals} | (
            {0, 1, 128 + signal.SIGTERM} if signal.SIGTERM in self._signals else set()
        )
        if code not in expected:
            self.problems.append(f"{self.name} ended by itself with status {code}: {program.err[-3:]}")
        self.problems += [f"{self.name}: {line}" for line in program.err if "crashed" in line or "Error" in line]
        self.problems += [f"{self.name}: {line}" for line in program.out if " event=bug " in line]
        for line in program.events("loop_lag"):
            self.lags.setdefault(line["call"], []).append(float(line["seconds"]))


@attrs.define(eq=False)
class System:
    """What can be broken in it."""

    place: Workplace
    redis: EmbeddedRedis
    postgres: EmbeddedPostgres
    daemons: list[Service]
    dewey: Service
    links: dict[str, Link]
    """`client` (with the number of its daemon, from the second on), `redis`, `dewey`, `postgres`."""
    notes: list[str]
    """What Redis and PostgreSQL went through."""

    @property
    def services(self) -> list[Service]:
        """The programs of ours."""
        return [*self.daemons, self.dewey]

    def pids(self, name: str) -> list[int]:
        """Return the processes of a part of the system, the first one first; none while it does not run."""
        for service in self.services:
            if service.name == name:
                return service.pids()
        server = self.redis if name == "redis" else self.postgres
        return [server.pid, *_children(server.pid)] if server.pid is not None else []

    def client_urls(self) -> list[str]:
        """Return where clients may connect."""
        return [f"ws://127.0.0.1:{link.port}" for name, link in self.links.items() if name.startswith("client")]

    def status_urls(self) -> list[str]:
        """Return where daemons answer that are ready, past the links."""
        return [daemon.url for daemon in self.daemons if daemon.url]

    def problems(self) -> list[str]:
        """Return what programs of ours did that they should not."""
        return [problem for service in self.services for problem in service.problems]


@asynccontextmanager
async def running_system(
    place: Workplace, rng: random.Random, *, daemons: int = 1, **settings: int
) -> AsyncIterator[System]:
    """Start all of it, and stop all of it: our programs in order, then the servers.

    :param settings: of Godot, beside those that it needs.
    :raises AssertionError: a program did not become ready, or did not stop when it was told to.
    """
    notes: list[str] = []
    redis = EmbeddedRedis(place.path / "redis", notify=notes.append, on_change=lambda: None)
    postgres = EmbeddedPostgres(place.path / "postgres", notify=notes.append, on_change=lambda: None)
    names = ["client", *(f"client{number}" for number in range(2, daemons + 1))]
    links = {name: Link(name, random.Random(rng.random())) for name in (*names, "redis", "dewey", "postgres")}
    async with trio.open_nursery() as servers:
        await _start(servers, redis, postgres)
        way_to_postgres = await _start_links(servers, links, redis, postgres)

        def start_dewey() -> Program:
            return place.start(
                *("dewey", "serve", "--port", 0),
                DATABASE_URL=f"postgresql://dewey@/winni?host={way_to_postgres}",
                LOG_RETENTION_DAYS=KEPT_DAYS,
                stdout=subprocess.PIPE,
            )

        def start_godot(number: int) -> Program:
            return place.start(
                *("godot", "serve", "--port", 0),
                GODOT_DAEMON=f"daemon-{number}",
                REDIS_URL=f"redis://127.0.0.1:{links['redis'].port}",
                DEWEY_MCP_URL=f"ws://127.0.0.1:{links['dewey'].port}",
                MAX_QUEUE_SIZE=BIG_QUEUE,
                stdout=subprocess.PIPE,
                **settings,
            )

        def make(name: str, link: Link, start: Callable[[], Program]) -> Service:
            return Service(name, start, partial(_lead, link), random.Random(rng.random()))

        numbered = [
            make(f"godot{number if number > 1 else ''}", links[name], partial(start_godot, number))
            for number, name in enumerate(names, 1)
        ]
        dewey = make("dewey", links["dewey"], start_dewey)
        system = System(place, redis, postgres, numbered, dewey, links, notes)
        async with trio.open_nursery() as services:
            for service in system.services:
                services.start_soon(service.run, name=service.name)
            await until(lambda: all(service.url for service in system.services) or system.problems(), READY_S)
            assert not system.problems(), system.problems()
            yield system
            with trio.fail_after(STOP_S):
                async with trio.open_nursery() as stops:
                    for service in system.services:
                        stops.start_soon(service.stop)
                await until(lambda: not any(service.pids() for service in system.services), STOP_S)
        servers.cancel_scope.cancel()


async def _start(servers: trio.Nursery, *embedded: EmbeddedServer) -> None:
    async with trio.open_nursery() as starts:
        for server in embedded:
            starts.start_soon(partial(servers.start, server.run, name=server.name))


async def _start_links(
    servers: trio.Nursery, links: Mapping[str, Link], redis: EmbeddedRedis, postgres: EmbeddedPostgres
) -> Path:
    """Open the ways to the servers and to our programs; return the directory of the one to PostgreSQL."""
    links["redis"].dial = partial(_dial_unix, _socket_of(redis))
    links["postgres"].dial = partial(_dial_unix, _socket_of(postgres))
    way_to_postgres = redis.directory.parent / "way"
    way_to_postgres.mkdir(mode=0o700)
    for name, link in links.items():
        if name == "postgres":
            await servers.start(link.run_on_unix, way_to_postgres / postgres.socket_name)
        else:
            await servers.start(link.run_on_tcp)
    return way_to_postgres


def _lead(link: Link, url: str | None) -> None:
    link.dial = None if url is None else partial(_dial_tcp, int(url.rpartition(":")[2]))


async def _dial_tcp(port: int) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", port)


async def _dial_unix(path: str) -> trio.SocketStream:
    return await trio.open_unix_socket(path)


def _socket_of(server: EmbeddedServer) -> str:
    return str(server._sockets / server.socket_name)


def _children(parent: int) -> Iterator[int]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1]) == parent:
                yield int(pid)
