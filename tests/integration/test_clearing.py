"""Clearing on real PostgreSQL: days go at once, others go on meanwhile, and what was done is noted."""

from __future__ import annotations

from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import trio

from dewey_logs.clearing import Clearing
from dewey_logs.postgres import PostgresStore, upkeep
from dewey_logs.postgres import clearing as clearing_module
from dewey_logs.query import Query
from dewey_logs.store.batch import Batch
from godot.entries.entry import IdSource, admit_json
from godot.errors import StoreBusy
from tests.postgres_servers import Database, Server
from tests.programs import until

ENOUGH = 60
MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
BEFORE_TODAY = Clearing(before=MIDNIGHT.isoformat())

ids = IdSource()

FILL = """
INSERT INTO logs (id, trace_id, component, level, message, created_at)
SELECT gen_random_uuid(), md5((n % 500)::text)::uuid, 'c' || n % 3, 'INFO', 'entry ' || n,
       timestamptz '{start}' + n * interval '1 day' / 10000
FROM generate_series(0, {count} - 1) AS n
"""


async def fill(stack: ExitStack, database: Database, days: int) -> PostgresStore:
    """Make a store with 10,000 entries on each of the days before today, in their partitions."""
    store = stack.enter_context(closing(PostgresStore(database.url)))
    start = MIDNIGHT - timedelta(days=days)
    database.execute(FILL.format(start=start.isoformat(), count=days * 10_000))
    await store.maintain(ahead_days=1, retention_days=days)
    return store


async def test_whole_days_are_dropped_and_noted(postgres: Server) -> None:
    """DEW-009."""
    with trio.fail_after(ENOUGH), ExitStack() as stack:
        database = stack.enter_context(Database(postgres))
        store = await fill(stack, database, 3)
        trace = str(database.value("SELECT md5('7')::uuid::text"))
        await store.pin(trace, note="", until=None, by="me")
        before = database.value(
            "SELECT array_agg(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'logs'::regclass"
        )
        assert isinstance(before, list)
        assert await store.clear(BEFORE_TODAY, by="10.0.0.3:41000", said_by="me") == 30_000 - 60
        partitions = database.value(
            "SELECT array_agg(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'logs'::regclass"
        )
        assert isinstance(partitions, list)
        gone = {f"logs_{MIDNIGHT - timedelta(days=day):%Y_%m_%d}" for day in (1, 2, 3)}
        assert set(before) - set(partitions) == gone
        assert database.execute("SELECT count(*), count(DISTINCT trace_id) FROM logs") == [(60, 1)]
        assert database.value("SELECT sum(entries) FROM log_counts") == 60
        ((by, said_by, filters, deleted),) = database.execute(
            "SELECT cleared_by, said_by, filters, deleted FROM log_clears"
        )
        assert (by, said_by, deleted) == ("10.0.0.3:41000", "me", 30_000 - 60)
        assert filters == {"before_time": MIDNIGHT.isoformat()}
        # What stays of a day finds its partition again when there is one.
        assert (await store.maintain(ahead_days=1, retention_days=3)).moved == 60
        assert await store.clear(BEFORE_TODAY, by="me") == 0


async def test_others_store_and_read_while_entries_are_deleted_one_by_one(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clearing_module, "CHUNK", 50)
    with trio.fail_after(ENOUGH), ExitStack() as stack:
        database = stack.enter_context(Database(postgres))
        store = await fill(stack, database, 2)
        stored = 0

        async def go_on() -> None:
            nonlocal stored
            while not done.is_set():
                fields = {"component": "c1", "level": "INFO", "message": "new"}
                await store.store(Batch.of_entries([admit_json({"id": ids.next()} | fields, [])]))
                assert (await store.query(Query(limit=1))).entries[0].message == "new"
                stored += 1

        done = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(go_on)
            deleted = await store.clear(attrs_only(component="c0"), by="me")
            done.set()
        assert deleted == 6_667
        assert stored >= 1
        assert database.value("SELECT count(*) FROM logs") == 20_000 - deleted + stored
        assert (await store.stats()).total == 20_000 - deleted + stored
        assert database.value("SELECT deleted FROM log_clears") == deleted


