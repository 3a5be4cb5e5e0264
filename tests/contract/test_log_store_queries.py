"""What every `LogStore` answers to a query."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dewey_logs.places import Cursor
from dewey_logs.postgres import PostgresStore
from dewey_logs.query import Query
from dewey_logs.store.batch import Batch
from dewey_logs.store.memory import MemoryStore
from dewey_logs.store.protocol import LogStore
from godot.entries.levels import LEVELS
from tests.contract.log_stores import at, messages
from tests.fakes import entry
from tests.postgres_servers import Database


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"trace_id": "11111111-2222-4333-8444-555555555555"}, "bd"),
        ({"trace_id": "11111111222243338444555555555555"}, "bd"),
        ({"component": "dewey"}, "cd"),
        ({"component": "Dewey"}, ""),
        ({"level": "ERROR"}, "a"),
        ({"level": "info"}, "abc"),
        ({"level": "TRACE"}, "abcde"),
        ({"start_time": at(2)}, "cde"),
        ({"end_time": at(2)}, "ab"),
        ({"start_time": at(1), "end_time": at(1.000001)}, "b"),
        ({"search": "call"}, "bd"),
        ({"search": "tools/call"}, "b"),
        ({"search": "SERVER"}, "c"),
        ({"search": "server.js"}, "c"),
        ({"search": '"for server"'}, "c"),
        ({"search": '"server for"'}, ""),
        ({"search": "call -tools"}, "d"),
        ({"search": "server or tools/call"}, "bc"),
        ({"search": "serv"}, ""),
        ({"search": "11 20"}, "e"),
        ({"search": "5"}, "e"),
        ({"search": "html"}, "e"),
        ({"search": "0193a1b2-7c3d-4e4f"}, "e"),
        ({"component": "dewey", "level": "INFO", "search": "failed"}, "c"),
        ({"order": "newest", "limit": 2}, "ed"),
        ({"order": "oldest", "limit": 2}, "ab"),
        (dict.fromkeys(["trace_id", "component", "level", "start_time", "end_time", "search", "cursor"]), "abcde"),
    ],
)
async def test_each_filter_alone_and_some_together(store: LogStore, filters: dict[str, Any], expected: str) -> None:
    """DEW-006."""
    trace = "11111111-2222-4333-8444-555555555555"
    texts = {
        "a": ("relay", "ERROR", "boom", None),
        "b": ("relay", "WARN", "slow tools/call", trace),
        "c": ("dewey", "INFO", "failed for server.js", None),
        "d": ("dewey", "DEBUG", "call of the tools", trace),
        "e": ("gates", "TRACE", "2026-11-20 <html> x=-5 &amp; id 0193a1b2-7c3d-4e4f-8a9b-0123456789ab", None),
    }
    if filters.get("search") == "call -tools":
        texts["d"] = ("dewey", "DEBUG", "call of duty", trace)
    letters = {}
    for number, (letter, (component, level, message, trace_id)) in enumerate(texts.items()):
        sent = entry(message, component=component, level=level, trace_id=trace_id, created_at=at(number))
        letters[sent.id] = letter
        await store.store(Batch.of_entries([sent]))
    page = await store.query(Query.parse(**{"order": "oldest", **filters}))
    assert "".join(letters[each.id] for each in page.entries) == expected


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"component": ["relay", "gates-2"]}, "ac"),
        ({"component": "gates*"}, "bc"),
        ({"component": ["gates-*", "relay"]}, "ac"),
        ({"component": "*"}, "abcde"),
        ({"component": "*a*s"}, "b"),
        ({"component": "Gates*"}, ""),
        ({"component": "100%_*"}, "d"),
        ({"component": ["100*", "back\\*"]}, "de"),
        ({"component": "ga_es*"}, ""),
        ({"contains": "OOL AVAIL"}, "a"),
        ({"contains": "100%"}, "b"),
        ({"contains": "_"}, "c"),
        ({"contains": "\\"}, "d"),
        ({"contains": "*"}, ""),
        ({"data": {"method": "tools/call"}}, "ab"),
        ({"data": {"params": {"name": "marco"}}}, "a"),
        ({"data": {"name": "marco"}}, ""),
        ({"data": {"list": [3, {"x": 1}]}}, "c"),
        ({"data": {"list": []}}, "c"),
        ({"data": {"list": 3}}, ""),
        ({"data": {"n": 1.0}}, "d"),
        ({"data": {"n": True}}, ""),
        ({"data": {"n": None}}, ""),
        ({"data": {"nothing": None}}, "d"),
        ({"data": {}}, "abcd"),
        ({"data": {"path": "C:\\udata"}}, "d"),
        ({"data": {"text": "\\u0000 \\ud800"}}, "d"),
        ({"data": {"path": "C:\\ud"}}, ""),
        ({"data": {"method": "tools/call"}, "component": "gates*", "contains": "sold", "level": "INFO"}, "b"),
    ],
)
async def test_names_parts_of_messages_and_data(store: LogStore, filters: dict[str, Any], expected: str) -> None:
    """DEW-006, DEW-007."""
    texts = {
        "a": ("relay", "No such tool available", {"method": "tools/call", "params": {"name": "marco", "n": 1}}),
        "b": ("gates", "100% sold", {"method": "tools/call", "params": {"name": "polo"}}),
        "c": ("gates-2", "snake_case", {"list": [1, [2], 3, {"x": 1, "y": 2}]}),
        "d": ("100%_x", "C:\\temp", {"n": 1, "nothing": None, "path": "C:\\udata", "text": "\\u0000 \\ud800"}),
        "e": ("back\\slash", "nothing here", None),
    }
    sent = {
        letter: entry(message, component=component, data=data) for letter, (component, message, data) in texts.items()
    }
    await store.store(Batch.of_entries(list(sent.values())))
    letters = {each.id: letter for letter, each in sent.items()}
    page = await store.query(Query.parse(**filters))
    assert "".join(sorted(letters[each.id] for each in page.entries)) == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ["a"]),
        ({"component": "gates"}, []),
        ({"data": {"list": [3, [2]]}}, ["a"]),
        ({"data": {"list": [4]}}, []),
        ({"contains": "A"}, ["a"]),
        ({"search": "a"}, ["a"]),
    ],
)
async def test_one_entry_is_asked_about_alone(store: LogStore, asked: dict[str, Any], expected: list[str]) -> None:
    """For followers: what is too large to compare a filter with it in the middle of everything else."""
    first, second = (entry(message, data={"list": [1, [2], 3]}, component="relay") for message in "ab")
    await store.store(Batch.of_entries([first, second, entry("a", component="gates", created_at=first.created_at)]))
    alone = Cursor(first.created_at, first.id)
    assert messages(await store.query(attrs.evolve(Query.parse(**asked), only=alone))) == expected


async def test_a_walk_neither_skips_nor_repeats_while_entries_arrive(store: LogStore) -> None:
    """DEW-006. Entries of one instant, and new ones between the pages."""
    walked = [entry(str(number), created_at=at(number // 7)) for number in range(50)]
    await store.store(Batch.of_entries(walked))
    seen: list[str] = []
    after: Cursor | None = None
    for page_number in range(20):
        page = await store.query(Query(limit=7, after=after))
        seen += [each.id for each in page.entries]
        if not page.more:
            break
        after = Cursor(page.entries[-1].created_at, page.entries[-1].id)
        await store.store(Batch.of_entries([entry("newer", created_at=at(1_000 + page_number))]))
    assert seen == [each.id for each in reversed(walked)]


async def test_more_is_said_only_when_there_is_more(store: LogStore) -> None:
    """DEW-006."""
    await store.store(Batch.of_entries([entry(str(number)) for number in range(3)]))
    assert (await store.query(Query(limit=2))).more
    assert not (await store.query(Query(limit=3))).more


async def test_entries_of_an_instant_keep_the_order_of_their_ids(store: LogStore) -> None:
    batch = [entry(str(number), created_at=at(0)) for number in range(20)]
    await store.store(Batch.of_entries(batch[10:]))
    await store.store(Batch.of_entries(batch[:10]))
    found = await store.query(Query(order="oldest"))
    assert messages(found) == [str(number) for number in range(20)]


WORDS = ["alpha", "beta", "Gamma/alpha", "beta.js", "x-1", "tools/call"]
TRACES = ["11111111-2222-4333-8444-555555555555", "21111111-2222-4333-8444-555555555555"]


def searches() -> st.SearchStrategy[str]:
    """Things that people type."""
    term = st.sampled_from(["alpha", "beta", "gamma", "js", "tools/call", '"alpha beta"', "x-1", "1"])
    return st.lists(st.tuples(st.sampled_from(["", "", "-"]), term).map("".join), min_size=1, max_size=3).flatmap(
        lambda terms: st.sampled_from([" ", " or "]).map(lambda join: join.join(terms))
    )


@pytest.fixture
async def both(database: Database) -> AsyncIterator[tuple[LogStore, LogStore]]:
    """The twins, with the same entries, in partitions and out of them."""
    batch = [
        entry(
            f"{WORDS[number % 6]} {WORDS[number // 6 % 6]}",
            component=("relay", "dewey", "gates")[number % 3],
            data=(None, {"a": {"b": number % 4}}, {"a": [number % 2, number % 3], "c": "x"})[number % 7 % 3],
            level=LEVELS[number % 5],
            trace_id=(None, *TRACES)[number // 5 % 3],
            created_at=(datetime.now(UTC) + timedelta(hours=number // 3)).isoformat()[:13] + ":00",
        )
        for number in range(150)
    ]
    with trio.fail_after(60), closing(PostgresStore(database.url)) as postgres:
        await postgres.maintain(ahead_days=1, retention_days=7)
        memory = MemoryStore()
        for each in (memory, postgres):
            await each.store(Batch.of_entries(batch))
        yield memory, postgres


async def test_both_stores_answer_any_query_alike(both: tuple[LogStore, LogStore]) -> None:
    """DEW-006: any combination of filters, and the pages behind the first."""
    memory, postgres = both
    everything = (await memory.query(Query(limit=1_000))).entries
    times = st.sampled_from([each.created_at for each in everything])
    queries = st.fixed_dictionaries(
        {},
        optional={
            "trace_id": st.sampled_from(TRACES),
            "component": st.sampled_from(["relay", "dewey", "*e*", ["gates", "r*"]]),
            "contains": st.sampled_from(["ETA.", "a/alp", "x-1 b"]),
            "data": st.sampled_from([{"a": {"b": 1}}, {"a": [1]}, {"a": [0, 2]}, {"c": "x"}, {}]),
            "level": st.sampled_from(LEVELS),
            "search": searches(),
            "limit": st.integers(1, 50),
            "order": st.sampled_from(["newest", "oldest"]),
            "cursor": st.sampled_from(everything).map(lambda each: Cursor(each.created_at, each.id).encode()),
        },
    )
    spans: st.SearchStrategy[dict[str, Any]] = st.one_of(
        times.map(lambda time: {"start_time": time}),
        times.map(lambda time: {"end_time": time}),
        st.lists(times, max_size=2, unique=True).map(
            lambda pair: dict(zip(("start_time", "end_time"), sorted(pair), strict=False))
        ),
    )
    asked: list[Query] = []

    @settings(max_examples=150, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(queries, spans)
    def collect(query: dict[str, Any], span: dict[str, Any]) -> None:
        asked.append(Query.parse(**query, **span))

    collect()
    for query in asked:
        expected, found = await memory.query(query), await postgres.query(query)
        assert [each.id for each in found.entries] == [each.id for each in expected.entries], query
        assert found.more == expected.more, query
