"""Following on real PostgreSQL: transactions that end in another order than they began, and several Deweys."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial

import attrs
import psycopg
import pytest
import trio
import trio.testing

from dewey_logs.follow import Followers
from dewey_logs.places import Place
from dewey_logs.postgres import PostgresStore, following
from dewey_logs.postgres.migrate import migrate, migrations
from dewey_logs.query import LONG, READ_CHARS, Query, read_back
from dewey_logs.reading import Tail
from dewey_logs.store.batch import Batch
from dewey_logs.store.protocol import ENOUGH_BYTES
from godot.entries.entry import IdSource
from godot.errors import EntryRejected
from tests.fakes import entry
from tests.postgres_servers import Database, Server, binaries, running_server

ids = IdSource()

ENOUGH = 60


async def test_nothing_is_left_out_when_a_transaction_ends_later_than_those_after_it(postgres: Server) -> None:
    with trio.fail_after(ENOUGH), Database(postgres) as database, closing(PostgresStore(database.url)) as store:
        start = (await store.follow(None, 0)).head
        with closing(psycopg.connect(database.url)) as slow:
            slow.execute(
                "INSERT INTO logs (id, component, level, message, created_at) "
                "VALUES (gen_random_uuid(), 'another', 'INFO', 'slow', now())"
            )
            await store.store(Batch.of_entries([entry("fast")]))
            meanwhile = await store.follow(start, 10)
            assert meanwhile.entries == [], "what comes before it may still come"
            slow.commit()
        after = await store.follow(meanwhile.head, 10)
        assert [each.message for _, each in after.entries] == ["slow", "fast"]


async def test_two_deweys_that_store_at_once_are_followed_without_gap_or_repetition(postgres: Server) -> None:
    """And over a restart of one's own: a cursor belongs to the database."""
    with trio.fail_after(ENOUGH), ExitStack() as stack:
        database = stack.enter_context(Database(postgres))
        stores = [stack.enter_context(closing(PostgresStore(database.url))) for _ in range(2)]
        followers = [Followers(store) for store in stores]
        expected: list[str] = []
        read: list[str] = []
        begun = await followers[0].tail(Query(), None, last=0, wait_s=0)
        rng = random.Random(7)

        async def write(number: int) -> None:
            for batch in range(40):
                messages = [f"{number} {batch} {each}" for each in range(rng.randrange(1, 60))]
                expected.extend(messages)
                await stores[number].store(Batch.of_entries([entry(message) for message in messages]))
                followers[number].note_stored()

        async def follow() -> None:
            place = begun.place.encode(begun.identity)
            turn = 0
            while True:
                page = await followers[turn % 2].tail(Query(limit=rng.randrange(1, 100)), place, last=0, wait_s=0.2)
                read.extend(each.message for _, each in page.entries)
                place = page.place.encode(page.identity)
                if done.is_set() and not page.entries:
                    return
                turn += rng.random() < 0.3

        done = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            async with trio.open_nursery() as writers:
                writers.start_soon(write, 0)
                writers.start_soon(write, 1)
            done.set()
        assert sorted(read) == sorted(expected)
        for number in range(2):
            mine = [message for message in read if message.startswith(f"{number} ")]
            assert mine == [message for message in expected if message.startswith(f"{number} ")]


SLOW_INSERT = (
    "INSERT INTO logs (id, component, level, message, created_at) "
    "VALUES (gen_random_uuid(), 'another', 'INFO', {message}, now())"
)


