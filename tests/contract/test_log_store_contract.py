"""What every `LogStore` does: the one in memory, and PostgreSQL."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import attrs
import pytest

from dewey_logs.clearing import Clearing
from dewey_logs.places import Cursor
from dewey_logs.query import READ_CHARS, Query
from dewey_logs.store.batch import Batch
from dewey_logs.store.protocol import ENOUGH_BYTES, LogStore, Maintained
from dewey_logs.tools.answers import MOST_MAX_BYTES
from godot.entries.levels import LevelSetting
from godot.errors import BatchRefused
from tests.contract.log_stores import at, messages
from tests.fakes import entry


async def test_an_entry_comes_back_with_every_field(store: LogStore) -> None:
    """DEW-002, DEW-008."""
    trace = str(uuid4())
    sent = entry("hello", trace_id=trace, data={"a": [1, None, "ü"]}, created_at=at(0.123456))
    before = datetime.now(UTC) - timedelta(seconds=1)
    await store.store(Batch.of_entries([sent]))
    (found,) = (await store.query(Query())).entries
    assert (found.id, found.trace_id, found.component) == (sent.id, trace, "relay")
    assert (found.level, found.message) == ("INFO", "hello")
    assert json.loads(found.data or "") == {"a": [1, None, "ü"]}
    assert found.created_at == "2026-11-20T12:00:00.123456Z"
    ingested_at = datetime.fromisoformat(found.ingested_at)
    assert before < ingested_at < datetime.now(UTC) + timedelta(seconds=1)
    assert found.ingested_at.endswith("Z")
    assert len(found.ingested_at) == len(found.created_at)


async def test_age_is_the_seconds_since_it_happened(store: LogStore) -> None:
    """DEW-008."""
    await store.store(Batch.of_entries([entry(created_at=(datetime.now(UTC) - timedelta(hours=1)).isoformat())]))
    (found,) = (await store.query(Query())).entries
    assert 3_600 <= found.age < 3_630


async def test_what_is_null_stays_null(store: LogStore) -> None:
    await store.store(Batch.of_entries([entry(data=None, trace_id=None)]))
    (found,) = (await store.query(Query())).entries
    assert found.data is None
    assert found.trace_id is None


async def test_an_empty_batch_stores_nothing(store: LogStore) -> None:
    stored = await store.store(Batch.of_entries([]))
    assert (stored.stored, stored.duplicates) == (0, 0)


async def test_the_same_batch_again_stores_nothing_twice(store: LogStore) -> None:
    """DEW-004, REL-004."""
    batch = [entry(str(number)) for number in range(10)]
    first = await store.store(Batch.of_entries(batch))
    again = await store.store(Batch.of_entries([*batch, entry("new")]))
    assert (first.stored, first.duplicates) == (10, 0)
    assert (again.stored, again.duplicates) == (1, 10)
    assert len((await store.query(Query())).entries) == 11


async def test_the_same_entry_twice_in_a_batch_is_stored_once(store: LogStore) -> None:
    """MCP-003."""
    twice = entry()
    stored = await store.store(Batch.of_entries([twice, entry(), twice]))
    assert (stored.stored, stored.duplicates) == (2, 1)


async def test_an_id_of_another_kind_is_stored_once_although_its_time_differs(store: LogStore) -> None:
    """A client that sends its own id again without created_at gets a new time each time."""
    foreign = str(uuid4())
    stored = await store.store(Batch.of_entries([entry("first", id=foreign, created_at=at(0))]))
    again = await store.store(
        Batch.of_entries(
            [
                entry("later", id=foreign, created_at=at(86_400 * 3)),
                entry("other"),
                entry("much earlier", id=foreign, created_at="1970-01-01"),
            ]
        )
    )
    assert (stored.stored, stored.duplicates) == (1, 0)
    assert (again.stored, again.duplicates) == (1, 2)
    assert sorted(messages(await store.query(Query()))) == ["first", "other"]


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(
    "times",
    [
        ("2026-11-20T08:00:00Z", "2026-11-20T09:00:00Z", None),
        (None, "2026-11-20T08:00:00Z", "2026-11-21T08:00:00.5Z"),
        ("2026-10-01T08:00:00Z", "1970-01-01", "2026-11-20T08:00:00Z"),
        ("2026-11-20T08:00:00.000001Z", "2026-11-20T08:00:00.000002Z", "2026-11-20T08:00:00Z"),
    ],
)
async def test_a_uuid7_is_stored_once_although_its_client_computes_the_time_anew_at_each_try(
    store: LogStore, times: tuple[str | None, ...], at_once: bool
) -> None:
    """MCP-003: as in a batch, so in a new call each. The first one counts."""
    await store.maintain(ahead_days=1, retention_days=100)
    entry_id = "01a1fb67-5bd0-716c-b208-6b6eb13e7800"
    tries = [entry(f"try {n}", id=entry_id, created_at=time) for n, time in enumerate(times)]
    if at_once:
        await store.store(Batch.of_entries([*tries, entry("other")]))
    else:
        for each in [*tries, entry("other")]:
            await store.store(Batch.of_entries([each]))
    assert sorted(messages(await store.query(Query()))) == ["other", "try 0"]
    assert (await store.stats()).total == 2


async def test_an_id_of_another_kind_twice_in_a_batch_is_stored_once(store: LogStore) -> None:
    foreign = str(uuid4())
    stored = await store.store(Batch.of_entries([entry(str(n), id=foreign, created_at=at(n)) for n in range(3)]))
    assert (stored.stored, stored.duplicates) == (1, 2)
    assert messages(await store.query(Query())) == ["0"]


@pytest.mark.parametrize("created_at", ["1970-01-01T00:00:00Z", "3000-01-01", "0001-01-01", "9999-12-31"])
async def test_any_year_is_stored_and_found(store: LogStore, created_at: str) -> None:
    """DEW-005."""
    await store.store(Batch.of_entries([entry(created_at=created_at), entry()]))
    found = await store.query(Query.parse(start_time=created_at, limit=1, order="oldest"))
    assert found.entries[0].created_at.startswith(created_at[:10])


async def test_nul_and_lone_surrogates_are_replaced_with_a_warning(store: LogStore) -> None:
    """PostgreSQL takes neither."""
    batch = Batch.of_entries([entry(), entry("a\x00b", data={"k\x00": "\ud800"})])
    assert [each.partition(":")[0] for each in batch.warnings] == ["entry 1"]
    await store.store(batch)
    found = (await store.query(Query())).entries[0]
    assert found.message == "a␀b"
    assert json.loads(found.data or "") == {"k␀": "�"}


async def test_a_message_of_2_mb_is_stored_whole_and_found_by_its_beginning(store: LogStore) -> None:
    long = "findme " + " ".join(f"w{number:x}" for number in range(300_000))
    assert len(long) > 2_000_000
    await store.store(Batch.of_entries([entry(long)]))
    (found,) = (await store.query(Query.parse(search="findme"))).entries
    assert (found.message, found.length("message")) == (long[:READ_CHARS], len(long))


@pytest.mark.parametrize(
    "unit",
    ["a-b-c.d/e_f@g.h:80/i?j=k ", "http://h{n:x}.example.com/p{n:x}/q{n:x}.js?x={n:x} ", "{n:x}-{n:x}-z ", "😀{n:x}"],
)
async def test_no_message_is_too_much_for_full_text_search(store: LogStore, unit: str) -> None:
    """A tsvector is limited to 1 MiB of different words."""
    message = "".join(unit.format(n=number) for number in range(2_000_000 // len(unit)))
    assert (await store.store(Batch.of_entries([entry(message)]))).stored == 1


async def test_words_of_every_alphabet_are_not_too_much_either(store: LogStore) -> None:
    """The most different words in the least characters: one of 4 bytes, or two, and a blank."""
    alphabet = [chr(0x20000 + number) for number in range(40_000)]
    assert (await store.store(Batch.of_entries([entry(" ".join(alphabet))]))).stored == 1
    pairs = (first + second for first in alphabet[:200] for second in alphabet[:200])
    assert (await store.store(Batch.of_entries([entry(" ".join(pairs))]))).stored == 1


async def test_all_of_data_comes_back_that_an_answer_can_show(store: LogStore) -> None:
    data = {"tools": [{"name": f"tool {n}", "inputSchema": {"type": "object", "n": n}} for n in range(12_000)]}
    await store.store(Batch.of_entries([entry(data=data)]))
    (found,) = (await store.query(Query())).entries
    assert len(found.data or "") > MOST_MAX_BYTES * 2 / 3
    assert json.loads(found.data or "") == data


@pytest.mark.parametrize("character", ["x", "é", "😀"])
async def test_no_more_of_an_entry_is_read_than_an_answer_can_show(store: LogStore, character: str) -> None:
    assert READ_CHARS > MOST_MAX_BYTES, "so that what is cut is known to be"
    start = (await store.follow(None, 0)).head
    chars = 2_000_000
    await store.store(Batch.of_entries([entry(character * chars, data={"text": character * chars})]))
    ((_, followed),) = (await store.follow(start, 10)).entries
    (found,) = (await store.query(Query())).entries
    for each in followed, found:
        assert (each.message, each.length("message")) == (character * READ_CHARS, chars)
        assert each.data is not None
        assert len(each.data) == READ_CHARS
        assert chars < each.length("data") < chars + 20


async def test_long_fields_that_nobody_wants_are_not_read(store: LogStore) -> None:
    start = (await store.follow(None, 0)).head
    await store.store(Batch.of_entries([entry("message", data={"a": 1}, component="relay")]))
    for long, expected in (
        (frozenset(), ("", None)),
        (frozenset({"message"}), ("message", None)),
        (frozenset({"data"}), ("", {"a": 1})),
    ):
        ((_, followed),) = (await store.follow(start, 10, long)).entries
        (found,) = (await store.query(Query(long=long))).entries
        for each in followed, found:
            assert (each.message, each.data and json.loads(each.data)) == expected
            assert each.component == "relay"


async def test_a_page_of_large_entries_ends_when_it_is_large_enough_and_the_next_goes_on(store: LogStore) -> None:
    """A reader that was behind once got a thousand of them at once."""
    start = (await store.follow(None, 0)).head
    entries = [entry(f"{number}" * 700_000, component=f"{number}") for number in range(9)]
    await store.store(Batch.of_entries(entries))
    most = ENOUGH_BYTES + 2 * 700_000
    read: list[str] = []
    place, more = start, True
    while more:
        page = await store.follow(place, 1_000)
        assert page.entries
        assert sum(each.size_bytes for _, each in page.entries) < most
        read += [each.component for _, each in page.entries]
        place, more = page.head, page.more
    assert sorted(read) == [f"{number}" for number in range(9)]
    assert place >= (await store.follow(None, 0)).head
    found: list[str] = []
    query = Query(limit=1_000)
    while True:
        walked = await store.query(query)
        assert sum(each.size_bytes for each in walked.entries) < most
        found += [each.component for each in walked.entries]
        if not walked.more:
            break
        query = attrs.evolve(query, after=Cursor(walked.entries[-1].created_at, walked.entries[-1].id))
    assert sorted(found) == sorted(read)


async def test_numbers_come_back_exactly(store: LogStore) -> None:
    data = {"big": 2**200 + 1, "neg": -(2**64) - 1, "float": 0.1, "long": 10**1_000 + 7}
    await store.store(Batch.of_entries([entry(data=data)]))
    (found,) = (await store.query(Query())).entries
    assert json.loads(found.data or "") == data


async def test_deeply_nested_data_is_stored_or_named(store: LogStore) -> None:
    """DEW-003."""
    deep: dict[str, Any] = {}
    for _ in range(400):
        deep = {"a": deep}
    assert (await store.store(Batch.of_entries([entry(data=deep)]))).stored == 1
    for _ in range(5_000):
        deep = {"a": deep}
    with pytest.raises(BatchRefused) as caught:
        await store.store(Batch.of_entries([entry(), entry(data=deep)]))
    ((index, fault),) = caught.value.faults
    assert index == 1
    assert fault.startswith("data: nested")
    assert len((await store.query(Query())).entries) == 1


async def test_statistics_are_exact_after_every_batch(store: LogStore) -> None:
    """DEW-010."""
    empty = await store.stats()
    assert (empty.total, empty.oldest, empty.newest) == (0, None, None)
    batch = [
        entry(component="relay", level="ERROR", created_at=at(0)),
        entry(component="relay", level="INFO", created_at=at(1)),
        entry(component="gates", level="INFO", created_at=at(86_400)),
        entry(component="gates", level="INFO", created_at="1970-01-01"),
    ]
    await store.store(Batch.of_entries(batch[:2]))
    assert (await store.stats()).total == 2
    await store.store(Batch.of_entries([*batch, batch[3]]))
    await store.store(Batch.of_entries([]))
    found = await store.stats()
    assert found.total == 4
    assert found.by_component == {"relay": 2, "gates": 2}
    assert found.by_level == {"ERROR": 1, "INFO": 3}
    assert found.oldest == "1970-01-01T00:00:00.000000Z"
    assert found.newest == "2026-11-21T12:00:00.000000Z"
    assert found.size_bytes > empty.size_bytes or found.size_bytes > 10_000


async def test_statistics_stay_when_entries_move_to_their_partition(store: LogStore) -> None:
    """DEW-010, DEW-005."""
    now = datetime.now(UTC)
    await store.store(
        Batch.of_entries([entry(created_at=(now + timedelta(days=day)).isoformat()) for day in (0, -1, -3, -30)])
    )
    before = await store.stats()
    assert (await store.maintain(ahead_days=1, retention_days=7)).moved == 3
    after = await store.stats()
    assert (after.total, after.by_component) == (4, before.by_component)
    assert (after.oldest, after.newest) == (before.oldest, before.newest)


PINNED = "0af76519-16cd-43dd-8448-eb211c80319c"
OTHER = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"


async def left(store: LogStore) -> list[str]:
    return messages(await store.query(Query(order="oldest")))


async def fill_days(store: LogStore) -> datetime:
    """Store an entry a level and a component on each of four days, in partitions; return the midnight before today."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    batch = [
        entry(
            f"{days} {component} {level}",
            component=component,
            level=level,
            trace_id=PINNED if (days, component) == (3, "gates") else OTHER if days == 2 else None,
            created_at=(midnight + timedelta(hours=12 - 24 * days)).isoformat(),
        )
        for days in (4, 3, 2, 1)
        for component in ("relay", "gates")
        for level in ("ERROR", "INFO", "DEBUG")
    ]
    await store.store(Batch.of_entries(batch))
    await store.maintain(ahead_days=1, retention_days=3)  # of the fourth day there is no partition
    return midnight


