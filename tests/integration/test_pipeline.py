"""`godot serve` and `dewey serve` on a real Redis and a real PostgreSQL: nothing is lost, nothing comes twice.

One `godot up` lends its servers; each test has a queue and a database of its own in them.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed

from tests.programs import (
    ENOUGH,
    CallFault,
    Peer,
    Program,
    Queue,
    Workplace,
    answer,
    close_code,
    connect,
    frame,
    select,
    stored_messages,
    until,
    until_longer,
    workplace,
)

MANY = 150_000
BOUND = 100_000

_numbers = count(1)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Any]]:
    """Where a Redis and a PostgreSQL are, as `endpoints.json` says."""
    with workplace() as place:
        trio.run(place.up().ready)
        yield place.endpoints()


class Pipeline:
    """A queue, a database, and the programs between them."""

    def __init__(self, place: Workplace, servers: dict[str, Any]) -> None:
        name = f"pipeline_{next(_numbers)}"
        select(servers["database"], f"CREATE DATABASE {name}")
        self.place = place
        self.database = servers["database"].replace("/winni?", f"/{name}?")
        self.queue = Queue.at(servers["redis"], f"logs:{name}")
        self._to_redis = {"REDIS_URL": servers["redis"], "LOG_QUEUE_NAME": self.queue.name, "GODOT_DAEMON": "test"}

    async def dewey(self, url: str = "ws://127.0.0.1:0") -> Program:
        """Start `dewey serve`, there where it was before if that is said."""
        port = url.rpartition(":")[2]
        program = self.place.start("dewey", "serve", "--port", port, DATABASE_URL=self.database)
        await program.ready()
        return program

    async def godot(self, dewey: str | None = None, **environ: object) -> Program:
        """Start `godot serve`, with Dewey inside unless it is said where Dewey is."""
        to_dewey = {"DATABASE_URL": self.database} if dewey is None else {"DEWEY_MCP_URL": dewey}
        settings: dict[str, Any] = {**self._to_redis, **to_dewey, **environ}
        program = self.place.start("godot", "serve", "--port", 0, **settings)
        await program.ready()
        return program

    def stored(self) -> list[tuple[str, str]]:
        """Return (component, message) of all that is stored, in its order."""
        rows = select(self.database, "SELECT component, message FROM logs ORDER BY created_at, id")
        return [(component, message) for component, message in rows]

    def close(self) -> None:
        """Disconnect."""
        self.queue.close()


@pytest.fixture
def pipeline(servers: dict[str, Any]) -> Iterator[Pipeline]:
    with workplace() as place:
        made = Pipeline(place, servers)
        try:
            yield made
        finally:
            made.close()


@contextmanager
def nobodys_address() -> Iterator[str]:
    """Hold a port that refuses connections."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"ws://127.0.0.1:{held.getsockname()[1]}"


async def keep_logging(url: str, component: str, answered: list[tuple[str, str]], codes: list[int]) -> None:
    """Log one entry after the other, until the connection is closed; note what was answered, and the close code."""
    async with connect(url) as peer:
        try:
            for number in count():
                await peer.log(f"entry {number}", component=component)
                answered.append((component, f"entry {number}"))
        except ConnectionClosed as exc:
            codes.append(close_code(exc))


def only(component: str, entries: list[tuple[str, str]]) -> list[str]:
    return [message for name, message in entries if name == component]