@pytest.mark.parametrize("elsewhere", ["another database", "another table", "another partition", "a long report"])
async def test_whoever_has_a_transaction_open_that_stores_nothing_holds_up_no_follower(
    postgres: Server, elsewhere: str
) -> None:
    with (
        trio.fail_after(ENOUGH),
        Database(postgres) as database,
        Database(postgres, template="template1") as other,
        closing(PostgresStore(database.url)) as store,
    ):
        await store.maintain(ahead_days=1, retention_days=1)
        database.execute("CREATE TABLE theirs (a int)")
        start = (await store.follow(None, 0)).head
        with closing(psycopg.connect(other.url if elsewhere == "another database" else database.url)) as open_for_ever:
            open_for_ever.execute("SELECT pg_current_xact_id()")
            if elsewhere == "another table":
                open_for_ever.execute("INSERT INTO theirs VALUES (1)")
            elif elsewhere == "another partition":
                open_for_ever.execute("DELETE FROM logs_default")
            elif elsewhere == "a long report":
                open_for_ever.execute("SELECT count(*) FROM logs")
            for number in range(3):
                await store.store(Batch.of_entries([entry(f"{number}")]))
                followed = await store.follow(start, 10)
                assert [each.message for _, each in followed.entries] == [str(each) for each in range(number + 1)]


async def test_a_transaction_that_wrote_something_else_first_is_not_missed(postgres: Server) -> None:
    """It has had its id for long when it stores an entry."""
    with trio.fail_after(ENOUGH), Database(postgres) as database, closing(PostgresStore(database.url)) as store:
        with closing(psycopg.connect(database.url)) as old:
            old.execute("SELECT pg_current_xact_id()")
            await store.store(Batch.of_entries([entry("one")]))
            head = (await store.follow(None, 0)).head
            old.execute(SLOW_INSERT.format(message="'late'"))
            await store.store(Batch.of_entries([entry("two")]))
            assert (await store.follow(head, 10)).entries == []
            old.commit()
        assert [each.message for _, each in (await store.follow(head, 10)).entries] == ["late", "two"]


async def test_what_is_rolled_back_holds_up_nobody(postgres: Server) -> None:
    with trio.fail_after(ENOUGH), Database(postgres) as database, closing(PostgresStore(database.url)) as store:
        head = (await store.follow(None, 0)).head
        with closing(psycopg.connect(database.url)) as other:
            other.execute(SLOW_INSERT.format(message="'gone'"))
            await store.store(Batch.of_entries([entry("stays")]))
            assert (await store.follow(head, 10)).entries == []
            other.rollback()
            assert [each.message for _, each in (await store.follow(head, 10)).entries] == ["stays"]


async def test_a_head_that_goes_back_takes_no_cursor_with_it(postgres: Server) -> None:
    """As when a writer is slow between looking at the sequence and making that known."""
    with trio.fail_after(ENOUGH), Database(postgres) as database, closing(PostgresStore(database.url)) as store:
        start = (await store.follow(None, 0)).head
        for number in range(5):
            await store.store(Batch.of_entries([entry(str(number))]))
        read = await store.follow(start, 3)
        with closing(psycopg.connect(database.url)) as slow:
            slow.execute("SELECT pg_advisory_xact_lock_shared(396551, %s)", (start.stored_in - 1,))
            assert (await store.follow(None, 0)).head == start
            again = await store.follow(read.head, 10)
            assert (again.entries, again.head) == ([], read.head)
            slow.rollback()
        rest = await store.follow(again.head, 10)
        assert [each.message for _, each in rest.entries] == ["3", "4"]


async def test_writers_of_every_kind_at_once_are_followed_without_gap_or_repetition(postgres: Server) -> None:
    """Old transactions, long ones, and such that are rolled back."""
    with trio.fail_after(ENOUGH), ExitStack() as stack:
        database = stack.enter_context(Database(postgres))
        store = stack.enter_context(closing(PostgresStore(database.url)))
        database.execute("CREATE TABLE theirs (a int)")
        expected: list[str] = []
        read: list[str] = []
        place = (await store.follow(None, 0)).head

        def write(number: int) -> None:
            rng = random.Random(number)
            with closing(psycopg.connect(database.url)) as connection:
                for turn in range(60):
                    kept = []
                    if rng.random() < 0.5:
                        connection.execute("INSERT INTO theirs VALUES (1)")
                    for part in range(rng.randrange(1, 4)):
                        if rng.random() < 0.3:
                            connection.execute("SELECT pg_sleep(0.005)")
                        connection.execute(SLOW_INSERT.format(message="%s"), (message := f"{number} {turn} {part}",))
                        kept.append(message)
                    if rng.random() < 0.3:
                        connection.rollback()
                    else:
                        connection.commit()
                        expected.extend(kept)

        async def follow() -> None:
            nonlocal place
            while True:
                is_last = done.is_set()
                followed = await store.follow(place, 7)
                read.extend(each.message for _, each in followed.entries)
                place = followed.head
                if is_last and not followed.entries:
                    return

        done = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            async with trio.open_nursery() as writers:
                for number in range(4):
                    writers.start_soon(partial(trio.to_thread.run_sync, write, number))
            done.set()
        assert len(read) == len(set(read))
        assert sorted(read) == sorted(expected)