@pytest.mark.parametrize(
    ("asked", "stays"),
    [
        ({"before_time": "-2d12h"}, None),
        ({"component": "relay"}, lambda day, component, level: component == "gates"),
        ({"component": ["rel*", "nobody"]}, lambda day, component, level: component == "gates"),
        ({"level": "INFO"}, lambda day, component, level: level == "ERROR"),
        (
            {"level": "INFO", "component": "gates"},
            lambda day, component, level: component == "relay" or level == "ERROR",
        ),
        ({"level": "TRACE"}, lambda day, component, level: True),
        (
            {"exclude_trace_id": [OTHER, PINNED], "level": "ERROR"},
            lambda day, component, level: day == 2 or (day, component) == (3, "gates"),
        ),
    ],
)
async def test_what_is_cleared_goes_and_nothing_else(store: LogStore, asked: dict[str, Any], stays: Any) -> None:
    """DEW-009."""
    midnight = await fill_days(store)
    if stays is None:
        asked = {"before_time": (midnight - timedelta(days=1)).isoformat()}
        stays = lambda day, component, level: day == 1  # noqa: E731
    clearing = Clearing.parse(retention_days=7, **asked)
    before = await left(store)
    expected = [each for each in before if stays(int(each[0]), *each.split()[1:])]
    assert await store.clear(clearing, by="a test", dry_run=True) == len(before) - len(expected)
    assert await left(store) == before
    assert await store.clear(clearing, by="a test") == len(before) - len(expected)
    assert await left(store) == expected
    assert (await store.stats()).total == len(expected)
    assert await store.clear(clearing, by="a test") == 0
    await store.maintain(ahead_days=1, retention_days=3)
    assert (await store.stats()).total == len(expected)