@pytest.mark.parametrize("dewey_is", ["inside", "remote"])
async def test_1000_entries_of_several_connections_are_all_stored_once_and_in_order(
    pipeline: Pipeline, dewey_is: str
) -> None:
    """GOD-003: component, Godot, Dewey, PostgreSQL; with calls in flight all the time (DEW-002 too)."""
    with trio.fail_after(ENOUGH):
        url = (await pipeline.dewey()).mcp if dewey_is == "remote" else None
        godot = await pipeline.godot(url)

        async def log_200(component: str) -> None:
            async with connect(godot.mcp) as peer, trio.open_nursery() as both:
                frames = [
                    frame("logger_log", component=component, level="INFO", message=f"entry {n}") for n in range(200)
                ]

                async def send() -> None:
                    for each in frames:
                        await peer.send(each)

                both.start_soon(send)
                for _ in frames:
                    assert answer(await peer.receive())["status"] == "queued"

        async with trio.open_nursery() as clients:
            for client in range(5):
                clients.start_soon(log_200, f"client {client}")
        async with connect(godot.mcp) as peer:
            status = await peer.status_with(stored=1_000, queued=0, in_flight=0)
            assert (status["received"], status["dropped"], status["dead"]) == (1_000, 0, 0)
            found = await peer.call("logger_query", component="client 3", limit=200, order="oldest", max_bytes=921_600)
        stored = pipeline.stored()
        assert len(stored) == 1_000
        for client in range(5):
            assert only(f"client {client}", stored) == [f"entry {n}" for n in range(200)]
        assert [entry["message"] for entry in found["entries"]] == only("client 3", stored)
        assert select(pipeline.database, "SELECT count(*) FROM logs WHERE ingested_at < created_at") == [(0,)]


async def test_what_is_logged_while_dewey_is_down_is_stored_in_order_when_it_is_back(pipeline: Pipeline) -> None:
    """GOD-004, REL-002; and the lines that tell it (MAINT-001)."""
    with trio.fail_after(ENOUGH):
        dewey = await pipeline.dewey()
        godot = await pipeline.godot(dewey.mcp, GODOT_STATUS_S="0.5")
        messages = [f"entry {n}" for n in range(5_000)]
        async with connect(godot.mcp) as peer:
            await peer.log("before", component="first")
            await peer.status_with(stored=1)
            assert await dewey.stop() == 0
            assert dewey.events()[-1]["event"] == "stopped"

            for start in range(0, 5_000, 1_000):
                await peer.log_batch(messages[start : start + 1_000])
            down = await godot.event("dewey_down")
            assert "reason" in down
            status = await peer.status_with(received=5_001, queued=5_000, dewey="down")
            assert (status["stored"], status["dropped"], status["redis"]) == (1, 0, "up")
            with pytest.raises(CallFault, match="Dewey"):
                await peer.call("logger_query", component="first")

            await pipeline.dewey(dewey.mcp)
            await peer.status_with(stored=5_001, queued=0, in_flight=0, dewey="up")
        await godot.event("dewey_back")
        assert stored_messages(pipeline.database) == messages
        # The order of storing is that of logging too.
        by_ingestion = select(
            pipeline.database, "SELECT bool_and(ok) FROM (SELECT ingested_at >= lag(ingested_at, 1, ingested_at) "
            "OVER (ORDER BY created_at, id) AS ok FROM logs) AS steps"
        )  # fmt: skip
        assert by_ingestion == [(True,)]


async def test_dewey_killed_in_the_middle_of_storing_makes_nothing_come_twice(pipeline: Pipeline) -> None:
    """REL-004, DEW-004: what a dead Dewey had stored is sent again, and is there once."""
    with trio.fail_after(ENOUGH):
        dewey = await pipeline.dewey()
        godot = await pipeline.godot(dewey.mcp)
        answered: list[tuple[str, str]] = []
        async with trio.open_nursery() as nursery, connect(godot.mcp) as peer:
            for client in range(3):
                nursery.start_soon(keep_logging, godot.mcp, f"client {client}", answered, [])
            for _ in range(2):
                await until_longer(answered, len(answered) + 200)
                await dewey.kill()
                dewey = await pipeline.dewey(dewey.mcp)
            nursery.cancel_scope.cancel()
        async with connect(godot.mcp) as peer:
            await peer.status_with(queued=0, in_flight=0)
        stored = pipeline.stored()
        assert len(stored) == len(set(stored))
        assert set(answered) <= set(stored)