async def test_a_cursor_from_before_the_numbers_goes_on_where_it_was(postgres: Server) -> None:
    with trio.fail_after(ENOUGH), Database(postgres, template="template1") as database:
        with closing(psycopg.connect(database.url, autocommit=True)) as connection:
            migrate(connection, migrations()[:7])
            connection.execute(SLOW_INSERT.format(message="'seen'"))
            ((head, identity),) = connection.execute(
                "SELECT pg_snapshot_xmin(pg_current_snapshot())::text, system_identifier::text FROM pg_control_system()"
            )
            cursor = Place(int(head)).encode(identity)
            connection.execute(SLOW_INSERT.format(message="'not seen'"))
            migrate(connection)
        with closing(PostgresStore(database.url)) as store:
            await store.store(Batch.of_entries([entry("new")]))
            tail = await Followers(store).tail(Query(), cursor, last=0, wait_s=0)
            assert [each.message for _, each in tail.entries] == ["not seen", "new"]


@pytest.fixture
def mortal() -> Iterator[Server]:
    """A server that the test may take back in time."""
    with running_server(next(reversed(binaries().values()))) as server:
        yield server


async def test_a_cursor_is_refused_by_a_database_that_went_back_in_time(mortal: Server) -> None:
    """Restored to a moment, or taken over by a standby: what it knew of the future is not what happened."""
    with trio.fail_after(ENOUGH):
        database = Database(mortal)
        with closing(PostgresStore(database.url)) as store:
            begun = await Followers(store).tail(Query(), None, last=0, wait_s=0)
            await store.store(Batch.of_entries([entry("before")]))
        mortal.recover()
        with closing(PostgresStore(database.url)) as store:
            with pytest.raises(EntryRejected, match="taken over by a standby; begin again without it"):
                await Followers(store).tail(Query(), begun.place.encode(begun.identity), last=0, wait_s=0)
            assert (await store.follow(Place(0), 10)).entries


@pytest.mark.parametrize("followed", [False, True])
async def test_a_cursor_is_refused_that_is_ahead_of_a_database_from_a_backup(postgres: Server, followed: bool) -> None:
    with trio.fail_after(ENOUGH), Database(postgres) as database, closing(PostgresStore(database.url)) as store:
        before = str(database.value("SELECT last_value FROM log_order"))
        await store.store(Batch.of_entries([entry("one")]))
        await store.store(Batch.of_entries([entry("two")]))
        ahead = await Followers(store).tail(Query(), None, last=0, wait_s=0)
        database.execute(f"TRUNCATE logs; SELECT setval('log_order', {before})")
        followers = Followers(store)
        now = (await followers.tail(Query(), None, last=0, wait_s=0)).place
        async with trio.open_nursery() as nursery:
            if followed:
                nursery.start_soon(partial(followers.tail, Query(), now.encode(ahead.identity), last=0, wait_s=30))
                await trio.testing.wait_all_tasks_blocked(0.1)  # shorter than POLL_S
            with pytest.raises(EntryRejected, match="restored"):
                await followers.tail(Query(), ahead.place.encode(ahead.identity), last=0, wait_s=0)
            nursery.cancel_scope.cancel()


def test_columns_are_made_as_rows_are_fetched_and_not_all_before_the_first(postgres: Server) -> None:
    """Data of a thousand entries that are not read is not written out."""
    with Database(postgres) as database, closing(psycopg.connect(database.url)) as connection:
        place = {"stored_in": "0", "created_at": "", "id": "", "head": "9", "limit": 1_000}
        for statement, values in (
            (read_back(following._CHOSEN, following._IN_ORDER, LONG), place),
            (read_back(following._CHOSEN, following._IN_ORDER, frozenset()), place),
            Query().to_sql(),
            Query(long=frozenset()).to_sql(),
        ):
            plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {statement}".encode(), values))
            above, limit, _ = plan.partition("Limit")
            assert limit
            assert "Sort" not in above, plan