async def test_a_pinned_trace_survives_until_its_pin_ends(store: LogStore) -> None:
    """DEW-009: whole days go, and what is pinned of them stays."""
    midnight = await fill_days(store)
    await store.pin(PINNED, note="why", until=None, by="a test")
    await store.pin(OTHER, note="", until=(midnight - timedelta(days=9)).isoformat(), by="a test")
    (pin,) = await store.pins()
    assert (pin.trace_id, pin.note, pin.until) == (PINNED, "why", None)
    everything = Clearing(before=(midnight + timedelta(days=1)).isoformat())
    assert await store.clear(everything, by="a test", dry_run=True) == 21
    assert await store.clear(everything, by="a test") == 21
    assert await left(store) == ["3 gates ERROR", "3 gates INFO", "3 gates DEBUG"]
    assert (await store.stats()).by_component == {"gates": 3}
    await store.store(Batch.of_entries([entry("late", trace_id=PINNED, created_at=midnight.isoformat())]))
    await store.maintain(ahead_days=1, retention_days=7)
    assert await store.clear(everything, by="a test") == 0
    await store.pin(PINNED, note="now", until=(midnight + timedelta(days=30)).isoformat(), by="a test")
    (again,) = await store.pins()
    assert (again.note, again.pinned_at) == ("now", pin.pinned_at)
    assert again.until is not None
    await store.unpin(PINNED)
    assert await store.pins() == []
    assert await store.clear(everything, by="a test") == 4
    assert (await store.stats()).total == 0


