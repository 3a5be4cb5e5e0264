"""Followers, on the virtual clock and the store in memory."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from dewey_logs import follow
from dewey_logs.follow import CATCHING_UP, GATHER_S, MAX_FOLLOWERS, POLL_S, TURN_S, Followers
from dewey_logs.places import Place
from dewey_logs.query import LONG, READ_CHARS, Query
from dewey_logs.reading import Tail
from dewey_logs.store.batch import Batch
from dewey_logs.store.memory import MemoryStore
from dewey_logs.store.protocol import ENOUGH_BYTES, Followed, Page
from godot.entries.entry import IdSource, admit_json
from godot.errors import EntryRejected, StoreFailed

ids = IdSource()


class CountingStore(MemoryStore):
    """Knows how often it was read."""

    readings = 0
    queries = 0
    takes_s = 0.0
    at_once = 0
    most_at_once = 0
    largest = 0
    fails = 0
    """So many of the next readings."""
    identity = "memory"

    async def follow(
        self, after: Place | None, limit: int, long: frozenset[str] = LONG, enough_bytes: int = ENOUGH_BYTES
    ) -> Followed:
        if after is None:
            return attrs.evolve(await super().follow(None, 0), identity=self.identity)
        self.readings += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await trio.sleep(self.takes_s)
        finally:
            self.at_once -= 1
        if self.fails:
            self.fails -= 1
            raise StoreFailed("PostgreSQL: canceling statement due to statement timeout")
        followed = await super().follow(after, limit, long, enough_bytes)
        self.largest = max(self.largest, sum(each.size_bytes for _, each in followed.entries))
        return attrs.evolve(followed, identity=self.identity)

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
        await self.store.store(
            Batch.of_entries([admit_json({"id": ids.next(), "message": each} | entry, []) for each in messages])
        )
        if not quietly:
            self.followers.note_stored()

    async def tail(
        self,
        cursor: str | None = None,
        *,
        last: int = 0,
        wait_s: float = 0,
        max_bytes: int = READ_CHARS,
        who: str = "one",
        long: frozenset[str] = LONG,
        **asked: Any,
    ) -> Tail:
        query = attrs.evolve(Query.parse(**asked), long=long)
        return await self.followers.tail(query, cursor, last=last, wait_s=wait_s, max_bytes=max_bytes, who=who)


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


async def test_two_hundred_who_are_behind_large_entries_keep_what_their_answers_can_show(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """Four of them once took gigabytes."""
    begun = cursor(await bench.tail())
    await bench.log(*(f"{number}" * 1_200_000 for number in range(9)))
    bench.store.takes_s = 0.01
    kept = 0

    async def read(who: str) -> None:
        nonlocal kept
        place, read = begun, ""
        while len(read) < 9:
            page = await bench.tail(place, limit=1_000, max_bytes=10_000, wait_s=20, who=who)
            kept = max(kept, sum(each.size_bytes for _, each in page.entries))
            (message,) = {each.message[:1] for _, each in page.entries[:1]}
            read += message
            place = page.entries[0][0].encode(page.identity)
        assert read == "012345678"

    async with trio.open_nursery() as nursery:
        for number in range(MAX_FOLLOWERS):
            nursery.start_soon(read, f"caller {number % 7}")
    assert kept < 2 * 10_000 + 2 * 1_000
    assert bench.store.most_at_once <= CATCHING_UP + 1, "and the one that is for all"
    assert bench.store.largest < ENOUGH_BYTES + 2 * READ_CHARS


async def test_many_who_are_behind_keep_neither_waiting_who_is_not_nor_another_caller(
    bench: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "PAGE", 20)
    begun = cursor(await bench.tail())
    await bench.log(*map(str, range(follow.PAGE * 3)))
    bench.store.takes_s = 1.0
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(partial(bench.tail, begun, component="nobody", wait_s=20, who="many"))
        await trio.sleep(0.5)
        present = cursor(await bench.tail(who="other"))
        began = trio.current_time()
        assert messages(await bench.tail(begun, limit=1, who="other")) == ["0"]
        assert trio.current_time() - began <= 2, "one page, at once"
        assert bench.store.most_at_once == CATCHING_UP

        async def later() -> None:
            await trio.sleep(3)
            await bench.log("now")

        nursery.start_soon(later)
        began = trio.current_time()
        assert messages(await bench.tail(present, wait_s=20, who="other")) == ["now"]
        assert trio.current_time() - began < 3 + 2 * bench.store.takes_s + 2 * POLL_S
        nursery.cancel_scope.cancel()


async def test_two_hundred_callers_who_are_behind_keep_nobody_waiting_who_is_not(
    bench: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when nobody else is there for whom the present was read."""
    monkeypatch.setattr(follow, "PAGE", 20)
    begun = cursor(await bench.tail())
    await bench.log(*map(str, range(follow.PAGE * 3)))
    bench.store.takes_s = 1.0
    async with trio.open_nursery() as nursery:

        async def read_again_and_again(who: str) -> None:
            while True:
                await bench.tail(begun, component="nobody", who=who)

        for number in range(MAX_FOLLOWERS - 1):
            nursery.start_soon(read_again_and_again, f"caller {number}")
        await trio.sleep(0.5)
        place = cursor(await bench.tail(who="other"))
        for turn in range(5):
            logged_at = trio.current_time()
            await bench.log(f"{turn}")
            page = await bench.tail(place, wait_s=20, who="other")
            assert messages(page) == [f"{turn}"]
            assert trio.current_time() - logged_at < 2 * bench.store.takes_s + POLL_S
            place = cursor(page)
        nursery.cancel_scope.cancel()


