"""Following on real PostgreSQL: transactions that end in another order than they began, and several Deweys."""

from __future__ import annotations

import random
from contextlib import ExitStack, closing

import psycopg
import trio

from dewey_logs.follow import Followers
from dewey_logs.postgres import PostgresStore
from dewey_logs.search import Query
from godot.entries import Entry, IdSource, admit_json
from tests.postgres_fixture import VERSIONS, Database, Server, postgres, servers

__all__ = ["VERSIONS", "postgres", "servers"]

ids = IdSource()

ENOUGH = 60


def entry(message: str) -> Entry:
    return admit_json({"id": ids.next(), "component": "relay", "level": "INFO", "message": message}, [])


async def test_nothing_is_left_out_when_a_transaction_ends_later_than_those_after_it(postgres: Server) -> None:
    with trio.fail_after(ENOUGH), Database(postgres) as database, closing(PostgresStore(database.url)) as store:
        start = (await store.follow(None, 0)).head
        with closing(psycopg.connect(database.url)) as slow:
            slow.execute(
                "INSERT INTO logs (id, component, level, message, created_at) "
                "VALUES (gen_random_uuid(), 'another', 'INFO', 'slow', now())"
            )
            await store.store([entry("fast")])
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
                await stores[number].store([entry(message) for message in messages])
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
