"""One part after the other is taken away from `godot serve` and `dewey serve`, and given back (REL-002, REL-004).

What is promised of each outage: callers are refused within a second or served, nothing that was acknowledged is lost
and nothing is doubled, it heals without a hand, and the status lines say when it began, when it ended, what it cost.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import attrs
import psycopg
import pytest
import trio

from godot.embedded import EmbeddedPostgres, EmbeddedRedis, server
from godot.entries.entry import IdSource
from tests.chaos.link import Link
from tests.postgres_servers import Database, Server, binaries, running_server
from tests.programs import (
    ENOUGH,
    POLL_S,
    CallFault,
    Peer,
    Program,
    Queue,
    Workplace,
    connect,
    select,
    stored_messages,
    until,
    workplace,
)
from tests.redis_servers import RedisServer, running_redis

_numbers = count(1)


class Disk:
    """A small disk, which can be filled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Leave no room."""
        with self._filler.open("wb", buffering=0) as file:
            try:
                while file.write(b"\0" * 4096):
                    pass
            except OSError:  # there it is
                pass

    def clear(self) -> None:
        """Give the room back."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(size: str) -> Iterator[Disk | None]:
    """Mount a disk in memory; None where that is not permitted."""
    path = Path(tempfile.mkdtemp(prefix="godot-disk-", dir="/tmp"))
    mounted = os.geteuid() == 0 and not subprocess.call(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", path], stderr=subprocess.DEVNULL
    )
    try:
        yield Disk(path) if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", path], check=True)
        shutil.rmtree(path, ignore_errors=True)


@attrs.define(eq=False)
class Stage:
    """All of it, started once for this module; a test leaves it as it found it."""

    place: Workplace
    redis: RedisServer
    postgres: Server
    database: Database
    disk: Disk | None
    dewey_port: int = 0
    dewey: Program = attrs.field(init=False)
    godot: Program = attrs.field(init=False)

    def start_godot(self) -> Program:
        """Start the daemon."""
        return self.place.start(
            *("godot", "serve", "--port", 0),
            REDIS_URL=self.redis.url,
            DEWEY_MCP_URL=f"ws://127.0.0.1:{self.dewey_port}",
            GODOT_DAEMON="one",
        )

    def start_dewey(self) -> Program:
        """Start Dewey, there where it was before."""
        return self.place.start(
            *("dewey", "serve", "--port", self.dewey_port),
            DATABASE_URL=self.database.url,
            LOG_RETENTION_DAYS=3650,  # some entries are old
        )

    def tell_redis(self, *command: Any) -> Any:
        """Say something to Redis, as `redis-cli` does."""
        with closing(self.redis.client()) as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def tell_postgres(self, statement: str) -> None:
        """Change a setting for all, also for those who are connected."""
        self.postgres.execute(statement)
        self.postgres.execute("SELECT pg_reload_conf()")


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with ExitStack() as held:
        place = held.enter_context(workplace())
        disk = held.enter_context(small_disk("96m"))
        redis_server = held.enter_context(running_redis())
        postgres = held.enter_context(running_server(binaries()["18"]))
        database = Database(postgres)
        if disk is not None:
            shutil.chown(disk.path, "nobody")
            postgres.execute(f"CREATE TABLESPACE small LOCATION '{disk.path}'")
            postgres.execute(f"ALTER DATABASE {database.name} SET TABLESPACE small")
        made = Stage(place, redis_server, postgres, database, disk)
        made.dewey = made.start_dewey()
        made.dewey_port = int(trio.run(made.dewey.ready).rpartition(":")[2])
        made.godot = made.start_godot()
        trio.run(made.godot.ready)
        yield made