async def test_the_present_does_not_wait_until_the_past_is_read_for_all(
    bench: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = cursor(await bench.tail())
    await bench.log(*map(str, range(100)))
    monkeypatch.setattr(follow, "PAGE", 101)
    bench.store.takes_s = 1.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(bench.tail, begun, component="nobody", wait_s=200))
        await trio.testing.wait_all_tasks_blocked()
        monkeypatch.setattr(follow, "PAGE", 1)
        await trio.sleep(3)
        place = cursor(await bench.tail())
        await bench.log("now")
        began = trio.current_time()
        assert messages(await bench.tail(place, wait_s=200)) == ["now"]
        assert trio.current_time() - began < 5
        nursery.cancel_scope.cancel()


async def test_who_gets_no_turn_is_told_to_go_on_where_he_is(
    bench: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "PAGE", 1)
    begun = cursor(await bench.tail())
    await bench.log("missing?", "and this?")
    bench.store.takes_s = 100.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(bench.tail, begun, wait_s=20))
        await trio.testing.wait_all_tasks_blocked()
        late = await bench.tail(begun)
        assert trio.current_time() == TURN_S
        assert (messages(late), cursor(late), late.missed) == ([], begun, 0)
        nursery.cancel_scope.cancel()
    bench.store.takes_s = 0.0
    assert messages(await bench.tail(cursor(late), limit=1)) == ["missing?"]


async def test_a_reading_that_fails_behind_others_leaves_what_was_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cursor could never be moved on."""
    monkeypatch.setattr(follow, "PAGE", 2)
    begun = cursor(await bench.tail())
    await bench.log("0", "1", "2", "3", "4")
    any_of_them: dict[str, Any] = {"component": "relay", "wait_s": 9}

    class FailsAfterOne(CountingStore):
        async def follow(
            self, after: Place | None, limit: int, long: frozenset[str] = LONG, enough_bytes: int = ENOUGH_BYTES
        ) -> Followed:
            self.fails = self.readings % 2 if after is not None else 0
            return await super().follow(after, limit, long, enough_bytes)

    bench.store.__class__ = FailsAfterOne
    bench.store.readings = 0
    first = await bench.tail(begun, **any_of_them)
    assert messages(first) == ["0", "1"]
    second = await bench.tail(cursor(first), **any_of_them | {"component": "nobody"})
    assert messages(second) == []
    assert messages(await bench.tail(cursor(second), **any_of_them)) == ["4"]


async def test_a_reading_that_fails_for_one_who_waits_fails_for_no_other(
    bench: Bench, autojump_clock: MockClock
) -> None:
    begun = cursor(await bench.tail())
    answered: list[list[str]] = []
    failed: list[StoreFailed] = []

    async def wait() -> None:
        try:
            answered.append(messages(await bench.tail(begun, wait_s=20)))
        except StoreFailed as exc:
            failed.append(exc)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(3 * POLL_S)
        bench.store.fails = 1
        await bench.log("now")
    assert (len(failed), answered) == (1, [["now"]] * 19)


async def test_a_burst_that_is_read_in_several_pages_comes_at_once(
    bench: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who follows does not look only four times a second while there is more."""
    monkeypatch.setattr(follow, "PAGE", 10)
    begun = cursor(await bench.tail())
    read: list[str] = []

    async def wait() -> None:
        place = begun
        while len(read) < 100:
            page = await bench.tail(place, wait_s=20)
            read.extend(messages(page))
            place = cursor(page)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(POLL_S * 2.5)
        stored_at = trio.current_time()
        await bench.log(*map(str, range(100)))
    assert read == [str(number) for number in range(100)]
    assert trio.current_time() - stored_at == pytest.approx(GATHER_S)


