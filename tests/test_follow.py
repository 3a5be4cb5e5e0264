"""Followers, on the virtual clock and the store in memory."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from dewey_logs import follow
from dewey_logs.follow import GATHER_S, MAX_FOLLOWERS, POLL_S, Followers, Tail
from dewey_logs.search import Place, Query
from dewey_logs.store import Followed, MemoryStore, Page
from godot.entries import IdSource, admit_json
from godot.errors import EntryRejected

ids = IdSource()


class CountingStore(MemoryStore):
    """Knows how often it was read."""

    readings = 0
    queries = 0
    takes_s = 0.0

    async def follow(self, after: Place | None, limit: int) -> Followed:
        self.readings += after is not None
        await trio.sleep(self.takes_s)
        return await super().follow(after, limit)

    async def query(self, query: Query) -> Page:
        self.queries += 1
        return await super().query(query)


class Bench:
    """A store and those who follow it."""

    def __init__(self) -> None:
        self.store = CountingStore()
        self.followers = Followers(self.store)

    async def log(self, *messages: str, quietly: bool = False, **fields: Any) -> None:
        """Store entries; quietly: as another Dewey does."""
        entry = {"component": "relay", "level": "INFO"} | fields
        await self.store.store([admit_json({"id": ids.next(), "message": each} | entry, []) for each in messages])
        if not quietly:
            self.followers.note_stored()

    async def tail(self, cursor: str | None = None, *, last: int = 0, wait_s: float = 0, **asked: Any) -> Tail:
        return await self.followers.tail(Query.parse(**asked), cursor, last=last, wait_s=wait_s)


def messages(tail: Tail) -> list[str]:
    return [entry.message for _, entry in tail.entries]


def cursor(tail: Tail) -> str:
    return tail.place.encode(tail.identity)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_it_begins_with_the_present_and_goes_on_without_gap_or_repetition(bench: Bench) -> None:
    await bench.log("one", "two", "three")
    begun = await bench.tail(last=2)
    assert messages(begun) == ["two", "three"]
    assert messages(await bench.tail()) == []
    await bench.log("four", created_at="1970-01-01")
    went_on = await bench.tail(cursor(begun))
    assert messages(went_on) == ["four"]
    assert messages(await bench.tail(cursor(went_on))) == []
    assert messages(await bench.tail(cursor(begun))) == ["four"]


async def test_a_page_ends_at_the_limit_and_the_next_one_begins_behind_it(bench: Bench) -> None:
    begun = await bench.tail()
    await bench.log(*map(str, range(5)))
    await bench.log(*map(str, range(5, 10)))
    read, place = [], cursor(begun)
    for expected in (3, 3, 3, 1):
        page = await bench.tail(place, limit=3)
        assert len(page.entries) == expected
        read += messages(page)
        place = cursor(page)
    assert read == [str(number) for number in range(10)]


async def test_who_waits_is_woken_by_what_is_stored(bench: Bench, autojump_clock: MockClock) -> None:
    begun = await bench.tail()
    async with trio.open_nursery() as nursery:

        async def later() -> None:
            await trio.sleep(0.1)
            await bench.log("now")

        nursery.start_soon(later)
        assert messages(await bench.tail(cursor(begun), wait_s=20)) == ["now"]
    assert trio.current_time() == pytest.approx(0.1 + GATHER_S)


async def test_what_another_dewey_stores_is_found_by_looking(bench: Bench, autojump_clock: MockClock) -> None:
    begun = await bench.tail()
    async with trio.open_nursery() as nursery:

        async def later() -> None:
            await trio.sleep(0.3)
            await bench.log("elsewhere", quietly=True)

        nursery.start_soon(later)
        assert messages(await bench.tail(cursor(begun), wait_s=20)) == ["elsewhere"]
    assert trio.current_time() == 2 * POLL_S


async def test_it_waits_no_longer_than_it_was_told(bench: Bench, autojump_clock: MockClock) -> None:
    begun = await bench.tail()
    nothing = await bench.tail(cursor(begun), wait_s=2.6)
    assert messages(nothing) == []
    assert trio.current_time() == pytest.approx(2.6)
    await bench.log("other", component="gates")
    assert messages(await bench.tail(cursor(nothing), component="relay")) == []
    await bench.log("mine")
    assert messages(await bench.tail(cursor(nothing), component="relay")) == ["mine"]


async def test_the_store_is_read_once_for_all_who_wait(bench: Bench, autojump_clock: MockClock) -> None:
    begun = cursor(await bench.tail())
    found: list[list[str]] = []

    async def one(number: int) -> None:
        found.append(messages(await bench.tail(begun, wait_s=20, contains=f"for {number}")))

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(one, number)
        await trio.sleep(POLL_S / 2)
        before = bench.store.readings
        await bench.log(*(f"for {number}." for number in range(10)))
        await bench.log(*(f"for {number}." for number in range(10, 100)))
        await trio.sleep(POLL_S / 4)
        assert len(found) == 100
        assert bench.store.readings - before <= 2
    # "for 1" is also in "for 1." of "for 10." and so on: each has got its own.
    assert all(each for each in found)


async def test_a_follower_among_others_gets_all_whoever_else_comes_and_goes(
    bench: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when what is kept for followers is less than what came."""
    monkeypatch.setattr(follow, "KEPT_BYTES", 3_000)
    read: list[str] = []

    async def steady(place: str) -> None:
        while len(read) < 300:
            page = await bench.tail(place, wait_s=5, limit=7)
            read.extend(messages(page))
            place = cursor(page)
            await trio.sleep(0.3 if len(read) % 3 else 0)

    async def passing() -> None:
        for number in range(40):
            await bench.tail(last=2, wait_s=0.1 * (number % 4))
            await trio.sleep(0.07)

    begun = cursor(await bench.tail())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(steady, begun)
        nursery.start_soon(passing)
        for batch in range(100):
            await bench.log(*(f"{batch * 3 + number}" for number in range(3)), quietly=bool(batch % 2))
            await trio.sleep(0.03)
    assert read == [str(number) for number in range(300)]