@attrs.define(eq=False)
class Watched:
    """A caller, what it logged, and what the daemon has said since it came."""

    stage: Stage
    peer: Peer
    component: str
    said: int
    logged: list[str] = attrs.Factory(list)

    async def log(self) -> None:
        """Log an entry that is acknowledged."""
        await self.peer.log(self._messages(1)[0], component=self.component, ack="durable")

    async def log_many(self, number: int, **fields: object) -> list[dict[str, Any]]:
        """Log a batch; return what was not accepted."""
        messages = self._messages(number)
        logs = [{"component": self.component, "level": "INFO", "message": each, "data": fields} for each in messages]
        rejected: list[dict[str, Any]] = (await self.peer.call("logger_log_batch", logs=logs))["rejected"]
        if rejected:
            del self.logged[-len(rejected) :]
        return rejected

    async def log_in_vain(self) -> str:
        """Log an entry that is not acknowledged; return the refusal. It may be stored all the same, once."""
        with pytest.raises(CallFault) as refused:
            await self.log()
        return str(refused.value)

    def events(self, name: str) -> list[dict[str, str]]:
        """Return the status lines of an event since the caller came."""
        return [line for line in self.stage.godot.events()[self.said :] if line["event"] == name]

    async def event(self, name: str) -> dict[str, str]:
        """Wait for a status line."""
        return (await until(lambda: self.events(name)))[0]

    async def healed(self) -> None:
        """Wait until all is as it should be, and compare."""
        await self.peer.status_with(queued=0, in_flight=0, redis="up", dewey="up", dead=0, dropped=0)
        assert stored_messages(self.stage.database.url, self.component) == self.logged

    def _messages(self, number: int) -> list[str]:
        self.logged += [f"entry {len(self.logged) + each}" for each in range(number)]
        return self.logged[-number:]


@asynccontextmanager
async def watched(stage: Stage) -> AsyncIterator[Watched]:
    with trio.fail_after(ENOUGH):
        said = len(stage.godot.events())
        async with connect(stage.godot.mcp) as peer:
            caller = Watched(stage, peer, f"caller-{next(_numbers)}", said)
            await caller.log()
            yield caller
            await caller.healed()


@contextmanager
def redis_out_of_memory(stage: Stage) -> Iterator[None]:
    stage.tell_redis("CONFIG", "SET", "maxmemory-policy", "noeviction")
    stage.tell_redis("CONFIG", "SET", "maxmemory", "1")
    try:
        yield
    finally:
        stage.tell_redis("CONFIG", "SET", "maxmemory", "0")


@contextmanager
def redis_cannot_save(stage: Stage) -> Iterator[None]:
    """Make a snapshot fail, as on a full disk: a directory is in its place."""
    in_the_way = Path(os.fsdecode(stage.tell_redis("CONFIG", "GET", "dir")[b"dir"]), "dump.rdb")
    in_the_way.mkdir()
    stage.tell_redis("CONFIG", "SET", "save", "3600 1")
    stage.tell_redis("BGSAVE")
    try:
        while stage.tell_redis("INFO", "persistence")["rdb_last_bgsave_status"] == "ok":
            time.sleep(POLL_S)
        yield
    finally:
        in_the_way.rmdir()
        stage.tell_redis("SAVE")
        stage.tell_redis("CONFIG", "SET", "save", "")


@contextmanager
def redis_gone(stage: Stage) -> Iterator[None]:
    stage.redis.kill()
    try:
        yield
    finally:
        stage.redis.start()


@contextmanager
def redis_hangs(stage: Stage) -> Iterator[None]:
    stage.redis.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        stage.redis.signal(signal.SIGCONT)


@contextmanager
def redis_paused(stage: Stage) -> Iterator[None]:
    stage.tell_redis("CLIENT", "PAUSE", 60_000, "WRITE")
    try:
        yield
    finally:
        stage.tell_redis("CLIENT", "UNPAUSE")


@contextmanager
def redis_is_a_replica(stage: Stage) -> Iterator[None]:
    """Make it follow a master that is not there: it keeps what it has, and takes nothing."""
    stage.tell_redis("REPLICAOF", "127.0.0.1", "9")
    try:
        yield
    finally:
        stage.tell_redis("REPLICAOF", "NO", "ONE")


Outage = Callable[[Stage], AbstractContextManager[None]]


@pytest.mark.parametrize(
    ("outage", "words"),
    [
        (redis_out_of_memory, "maxmemory"),
        (redis_cannot_save, "MISCONF"),
        (redis_gone, "Redis: "),
        (redis_hangs, "Timeout"),
        (redis_paused, "Timeout"),
        (redis_is_a_replica, "read only replica"),
    ],
)
async def test_while_redis_takes_nothing_callers_are_refused_within_a_second_and_what_it_had_is_kept(
    stage: Stage, outage: Outage, words: str
) -> None:
    """REL-001, MAINT-001."""
    async with watched(stage) as caller:
        with outage(stage):
            assert "not on disk within 1 s, and not sure to get there; send it again" in await caller.log_in_vain()
            assert words in (await caller.event("redis_down"))["reason"]
            assert (await caller.peer.status())["redis"] == "down"
        back = await caller.event("redis_back")
        assert float(back["lasted"].removesuffix("s")) >= 0.5
        assert (back["refused_meanwhile"], back["dropped_meanwhile"]) == ("0", "0")
        await caller.log()