async def test_what_is_kept_for_all_is_gone_through_in_pieces(
    bench: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "PIECE_BYTES", 2_000)
    begun = cursor(await bench.tail())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(bench.tail, begun, component="nobody", wait_s=20))
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(POLL_S * 2)
        await bench.log(*map(str, range(100)))
        await trio.sleep(POLL_S)
        readings = bench.store.readings
        assert messages(await bench.tail(begun)) == [str(number) for number in range(100)]
        assert messages(await bench.tail(begun, limit=7)) == [str(number) for number in range(7)]
        assert bench.store.readings == readings, "it was kept"
        nursery.cancel_scope.cancel()


async def test_a_filter_sees_what_the_answer_does_not_show(bench: Bench) -> None:
    begun = cursor(await bench.tail())
    await bench.log("needle", data={"a": 1})
    await bench.log("hay")
    for asked in ({"contains": "needle"}, {"search": "needle"}, {"data": {"a": 1}}):
        ((_, found),) = (await bench.tail(begun, long=frozenset(), **asked)).entries
        assert (found.message, found.data) == ("", None)


async def test_a_database_that_became_another_one_does_not_take_new_followers_to_the_place_of_old_ones(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """After a failover, while somebody waited all the time."""
    for number in range(50):
        await bench.log(str(number))
    old = cursor(await bench.tail())
    async with trio.open_nursery() as nursery:
        waited: list[Tail] = []

        async def wait() -> None:
            waited.append(await bench.tail(old, wait_s=30))

        nursery.start_soon(wait)
        await trio.sleep(3 * POLL_S)
        bench.store.__init__()  # type: ignore[misc]
        bench.store.identity = "another"
        began = await bench.tail()
        await trio.sleep(2 * POLL_S)
        assert messages(waited[0]) == []
        with pytest.raises(EntryRejected, match="of another database"):
            await bench.tail(cursor(waited[0]))
        nursery.start_soon(partial(bench.tail, cursor(began), wait_s=30, component="nobody"))
        await trio.sleep(2 * POLL_S)
        await bench.log("new")
        assert messages(await bench.tail(cursor(began), wait_s=30)) == ["new"]
        nursery.cancel_scope.cancel()


async def test_data_that_could_not_be_read_in_time_is_left_to_the_database_to_compare(bench: Bench) -> None:
    begun = cursor(await bench.tail())
    await bench.log("large", data={"a": 1})

    class Slow(CountingStore):
        async def follow(
            self, after: Place | None, limit: int, long: frozenset[str] = LONG, enough_bytes: int = ENOUGH_BYTES
        ) -> Followed:
            followed = await super().follow(after, limit, long, enough_bytes)
            unread = [(at, attrs.evolve(each, data='{"_godot":{}}', unread=True)) for at, each in followed.entries]
            return attrs.evolve(followed, entries=unread)

    bench.store.__class__ = Slow
    assert messages(await bench.tail(begun, data={"a": 1})) == ["large"]
    assert messages(await bench.tail(begun, data={"a": 2})) == []


async def test_what_another_database_has_is_not_given_to_who_was_behind_in_the_one_before(
    bench: Bench, autojump_clock: MockClock
) -> None:
    begun = cursor(await bench.tail())
    await bench.log("of the one before")
    bench.store.takes_s = 1.0
    async with trio.open_nursery() as nursery:

        async def fail_over() -> None:
            await trio.sleep(0.5)
            bench.store.identity = "another"

        nursery.start_soon(fail_over)
        late = await bench.tail(begun, wait_s=20)
    assert (messages(late), cursor(late)) == ([], begun)