SLOW_TO_READ = """
CREATE FUNCTION public.left(value text, chars integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF value LIKE '%slow%' THEN PERFORM pg_sleep(1000); END IF;
    RETURN pg_catalog.left(value, chars);
END $$;
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog', current_database()); END $$;
"""
"""Data that takes for ever to be written out, as numbers once did of which PostgreSQL writes every digit."""


async def test_an_entry_that_cannot_be_read_in_time_keeps_nobody_from_what_comes_behind_it(postgres: Server) -> None:
    """Every follower and every query that met it failed, for ever."""
    with trio.fail_after(ENOUGH), Database(postgres) as database:
        with closing(PostgresStore(database.url)) as store:
            begun = await Followers(store).tail(Query(), None, last=0, wait_s=0)
            await store.store(Batch.of_entries([entry("before")]))
            await store.store(Batch.of_entries([attrs.evolve(entry("it"), data={"it is": "slow"})]))
            await store.store(Batch.of_entries([entry("behind")]))
        database.execute(SLOW_TO_READ)
        with closing(PostgresStore(database.url, query_timeout_s=2)) as store:
            followers = Followers(store)
            read: list[str] = []
            place = begun.place
            while len(read) < 3:
                page = await followers.tail(Query(), place.encode(begun.identity), last=0, wait_s=1)
                assert page.entries
                read += [each.message for _, each in page.entries]
                assert [each.message for _, each in page.entries if each.unread] in ([], ["it"])
                place = page.place
            assert read == ["before", "it", "behind"]
            asked = Query.parse(data={"it is": "slow"})
            found = await followers.tail(asked, begun.place.encode(begun.identity), last=0, wait_s=20)
            assert [each.message for _, each in found.entries] == ["it"]

            newest = await store.query(Query())
            assert ([each.message for each in newest.entries], newest.more) == (["behind"], True)
            with pytest.raises(EntryRejected, match="leave data out with fields"):
                await store.query(Query.parse(data={"it is": "slow"}))
            all_of_them = await store.query(Query(long=frozenset({"message"})))
            assert [each.message for each in all_of_them.entries] == ["behind", "it", "before"]


async def test_forty_who_are_behind_entries_of_15_mb_do_not_fill_the_memory(postgres: Server) -> None:
    """Four of them took 3 GB; and none of them got any further."""
    with trio.fail_after(2 * ENOUGH), Database(postgres) as database, closing(PostgresStore(database.url)) as store:
        begun = (await store.follow(None, 0)).head
        large = "repeat('lorem ipsum ', 1300000)"
        database.execute(";".join([SLOW_INSERT.format(message=large)] * 20))
        followers = Followers(store)
        max_bytes = 200_000
        identity = (await store.follow(None, 0)).identity
        pages: list[Tail] = []

        async def follow(number: int) -> None:
            query = Query(limit=1_000)
            pages.append(
                await followers.tail(
                    query, begun.encode(identity), last=0, wait_s=50, max_bytes=max_bytes, who=str(number)
                )
            )

        tracemalloc.start()
        try:
            async with trio.open_nursery() as nursery:
                for number in range(40):
                    nursery.start_soon(follow, number)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert [len(page.entries) for page in pages] == [1] * 40
        assert all(page.place > begun for page in pages)
        assert peak < 2 * 40 * max_bytes + 10 * (ENOUGH_BYTES + READ_CHARS)


def test_who_inserts_around_the_order_is_told_so(postgres: Server) -> None:
    with Database(postgres) as database:
        database.execute(SLOW_INSERT.format(message="'well'"))
        with pytest.raises(psycopg.Error, match=r"godot\.log_order"):
            database.execute(SLOW_INSERT.format(message="'around'").replace("logs", "logs_default"))