async def test_when_the_channel_is_full_too_the_refusal_says_so_and_is_counted(stage: Stage) -> None:
    """REL-004: what was answered `queued` before is written when Redis is back."""
    async with watched(stage) as caller:
        refused: list[dict[str, Any]] = []
        with redis_gone(stage):
            while not refused:
                refused = await caller.log_many(1_000)
        assert "not accepted: the buffer has not taken anything for 1 s" in refused[0]["error"]
        assert 10_000 <= len(caller.logged) <= 11_000
        back = await caller.event("redis_back")
        assert back["refused_meanwhile"] == str(len(refused))


@contextmanager
def postgres_read_only(stage: Stage) -> Iterator[None]:
    stage.tell_postgres("ALTER SYSTEM SET default_transaction_read_only = on")
    try:
        yield
    finally:
        stage.tell_postgres("ALTER SYSTEM RESET default_transaction_read_only")


@contextmanager
def postgres_disk_full(stage: Stage) -> Iterator[None]:
    if stage.disk is None:
        pytest.skip("mounting a disk in memory is not permitted here: it needs root")
    stage.disk.fill()
    try:
        yield
    finally:
        stage.disk.clear()


@contextmanager
def postgres_gone(stage: Stage) -> Iterator[None]:
    stage.postgres.stop()
    try:
        yield
    finally:
        stage.postgres.start()


@pytest.mark.parametrize(
    ("outage", "words"),
    [
        (postgres_read_only, "read-only"),
        (postgres_disk_full, "No space left on device"),
        (postgres_gone, "connection"),
    ],
)
async def test_while_postgresql_stores_nothing_callers_are_served_and_all_is_stored_when_it_does(
    stage: Stage, outage: Outage, words: str
) -> None:
    """REL-002, MAINT-001: SQLSTATE 25, 53, 08 and 57 blame the world, and no entry."""
    async with watched(stage) as caller:
        await caller.peer.status_with(queued=0, in_flight=0)
        with outage(stage):
            while not caller.events("dewey_down"):
                assert not await caller.log_many(50, filling="x" * 3_000)  # some fit into what is there already
            assert words in (await caller.event("dewey_down"))["reason"]
            await caller.log()
        back = await caller.event("dewey_back")
        assert float(back["lasted"].removesuffix("s")) > 0
        assert (back["refused_meanwhile"], back["dropped_meanwhile"]) == ("0", "0")


@contextmanager
def dewey_gone(stage: Stage) -> Iterator[None]:
    stage.dewey.process.kill()
    stage.dewey.process.wait()
    try:
        yield
    finally:
        stage.dewey = stage.start_dewey()


@pytest.mark.parametrize(
    ("first", "second"),
    [(postgres_gone, redis_gone), (dewey_gone, redis_hangs), (postgres_gone, dewey_gone)],
)
async def test_with_two_of_them_away_at_once_it_heals_as_from_each(stage: Stage, first: Outage, second: Outage) -> None:
    """REL-004: and the one that comes back first changes nothing for the other."""
    redis_is_one = second is not dewey_gone
    async with watched(stage) as caller:
        with first(stage):
            await caller.log()
            await caller.event("dewey_down")
            with second(stage):
                if redis_is_one:
                    await caller.log_in_vain()
                    await caller.event("redis_down")
                else:
                    await caller.log()
            if redis_is_one:
                await caller.event("redis_back")
            await caller.log()
            assert not caller.events("dewey_back")
        await caller.event("dewey_back")


