"""Old entries go by themselves: at the start, every hour, after midnight UTC, and whatever the clock does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dewey_logs.clearing import Clearing, end_of_pin, end_of_retention
from dewey_logs.query import Query
from dewey_logs.retention import run_retention
from dewey_logs.store.batch import Batch
from godot.entries.entry import IdSource, admit_json
from godot.errors import EntryRejected
from tests.fakes import FakeStore

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)

ids = IdSource()


class Store(FakeStore):
    """Knows when it was asked to delete."""

    def __init__(self) -> None:
        super().__init__(lambda: self.clock())
        self.clock: Callable[[], datetime] = lambda: datetime.max.replace(tzinfo=UTC)
        self.asked: list[float] = []

    async def doomed_days(self, clearing: Clearing) -> int:
        self.asked.append(trio.current_time())
        return await super().doomed_days(clearing)


async def run_for(store: Store, hours: float, *, start: datetime = NOON, jump: timedelta = timedelta()) -> list[str]:
    """Let retention run for some hours of the virtual clock; after the first half of them the clock jumps."""
    told: list[str] = []

    def now() -> datetime:
        late = trio.current_time() > hours * 1800
        return start + timedelta(seconds=trio.current_time()) + (jump if late else timedelta())

    with trio.move_on_after(hours * 3600):
        await run_retention(
            store,
            7,
            tell=lambda deleted, before: told.append(f"{deleted} {before}"),
            hold=lambda days, before: told.append(f"{days} days held {before}"),
            now=now,
        )
    return told


async def log(store: Store, *created_at: str) -> None:
    fields = {"component": "relay", "level": "INFO", "message": "x"}
    await store.store(
        Batch.of_entries([admit_json({"id": ids.next(), "created_at": each} | fields, []) for each in created_at])
    )


async def test_what_is_older_than_the_retention_goes_at_the_start_and_every_hour(autojump_clock: MockClock) -> None:
    """DEW-009: a day is kept whole, so that its partition can go at once."""
    store = Store()
    await log(store, "2026-11-12T23:59:59Z", "2026-11-13T00:00:00Z", "2026-11-20T00:00:00Z")
    assert await run_for(store, 3) == ["1 2026-11-13T00:00:00.000000Z"]
    assert store.asked == [0, 3600, 7200]
    assert len((await store.query(Query())).entries) == 2
    assert store.clears == [("retention", None, {"before_time": "2026-11-13T00:00:00.000000Z"}, 1)]


async def test_the_day_that_is_over_goes_soon_after_midnight(autojump_clock: MockClock) -> None:
    store = Store()
    await log(store, "2026-11-13T13:00:00Z")
    assert await run_for(store, 1, start=datetime(2026, 11, 20, 23, 30, 30, tzinfo=UTC)) == [
        "1 2026-11-14T00:00:00.000000Z"
    ]
    assert store.asked == [0, 1800]


async def test_a_store_that_is_away_is_asked_again_a_minute_later(autojump_clock: MockClock) -> None:
    store = Store()
    store.away = True
    await run_for(store, 0.05)
    assert store.asked == [0, 60, 120]


@pytest.mark.parametrize("jump", [timedelta(days=2), timedelta(days=-2)])
async def test_a_clock_that_jumps_is_followed_within_a_minute(autojump_clock: MockClock, jump: timedelta) -> None:
    store = Store()
    await run_for(store, 1, jump=jump)
    assert store.asked[:2] == [0, 1860]


@pytest.mark.parametrize("ours_is_ahead", [True, False])
@pytest.mark.parametrize("ahead", [timedelta(days=3), timedelta(days=610), timedelta(days=36_500)])
async def test_one_clock_that_is_ahead_deletes_nothing(
    autojump_clock: MockClock, ahead: timedelta, ours_is_ahead: bool
) -> None:
    store = Store()
    await log(store, "2026-11-13T00:00:00Z", "2026-11-20T00:00:00Z")
    store.clock = lambda: NOON if ours_is_ahead else NOON + ahead
    assert await run_for(store, 3, start=NOON + ahead if ours_is_ahead else NOON) == []
    assert len((await store.query(Query())).entries) == 2


async def log_old_days(store: Store, days: int) -> None:
    await log(store, *((NOON - timedelta(days=8 + day)).isoformat() for day in range(days)))


async def test_both_clocks_jump_and_are_put_right_within_the_hour(autojump_clock: MockClock) -> None:
    """The machine's clock is the database's, too."""
    store = Store()
    await log(store, *((NOON - timedelta(days=day)).isoformat() for day in range(7)))
    told: list[str] = []

    def now() -> datetime:
        wrong = 600 < trio.current_time() < 3_000
        return NOON + timedelta(seconds=trio.current_time()) + timedelta(days=610 if wrong else 0)

    with trio.move_on_after(4 * 3_600):
        await run_retention(
            store, 7, tell=lambda deleted, _: told.append(f"{deleted} gone"),
            hold=lambda days, _: told.append(f"{days} held"), now=now,
        )  # fmt: skip
    assert told == ["7 held"]
    assert len((await store.query(Query())).entries) == 7


@pytest.mark.parametrize("days", [1, 2, 3, 30])
async def test_more_days_than_two_go_at_a_second_look_an_hour_later(autojump_clock: MockClock, days: int) -> None:
    store = Store()
    await log_old_days(store, days)
    before = "2026-11-13T00:00:00.000000Z"
    held = [f"{days} days held {before}"] if days > 2 else []
    assert await run_for(store, 0.9) == (held or [f"{days} {before}"])
    assert await run_for(store, 4) == ([*held, f"{days} {before}"] if held else [])
    assert (await store.query(Query())).entries == []


async def test_a_clock_that_jumps_on_begins_the_hour_anew(autojump_clock: MockClock) -> None:
    store = Store()
    await log_old_days(store, 3)
    await log(store, *((NOON + timedelta(days=day)).isoformat() for day in range(3)))
    told = await run_for(store, 1.5, jump=timedelta(days=30))
    assert told == ["3 days held 2026-11-13T00:00:00.000000Z", "6 days held 2026-12-13T00:00:00.000000Z"]
    assert len((await store.query(Query())).entries) == 6


def test_the_end_of_the_retention_is_a_utc_midnight_whatever_the_time_zone() -> None:
    eastern = datetime.fromisoformat("2026-11-20T22:30:00-05:00")
    assert end_of_retention(eastern, 7) == "2026-11-14T00:00:00.000000Z"


def test_until_when_a_trace_is_pinned() -> None:
    assert end_of_pin("30d", NOON) == "2026-12-20T12:00:00.000000Z"
    assert end_of_pin("2026-12-24T00:00:00+01:00", NOON) == "2026-12-23T23:00:00.000000Z"
    for wrong in ("soon", "-1d", "2026-11-20", "now", "999999999w"):
        with pytest.raises(EntryRejected, match="until: must be"):
            end_of_pin(wrong, NOON)


def test_without_filters_it_is_what_is_older_than_the_retention() -> None:
    assert Clearing.parse(retention_days=7, now=lambda: NOON) == Clearing(before="2026-11-13T12:00:00.000000Z")
    assert Clearing.parse(retention_days=7, level="debug", now=lambda: NOON) == Clearing(level="DEBUG")
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("level", {"level": "LOUD"}),
        ("before_time", {"before_time": "x"}),
        ("exclude_trace_id", {"exclude_trace_id": "x"}),
        ("at most 1,000", {"exclude_trace_id": ["x"] * 1_001}),
        ("component", {"component": []}),
    ]
    for problem, asked in wrong:
        with pytest.raises(EntryRejected, match=problem):
            Clearing.parse(retention_days=7, **asked)