async def test_levels_are_kept_and_go_back_by_themselves(store: LogStore) -> None:
    """DEW-011."""
    now = datetime.now(UTC)
    over, later = ((now + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ") for seconds in (-1, 600))
    assert await store.levels() == {}
    assert await store.set_level("relay", "INFO", until=None, by="a test") is None
    assert await store.set_level("relay", "TRACE", until=later, by="a test") == "INFO"
    assert await store.set_level("*", "WARN", until=later, by="a test") is None
    assert await store.levels() == {
        "*": LevelSetting("WARN", later, None),
        "relay": LevelSetting("TRACE", later, "INFO"),
    }
    assert await store.set_level("relay", "DEBUG", until=over, by="a test") == "TRACE"
    assert await store.set_level("*", "ERROR", until=over, by="a test") == "WARN"
    assert await store.levels() == {"relay": LevelSetting("INFO")}
    assert await store.set_level("relay", None, until=later, by="a test") == "INFO"
    assert await store.levels() == {"relay": LevelSetting(None, later, "INFO")}
    assert await store.set_level("relay", None, until=None, by="a test") is None
    assert await store.levels() == {}


async def test_entries_are_followed_in_the_order_in_which_they_were_stored(store: LogStore) -> None:
    """However old they are, and each once."""
    await store.store(Batch.of_entries([entry("before")]))
    start = await store.follow(None, 0)
    assert start.entries == ()
    old, same = entry("old", created_at="1970-01-01"), entry("same")
    await store.store(Batch.of_entries([same]))
    await store.store(Batch.of_entries([old, same]))
    await store.store(Batch.of_entries([]))
    await store.store(Batch.of_entries([entry("third", created_at=at(1)), entry("second", created_at=at(0))]))
    followed = await store.follow(start.head, 10)
    assert [each.message for _, each in followed.entries] == ["same", "old", "second", "third"]
    assert followed.identity == start.identity
    places = [place for place, _ in followed.entries]
    assert places == sorted(places)
    assert start.head <= places[0]
    assert places[-1] <= followed.head
    assert await store.count_after(start.head, 3) == 3
    assert await store.count_after(places[0], 10) == 3

    read = []
    place = start.head
    while (page := await store.follow(place, 1)).entries:
        read += [each.message for _, each in page.entries]
        place = page.head
    assert read == ["same", "old", "second", "third"]
    assert (await store.follow(followed.head, 10)).entries in ([], ())

    await store.maintain(ahead_days=1, retention_days=7)
    await store.store(Batch.of_entries([entry("last")]))
    assert [each.message for _, each in (await store.follow(followed.head, 10)).entries] == ["last"]
    assert messages(await store.query(Query(stored_before=start.head.stored_in))) == ["before"]


async def test_without_partitions_nothing_is_made_and_entries_are_found_all_the_same(store: LogStore) -> None:
    """LOG_PARTITION_ENABLED=false."""
    assert await store.maintain(ahead_days=3, retention_days=7, partitioned=False) == Maintained((), 0)
    await store.store(Batch.of_entries([entry()]))
    assert len((await store.query(Query())).entries) == 1


async def test_maintenance_makes_partitions_once(store: LogStore) -> None:
    """DEW-005."""
    today = datetime.now(UTC).date()
    first = await store.maintain(ahead_days=3, retention_days=7)
    again = await store.maintain(ahead_days=3, retention_days=7)
    further = await store.maintain(ahead_days=4, retention_days=7)
    names = [f"logs_{today + timedelta(days=offset):%Y_%m_%d}" for offset in range(-1, 5)]
    assert list(first.created) == names[:5]
    assert (list(again.created), again.moved) == ([], 0)
    assert list(further.created) == names[5:]


async def test_entries_move_when_the_partition_of_their_day_appears(store: LogStore) -> None:
    """DEW-005."""
    now = datetime.now(UTC)
    days = [0, 0, 3, -4, -30, 400]
    batch = [entry(str(day), created_at=(now + timedelta(days=day)).isoformat()) for day in days]
    await store.store(Batch.of_entries(batch))
    before = (await store.query(Query(order="oldest"))).entries
    done = await store.maintain(ahead_days=2, retention_days=7)
    assert done.moved == 3
    assert f"logs_{now - timedelta(days=4):%Y_%m_%d}" in done.created
    assert (await store.maintain(ahead_days=3, retention_days=7)).moved == 1
    found = await store.query(Query(order="oldest"))
    assert messages(found) == ["-30", "-4", "0", "0", "3", "400"]
    assert [attrs.evolve(each, age=0) for each in found.entries] == [attrs.evolve(each, age=0) for each in before]
    assert (await store.store(Batch.of_entries(batch))).duplicates == len(batch)