@pytest.mark.parametrize("dewey_is", ["inside", "remote", "down", "hanging"])
async def test_sigterm_under_load_says_goodbye_and_loses_nothing_that_was_answered(
    pipeline: Pipeline, dewey_is: str
) -> None:
    """REL-005: exit code 0, close code 1001; every answered entry is stored or in Redis, and stored once later."""
    with trio.fail_after(ENOUGH), nobodys_address() as nobody:
        dewey = await pipeline.dewey() if dewey_is in ("remote", "hanging") else None
        url = dewey.mcp if dewey else nobody if dewey_is == "down" else None
        drain_s = 8 if dewey_is in ("inside", "remote") else 1
        godot = await pipeline.godot(url, GODOT_DRAIN_S=drain_s)
        if dewey is not None and dewey_is == "hanging":
            dewey.process.send_signal(signal.SIGSTOP)
        answered: list[tuple[str, str]] = []
        codes: list[int] = []
        async with trio.open_nursery() as clients:
            for client in range(4):
                clients.start_soon(keep_logging, godot.mcp, f"client {client}", answered, codes)
            await until_longer(answered, 400)
            assert await godot.stop() == 0
        assert codes == [1001] * 4
        assert godot.err == []
        draining, stopped = godot.events("draining", "stopped")
        assert draining["seconds"] == str(drain_s)
        assert stopped["lost"] == "0"
        assert stopped["drained"] == ("true" if dewey_is in ("inside", "remote") else "false")

        waiting = pipeline.queue.messages()
        if dewey_is in ("inside", "remote"):
            assert waiting == []
            assert set(answered) <= set(pipeline.stored())
        elif dewey_is == "down":
            assert len(waiting) >= len(answered)

        if dewey is not None and dewey_is == "hanging":
            dewey.process.send_signal(signal.SIGCONT)
        again = await pipeline.godot()
        async with connect(again.mcp) as peer:
            status = await peer.status_with(queued=0, in_flight=0)
            assert (status["dropped"], status["dead"]) == (0, 0)
        stored = pipeline.stored()
        assert set(answered) <= set(stored)
        assert len(stored) == len(set(stored))
        for client in range(4):
            own = only(f"client {client}", stored)
            assert own == [f"entry {n}" for n in range(len(own))]


async def test_a_second_signal_ends_it_at_once_and_leaves_the_rest_in_redis(pipeline: Pipeline) -> None:
    """REL-005."""
    with trio.fail_after(ENOUGH), nobodys_address() as nobody:
        godot = await pipeline.godot(nobody, GODOT_DRAIN_S=600)
        async with connect(godot.mcp) as peer:
            await peer.log_batch([f"entry {n}" for n in range(100)])
            await until(lambda: len(pipeline.queue.messages()) == 100)
            godot.process.send_signal(signal.SIGTERM)
            await godot.event("draining")
            assert await peer.closed() == 1001
            assert not godot.ended
            assert await godot.stop() == 128 + signal.SIGTERM
        assert pipeline.queue.messages() == [f"entry {n}" for n in range(100)]


async def test_what_another_process_pushes_is_delivered_and_garbage_beside_it_stops_nothing(
    pipeline: Pipeline,
) -> None:
    """GOD-001: as `redis-cli LPUSH` does it, without an id; what is no entry is put aside with a reason."""
    garbage: list[object] = [
        b"no JSON",
        b"\xff\xfe\x00",
        b"",
        b"[" * 5_000,
        [],
        7,
        {"component": 5, "level": "INFO", "message": "wrong type"},
        {"component": "pushed", "level": "LOUD", "message": "wrong level"},
        {"component": "pushed", "level": "INFO"},
        {"component": "pushed", "level": "INFO", "message": "bad id", "id": "x", "created_at": "2026-11-20T08:30:00Z"},
        {"component": "pushed", "level": "INFO", "message": "bad time", "created_at": "soon"},
    ]
    fields = {"component": "pushed", "level": "warn", "trace_id": None, "data": {"by": "redis-cli"}}
    with trio.fail_after(ENOUGH):
        for number, waste in enumerate(garbage):
            pipeline.queue.push(waste, {**fields, "message": f"entry {number}"})
        pipeline.queue.push(
            {**fields, "message": "with a time", "created_at": "2026-11-20T08:30:00.5Z"},
            {**fields, "message": "with a NUL \0", "trace_id": "0af7651916cd43dd8448eb211c80319c"},
        )
        godot = await pipeline.godot()
        good = len(garbage) + 2
        async with connect(godot.mcp) as peer:
            status = await peer.status_with(stored=good, queued=0, in_flight=0)
            assert (status["received"], status["dead"]) == (good + len(garbage), len(garbage))
            await peer.log("behind it", component="client")
            await peer.found(component="client")
            # While it runs, too: it looks without being woken.
            pipeline.queue.push({**fields, "message": "while it runs"})
            await peer.found(search="while it runs")

            entry = await peer.found(search="with a NUL")
            assert (entry["level"], entry["data"]) == ("WARN", {"by": "redis-cli"})
            assert entry["trace_id"] == "0af76519-16cd-43dd-8448-eb211c80319c"
        stored = stored_messages(pipeline.database, "pushed")
        assert stored[0] == "with a time"
        assert stored[1 : len(garbage) + 1] == [f"entry {n}" for n in range(len(garbage))]
        dead = pipeline.queue.dead()
        assert len(dead) == len(garbage)
        assert all(grave["reason"] for grave in dead)
        reasons = {grave["entry"]: grave["reason"] for grave in dead}
        assert "not" in reasons["7"]