async def test_a_disk_that_is_full_under_redis_stops_it_and_costs_nothing(stage: Stage) -> None:
    """REL-001: with appendfsync always Redis ends rather than answer for what is not on disk."""
    with small_disk("2m") as disk:
        if disk is None:
            pytest.skip("mounting a disk in memory is not permitted here: it needs root")
        notes: list[str] = []
        own = EmbeddedRedis(disk.path / "redis", notify=notes.append, on_change=lambda: None)
        with trio.fail_after(ENOUGH):
            async with trio.open_nursery() as servers:
                await servers.start(own.run)
                godot = stage.place.start(
                    "godot", "serve", "--port", 0, REDIS_URL=own.url, DATABASE_URL=stage.database.url
                )
                async with connect(await godot.ready()) as peer:
                    await peer.log("before", component="full", ack="durable")
                    disk.fill()
                    while not godot.events("redis_down"):  # the last page of the file may have some room yet
                        with suppress(CallFault):
                            await peer.log("x" * 3_000, component="filling", ack="durable")
                    disk.clear()
                    await godot.event("redis_back")
                    await peer.log("after", component="full", ack="durable")
                    await peer.status_with(queued=0, in_flight=0, redis="up", dead=0, dropped=0)
                assert await godot.stop() == 0
                servers.cancel_scope.cancel()
        assert "starting it again" in notes[0]
        assert stored_messages(stage.database.url, "full") == ["before", "after"]
        rows = stage.database.execute("SELECT count(*), count(DISTINCT id) FROM logs WHERE component = 'filling'")
        assert rows[0][0] == rows[0][1]


async def test_a_disk_that_is_full_under_godots_own_postgresql_ends_it_until_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """REL-004: it cannot write its log any more, dies of it, and cannot even recover; it is not given up."""
    monkeypatch.setattr(server, "LAST_DELAY", server.FIRST_DELAY)
    with small_disk("144m") as disk:
        if disk is None:
            pytest.skip("mounting a disk in memory is not permitted here: it needs root")
        disk.path.chmod(0o711)
        notes: list[str] = []
        own = EmbeddedPostgres(disk.path / "postgres", notify=notes.append, on_change=lambda: None)
        with trio.fail_after(ENOUGH):
            async with trio.open_nursery() as servers:
                await servers.start(own.run)
                select(own.url, "CREATE TABLE kept AS SELECT 1")
                disk.fill()
                with suppress(psycopg.OperationalError):
                    while True:
                        select(own.url, "SELECT pg_logical_emit_message(false, 'filling', repeat('x', 9000000))")
                await until(lambda: len(notes) > 6)
                assert "hardly any room left in" in notes[-1]
                disk.clear()
                await until(lambda: "PostgreSQL is back" in notes[-1])
                assert select(own.url, "SELECT * FROM kept") == [(1,)]
                servers.cancel_scope.cancel()


async def test_a_network_to_dewey_that_is_slow_cut_in_an_answer_or_a_black_hole(stage: Stage) -> None:
    """REL-002, DEW-004: what Dewey stored without being heard is sent again, and is there once."""
    with trio.fail_after(2 * ENOUGH):
        async with trio.open_nursery() as links:
            link = Link("dewey", random.Random(4))
            link.dial = partial(trio.open_tcp_stream, "127.0.0.1", stage.dewey_port)
            await links.start(link.run_on_tcp)
            godot = stage.place.start(
                *("godot", "serve", "--port", 0),
                REDIS_URL=stage.redis.url,
                LOG_QUEUE_NAME="network",
                DEWEY_MCP_URL=f"ws://127.0.0.1:{link.port}",
                GODOT_DEWEY_TIMEOUT_S=1.5,
            )
            async with connect(await godot.ready()) as peer:
                healthy = partial(peer.status_with, queued=0, in_flight=0, dewey="up", dead=0, dropped=0)
                await peer.log("before", component="network", ack="durable")
                await healthy()

                async with trio.open_nursery() as network:
                    network.start_soon(link.delay, 0.2, 1.0)
                    await peer.log("slow", component="network", ack="durable")
                    await healthy(stored=2)
                assert godot.events() == [], "late is not away"

                stage.dewey.process.send_signal(signal.SIGSTOP)
                carried = link.carried_bytes
                await peer.log("cut", component="network", ack="durable")
                await peer.status_with(in_flight=1)
                await until(lambda: link.carried_bytes > carried)  # the request is on the other side
                async with trio.open_nursery() as network:
                    network.start_soon(link.cut)
                    stage.dewey.process.send_signal(signal.SIGCONT)
                await godot.event("dewey_down")
                await healthy(stored=3)

                async with trio.open_nursery() as network:
                    network.start_soon(link.black_hole, 2.0)
                    await peer.log("black hole", component="network", ack="durable")
                    assert "no answer" in (await godot.event("dewey_down", 2))["reason"]
                await healthy(stored=4)
                for began, ended in zip(godot.events("dewey_down"), godot.events("dewey_back"), strict=True):
                    assert began["time"] < ended["time"]
            assert await godot.stop() == 0
            links.cancel_scope.cancel()
    assert stored_messages(stage.database.url, "network") == ["before", "slow", "cut", "black hole"]