async def test_a_reader_who_takes_his_time_is_waited_for(postgres: Server) -> None:
    with trio.fail_after(ENOUGH), ExitStack() as stack:
        database = stack.enter_context(Database(postgres))
        store = await fill(stack, database, 1)
        reader = stack.enter_context(closing(psycopg.connect(database.url)))
        reader.execute("SELECT count(*) FROM logs")  # and keeps its transaction open

        attempts: set[object] = set()

        def tries_again() -> bool:
            attempts.update(database.execute("SELECT waitstart FROM pg_locks WHERE waitstart IS NOT NULL"))
            return len(attempts) > 1

        async def leave() -> None:
            await until(tries_again)  # PostgreSQL's lock timeout has ended the first attempt
            reader.rollback()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            assert await store.clear(BEFORE_TODAY, by="me") == 10_000


async def test_two_deweys_that_clear_at_once_delete_once(postgres: Server) -> None:
    with trio.fail_after(ENOUGH), ExitStack() as stack:
        database = stack.enter_context(Database(postgres))
        first = await fill(stack, database, 2)
        second = stack.enter_context(closing(PostgresStore(database.url)))
        deleted: list[int] = []

        async def clear(store: PostgresStore, clearing: Clearing) -> None:
            deleted.append(await store.clear(clearing, by="me"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(clear, first, BEFORE_TODAY)
            nursery.start_soon(clear, second, BEFORE_TODAY)
        assert sum(deleted) == 20_000
        assert database.value("SELECT sum(deleted) FROM log_clears") == 20_000


def attrs_only(component: str) -> Clearing:
    return Clearing.parse(retention_days=7, component=component)


async def test_a_reader_of_each_table_in_turn_makes_no_writer_wait_for_longer_than_it_can(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seconds for each of three tables would be more than the five that a batch waits."""
    monkeypatch.setattr(upkeep, "TAKE_ALONE_S", 1.0)
    monkeypatch.setattr(clearing_module, "LOCK_ATTEMPTS", 1)
    with trio.fail_after(ENOUGH), ExitStack() as stack:
        database = stack.enter_context(Database(postgres))
        store = await fill(stack, database, 1)
        day = f"logs_{MIDNIGHT - timedelta(days=1):%Y_%m_%d}"
        readers = [stack.enter_context(closing(psycopg.connect(database.url))) for _ in range(3)]
        for reader, table in zip(readers, ("logs", "logs_default", day), strict=True):
            reader.execute(f"LOCK TABLE ONLY {table} IN ACCESS SHARE MODE".encode())
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{}'::regclass"
        refused: list[StoreBusy] = []

        async def clear() -> None:
            try:
                await store.clear(BEFORE_TODAY, by="me")
            except StoreBusy as exc:
                refused.append(exc)

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clear)
            for reader, table in zip(readers[:2], ("logs", "logs_default"), strict=True):
                while not database.value(waits.format(table)):  # noqa: ASYNC110 - another process decides
                    await trio.sleep(0.01)
                await trio.sleep(0.3)  # the reader takes that long
                reader.rollback()
        assert refused
        whole = trio.current_time() - began
        began = trio.current_time()
        with suppress(StoreBusy):
            await store.clear(BEFORE_TODAY, by="me")  # one that waits for the last table alone
        assert whole < 2 * (trio.current_time() - began)


@pytest.mark.parametrize("kept", [False, True])
async def test_the_days_of_which_something_would_go_are_counted(postgres: Server, kept: bool) -> None:
    with trio.fail_after(ENOUGH), ExitStack() as stack:
        database = stack.enter_context(Database(postgres))
        store = await fill(stack, database, 3)
        if kept:
            trace = str(database.value("SELECT md5('7')::uuid::text"))
            await store.pin(trace, note="", until=None, by="me")
        assert await store.doomed_days(BEFORE_TODAY) == 3
        await store.clear(BEFORE_TODAY, by="me")
        assert await store.doomed_days(BEFORE_TODAY) == 0