async def test_what_a_killed_daemon_had_in_flight_is_delivered_by_another_on_the_same_redis(
    pipeline: Pipeline,
) -> None:
    """REL-004: kill -9 with a batch under way; when its lease has run out nothing is lost, and nothing comes twice."""
    with trio.fail_after(ENOUGH):
        dewey = await pipeline.dewey()
        dying = await pipeline.godot(dewey.mcp, GODOT_DAEMON="dying")
        living = await pipeline.godot(dewey.mcp, GODOT_DAEMON="living")
        async with connect(living.mcp) as peer, connect(dying.mcp) as victim:
            for number, each in enumerate([victim, peer] * 50):
                await each.log(f"entry {number}")
            await peer.status_with(stored=100, queued=0, in_flight=0)

            dewey.process.send_signal(signal.SIGSTOP)
            await victim.log_batch([f"entry {n}" for n in range(100, 400)])
            await peer.status_with(received=400)  # what is not yet in Redis dies with it
            await until(lambda: pipeline.queue.client.llen(f"{pipeline.queue.name}:inflight:dying"))
            await dying.kill()
            status = await peer.status()
            assert status["in_flight"] + status["queued"] == 300
            dewey.process.send_signal(signal.SIGCONT)
            # Its lease runs for 30 s; the test does not.
            pipeline.queue.client.delete(f"{pipeline.queue.name}:lease:dying")
            await peer.status_with(stored=400, queued=0, in_flight=0, received=400)
        assert sorted(stored_messages(pipeline.database)) == sorted(f"entry {n}" for n in range(400))


async def test_serve_with_a_redis_of_its_own_keeps_entries_over_a_restart(pipeline: Pipeline) -> None:
    """REL-001: without REDIS_URL; they wait in its data directory until there is a Dewey."""
    with trio.fail_after(ENOUGH), nobodys_address() as nobody:
        own = {"REDIS_URL": "", "GODOT_DATA_DIR": str(pipeline.place.data)}
        godot = await pipeline.godot(nobody, GODOT_DRAIN_S=0, **own)
        async with connect(godot.mcp) as peer:
            await peer.log_batch([f"entry {n}" for n in range(500)])
            await peer.status_with(received=500)
        assert await godot.stop() == 0
        assert pipeline.place.processes() == [], "its Redis ends with it"

        godot = await pipeline.godot(**own)
        async with connect(godot.mcp) as peer:
            await peer.status_with(received=500, stored=500)
        assert stored_messages(pipeline.database) == [f"entry {n}" for n in range(500)]