async def test_who_is_too_far_behind_is_told_how_much_he_missed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LAG_MAX", 5)
    begun = await bench.tail()
    await bench.log(*map(str, range(5)))
    assert (await bench.tail(cursor(begun))).missed == 0
    await bench.log("5")
    late = await bench.tail(cursor(begun), wait_s=9)
    assert (messages(late), late.missed) == ([], 6)
    await bench.log("6")
    assert messages(await bench.tail(cursor(late))) == ["6"]


async def test_there_are_only_so_many_followers(bench: Bench, autojump_clock: MockClock) -> None:
    begun = cursor(await bench.tail())

    async def wait() -> None:
        await bench.tail(begun, wait_s=5)

    async with trio.open_nursery() as nursery:
        for _ in range(MAX_FOLLOWERS):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.followers.count == MAX_FOLLOWERS
        with pytest.raises(EntryRejected, match="200 followers already"):
            await bench.tail()
    assert bench.followers.count == 0


@pytest.mark.parametrize(
    ("entry", "asked"),
    [
        ({"data": {"a": [*range(60_000), {"x": 1}]}}, {"data": {"a": [59_999, {"x": 1}]}}),
        ({"data": {"text": "x" * 300_000, "n": 1}}, {"data": {"n": 1}}),
        ({"message": "a" * 300_000 + "needle"}, {"contains": "Needle"}),
    ],
)
async def test_what_would_hold_up_everybody_is_compared_by_the_database(
    bench: Bench, entry: dict[str, Any], asked: dict[str, Any]
) -> None:
    begun = cursor(await bench.tail())
    await bench.log("other")
    queries = bench.store.queries
    await bench.log(entry.pop("message", "mine"), **entry)
    assert len(messages(await bench.tail(begun, **asked))) == 1
    assert bench.store.queries - queries == 1, "about the large one only"
    assert messages(await bench.tail(begun, component="nobody", **asked)) == []
    assert bench.store.queries - queries == 1, "what another filter leaves out is not compared"


async def test_a_reading_that_is_cancelled_counts_for_nobody(bench: Bench, autojump_clock: MockClock) -> None:
    """Its follower went in the middle of it: the others do not wait for the next look."""
    begun = cursor(await bench.tail())
    found: list[float] = []

    async def other() -> None:
        assert messages(await bench.tail(begun, wait_s=20)) == ["now"]
        found.append(trio.current_time())

    async def goes() -> None:
        await bench.tail(begun, wait_s=20)

    async with trio.open_nursery() as nursery, trio.open_nursery() as gone:
        gone.start_soon(goes)
        await trio.testing.wait_all_tasks_blocked()
        bench.store.takes_s = 0.01
        nursery.start_soon(other)
        await trio.sleep(0.03)
        await bench.log("now")
        stored_at = trio.current_time()
        await trio.sleep(GATHER_S + 0.005)
        gone.cancel_scope.cancel()
    assert found[0] - stored_at < POLL_S / 4


async def test_a_long_catching_up_gives_everybody_else_a_turn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "PIECE_S", 0.0)
    begun = cursor(await bench.tail())
    await bench.log(*map(str, range(500)))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        assert messages(await bench.tail(begun, component="nobody", limit=1_000)) == []
        nursery.cancel_scope.cancel()
    assert turns > 400


@pytest.mark.parametrize("wrong", ["", "x", "0", "dGFpbA==", Query.parse(limit=1).order])
async def test_what_is_no_cursor_is_refused(bench: Bench, wrong: str) -> None:
    with pytest.raises(EntryRejected, match=r"cursor: must be the cursor"):
        await bench.tail(wrong)


async def test_a_cursor_of_another_database_is_refused(bench: Bench) -> None:
    with pytest.raises(EntryRejected, match=r"cursor: is of another database"):
        await bench.tail(Place(7).encode("elsewhere"))
    place = Place(7, "2026-11-20T12:00:00.000000Z", "01a1fc45-61b4-76c5-87bf-2055fe4623ee")
    assert Place.decode(place.encode("here"), "here", 10**9) == place