async def test_an_id_of_the_clients_is_stored_once_across_a_kill_partitions_and_days(stage: Stage) -> None:
    """MCP-003, DEW-004: sent again because the answer was lost, to the daemon that was started next."""
    days_ago = "2026-11-17T12:00:00Z"
    old = str(uuid4())
    entries: list[dict[str, Any]] = [
        {"id": str(uuid4())},
        {"id": IdSource().next()},
        {"id": str(uuid4()), "created_at": days_ago},
        {"id": str(uuid4()), "created_at": "2018-01-01T00:00:00Z"},
        {"id": old, "created_at": days_ago},
    ]
    again = [*entries[:4], {"id": old}]  # as it comes from one that dates nothing, some days later
    with trio.fail_after(ENOUGH):
        for logs in (entries, again, again):
            async with connect(stage.godot.mcp) as peer:
                for each in logs:
                    await peer.log("once", component="once", ack="durable", **each)
            await stage.godot.kill()
            stage.godot = stage.start_godot()
            await stage.godot.ready()
        async with connect(stage.godot.mcp) as peer:
            await peer.status_with(queued=0, in_flight=0)
    rows = stage.database.execute("SELECT id::text FROM logs WHERE component = 'once'")
    assert sorted(str(row[0]) for row in rows) == sorted(str(each["id"]) for each in entries)


async def test_the_rest_of_a_batch_with_poison_in_it_is_stored_at_once(stage: Stage) -> None:
    """GOD-001: and the sum is right at every look (`Peer.status`)."""
    fields = {"component": "poisoned", "level": "INFO", "created_at": "2026-11-20T08:30:00Z"}
    logs = [{**fields, "id": str(uuid4()), "message": f"entry {n}"} for n in range(100)]
    for index in (0, 50, 99):
        logs[index]["level"] = "LOUD"
    with trio.fail_after(ENOUGH):
        async with connect(stage.godot.mcp) as peer:
            await peer.status_with(queued=0, in_flight=0)
            with closing(Queue.at(stage.redis.url)) as queue, queue.client.pipeline() as at_once:
                Queue(at_once).push(*logs)
                at_once.execute()
            await peer.status_with(queued=0, in_flight=0, dead=3)
            assert await peer.call("logger_dead_purge", all=True)
    ((rows, batches),) = stage.database.execute(
        "SELECT count(*), count(DISTINCT xmin::text) FROM logs WHERE component = 'poisoned'"
    )
    assert (rows, batches) == (97, 1), "as one batch, without those three"


CRASHING: Final = """
import sys

from godot.pipeline.batcher import Batcher
from godot.cli.main import main

push = Batcher._push

async def push_or_crash(self, entries):
    if any(b"a bug" in entry for entry in entries):
        raise RuntimeError("a bug in the batcher")
    return await push(self, entries)

Batcher._push = push_or_crash
sys.argv[0] = "godot"
main()
"""


async def test_a_crash_of_the_daemon_is_loud_and_the_next_one_is_ready_at_once(stage: Stage) -> None:
    """REL-004: exit code, last line; what was acknowledged before is stored."""
    with trio.fail_after(ENOUGH):
        crashing = stage.place.start(
            *("python", "-c", CRASHING, "serve", "--port", 0),
            REDIS_URL=stage.redis.url,
            LOG_QUEUE_NAME="crash",
            GODOT_DAEMON="one",
            DEWEY_MCP_URL="ws://127.0.0.1:9",
        )
        async with connect(await crashing.ready()) as peer:
            await peer.log("before", component="crash", ack="durable")
            await peer.send(
                '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"logger_log",'
                '"arguments":{"component":"crash","level":"INFO","message":"a bug"}}}'
            )
            assert await crashing.exit() == 1
        assert "Traceback" in "\n".join(crashing.err)
        assert crashing.err[-1] == "godot: crashed: RuntimeError('a bug in the batcher')"
        after = stage.place.start(
            *("godot", "serve", "--port", 0),
            REDIS_URL=stage.redis.url,
            LOG_QUEUE_NAME="crash",
            GODOT_DAEMON="one",
            DEWEY_MCP_URL=f"ws://127.0.0.1:{stage.dewey_port}",
        )
        async with connect(await after.ready()) as peer:
            assert after.ready_after < 15, "1.5 s are promised"
            await peer.status_with(received=1, stored=1)
        assert await after.stop() == 0
    assert stored_messages(stage.database.url, "crash") == ["before"]