async def test_a_status_line_is_written_at_every_interval(pipeline: Pipeline) -> None:
    """MAINT-001: logfmt, with what `logger_status` answers; MAINT-002: nothing of Godot's own is in the log."""
    with trio.fail_after(ENOUGH):
        godot = await pipeline.godot(GODOT_STATUS_S="0.2")
        async with connect(godot.mcp) as peer:
            await peer.log_batch(["one", "two", "three"])
            status = await peer.status_with(stored=3)
        seen = len(godot.events("status"))
        line = await godot.event("status", seen + 2)
        shown = {name: str(value).lower() if value is True else str(value) for name, value in status.items()}
        assert {name: line[name] for name in status} == shown
        assert all(line["time"].endswith("Z") for line in godot.events())
        assert len(pipeline.stored()) == 3


async def test_of_150000_entries_sent_while_dewey_is_down_the_newest_100000_are_stored(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    """TEST-007, GOD-005, PERF-003: 50,000 are reported dropped, and the queue never exceeds its bound."""
    connections, size = 5, 1_000
    rounds = MANY // (connections * size)
    begun = trio.current_time()
    with trio.fail_after(3 * ENOUGH):
        dewey = await pipeline.dewey()
        godot = await pipeline.godot(dewey.mcp)
        assert await dewey.stop() == 0
        lengths: list[int] = []

        async def watch() -> None:
            while True:
                lengths.append(len(pipeline.queue))
                await trio.sleep(0.005)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            peers = [await nursery.start(hold_connection, godot.mcp) for _ in range(connections)]
            for number in range(rounds):  # a round after the other, so that it is known which are the newest
                async with trio.open_nursery() as clients:
                    for client, peer in enumerate(peers):
                        clients.start_soon(peer.log_batch, [f"{number} {client} {n}" for n in range(size)])
            sent = trio.current_time() - begun
            status = await peers[0].status_with(received=MANY, queued=BOUND)
            assert (status["dropped"], status["dewey"]) == (MANY - BOUND, "down")

            await pipeline.dewey(dewey.mcp)
            status = await peers[0].status_with(stored=BOUND + 1, queued=0, in_flight=0)  # one tells of the hole
            nursery.cancel_scope.cancel()
        assert (status["received"], status["dropped"], status["dead"]) == (MANY + 1, MANY - BOUND, 0)
        assert max(lengths) == BOUND
        took = trio.current_time() - begun

        assert await godot.stop() == 0
        assert_drops_are_told(pipeline, godot)
        newest = range(rounds - BOUND // (connections * size), rounds)
        expected = {f"{number} {client} {n}" for number in newest for client in range(connections) for n in range(size)}
        stored = stored_messages(pipeline.database)
        assert len(stored) == len(expected) == BOUND
        assert set(stored) == expected
        for client in range(connections):
            own = [message for message in stored if message.split()[1] == str(client)]
            assert own == [f"{number} {client} {n}" for number in newest for n in range(size)], "in order"
    with capsys.disabled():
        print(f"\n150,000 entries: sent after {sent:.1f} s, the newest 100,000 stored after {took:.1f} s")  # noqa: T201


def assert_drops_are_told(pipeline: Pipeline, godot: Program) -> None:
    """Look for what was dropped in the lines of the daemon, and in the entry that stands where the gap is."""
    (dropping,) = godot.events("dropping")
    assert str(BOUND) in dropping["reason"]
    assert int(dropping["dropped"]) > 0
    ended = godot.events("dropping_ended")[0]
    assert int(ended["dropped"]) == int(ended["dropped_meanwhile"]) == MANY - BOUND
    assert godot.events("stopped")[0]["dropped"] == str(MANY - BOUND)

    ((message, data, before),) = select(
        pipeline.database,
        "SELECT message, data, (SELECT count(*) FROM logs AS other WHERE other.created_at < logs.created_at) "
        "FROM logs WHERE component = 'godot' AND level = 'WARN'",
    )
    assert message.startswith("50,000 entries are missing")
    assert (data["dropped"], data["components"], data["others"]) == (MANY - BOUND, {"gates": MANY - BOUND}, 0)
    assert before == 0


async def hold_connection(url: str, *, task_status: trio.TaskStatus[Peer]) -> None:
    """Keep a connection open until cancelled."""
    async with connect(url) as peer:
        task_status.started(peer)
        await trio.sleep_forever()
