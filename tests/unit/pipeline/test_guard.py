"""The guard: which entry it puts aside, how soon, and which it never does."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from godot.buffer.protocol import Counts
from godot.errors import BatchRefused, DeweyFailed, DeweyUnavailable
from godot.pipeline.guard import Guard
from tests.fakes import FakeDewey, numbers, raw_entries, raw_entry
from tests.unit.pipeline.test_sender import Bench, foreign


class Poisoned(FakeDewey):
    """A Dewey that breaks down over some entries, and answers probes."""

    def __init__(self, *poison: bytes) -> None:
        super().__init__()
        self.poison = set(poison)
        self.breaks_with: Exception = DeweyFailed("Dewey: the connection broke before the answer")

    async def store(self, entries: Sequence[bytes]) -> None:
        if self.poison.intersection(entries):
            self.attempts.append((trio.current_time(), list(entries)))
            raise self.breaks_with
        await super().store(entries)


@pytest.mark.parametrize("place", [0, 37, 99])
async def test_the_entry_on_which_dewey_breaks_down_is_found_and_the_others_are_stored(
    place: int, autojump_clock: trio.testing.MockClock
) -> None:
    """REL-002: an entry is never the reason that the pipeline stands still."""
    batch = raw_entries(100)
    bench = Bench(dewey=Poisoned(batch[place]))
    await bench.buffer.push([*batch, *raw_entries(50, first=100)])
    assert await bench.run_dry() == Counts(received=150, stored=149, dead=1)
    assert bench.dewey.stored == [number for number in numbers(150) if number != str(place)]
    (dead,) = bench.buffer.dead
    assert dead.raw == batch[place]
    assert dead.reason == (
        "Dewey failed on it 5 times, and not on probes in between: Dewey: the connection broke before the answer"
    )
    assert trio.current_time() < 15
    alone = [len(tried) for _, tried in bench.dewey.attempts if batch[place] in tried]
    assert alone[-5:] == [1] * 5
    assert 1 not in alone[:-5]


async def test_halves_until_it_is_alone_with_a_probe_after_each_failure(
    autojump_clock: trio.testing.MockClock,
) -> None:
    batch = raw_entries(8)
    bench = Bench(dewey=Poisoned(batch[5]))
    await bench.buffer.push(batch)
    await bench.run_dry()
    # Whole, four times; whole again; then the first half is stored, and the second one halved twice.
    assert bench.dewey.sizes == [8, 8, 8, 8, 0, 8, 0, 4, 2, 0, 1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 2]
    assert [when for when, _ in bench.dewey.attempts][:7] == pytest.approx([0, 0.1, 0.3, 0.7, 1.7, 1.7, 2.7])


async def test_an_entry_alone_in_the_queue_is_put_aside_after_five_failures(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench(dewey=Poisoned(poison := raw_entry("poison")))
    await bench.buffer.push([poison])
    assert await bench.run_dry() == Counts(received=1, dead=1)
    assert bench.dewey.sizes == [1, 1, 1, 1, 0, 1, 0, 1, 0, 1, 0, 1]


async def test_two_beside_each_other_are_both_found_the_second_after_twice_as_many_failures(
    autojump_clock: trio.testing.MockClock,
) -> None:
    batch = raw_entries(20)
    bench = Bench(dewey=Poisoned(batch[7], batch[8]))
    await bench.buffer.push(batch)
    assert await bench.run_dry() == Counts(received=20, stored=18, dead=2)
    assert [dead.reason.split(",")[0] for dead in bench.buffer.dead] == [
        "Dewey failed on it 5 times",
        "Dewey failed on it 10 times",
    ]


async def test_two_apart_are_found_alike(autojump_clock: trio.testing.MockClock) -> None:
    batch = raw_entries(100)
    bench = Bench(dewey=Poisoned(batch[7], batch[80]))
    await bench.buffer.push(batch)
    assert await bench.run_dry() == Counts(received=100, stored=98, dead=2)
    assert {dead.reason.split(",")[0] for dead in bench.buffer.dead} == {"Dewey failed on it 5 times"}


async def test_an_entry_over_which_dewey_takes_too_long_is_found_too(autojump_clock: trio.testing.MockClock) -> None:
    class Slow(Poisoned):
        async def store(self, entries: Sequence[bytes]) -> None:
            if self.poison.intersection(entries):
                await trio.sleep(15)
            await super().store(entries)

    batch = raw_entries(100)
    bench = Bench(dewey=Slow(batch[50]))
    await bench.buffer.push(batch)
    assert await bench.run_dry() == Counts(received=100, stored=99, dead=1)
    assert trio.current_time() < 300


async def test_a_dewey_that_fails_on_whatever_it_is_given_costs_a_handful_of_entries_an_hour(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-002: a batch is not given up because Dewey is out of order."""

    class Broken(FakeDewey):
        async def store(self, entries: Sequence[bytes]) -> None:
            if entries:
                raise DeweyFailed("Dewey: Internal error (-32603)")

    bench = Bench(dewey=Broken())
    await bench.buffer.push(raw_entries(1000))
    with trio.move_on_after(3_600):
        await bench.run_dry()
    counts = await bench.buffer.counts()
    assert counts.dead == 9  # after 5, 10, 20, … failures, a second each
    assert counts.dead + counts.queued + counts.in_flight == 1000


async def test_a_database_whose_disk_is_full_suspects_no_entry_however_long(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-002: an empty batch is stored on a full disk too."""
    batch = raw_entries(100)
    dewey = Poisoned(*batch)
    dewey.breaks_with = DeweyUnavailable("Dewey: PostgreSQL: could not extend file: No space left on device")
    bench = Bench(dewey=dewey)
    await bench.buffer.push(batch)
    with trio.move_on_after(600):
        await bench.run_dry()
    assert set(dewey.sizes) == {100, 0}
    dewey.poison = set()
    assert await bench.run_dry() == Counts(received=100, stored=100)


async def test_a_dewey_that_dies_and_comes_back_suspects_no_entry(autojump_clock: trio.testing.MockClock) -> None:
    class Dies(FakeDewey):
        """Is away for some time again and again, whatever it is asked."""

        async def store(self, entries: Sequence[bytes]) -> None:
            if trio.current_time() % 10 < 4:
                raise DeweyFailed("Dewey: cannot connect")
            await super().store(entries)

    bench = Bench(dewey=Dies())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.sender.run)
        for first in range(0, 2000, 50):
            await bench.buffer.push(raw_entries(50, first))
            await trio.sleep(0.7)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert await bench.buffer.counts() == Counts(received=2000, stored=2000)


async def test_a_refusal_that_names_none_of_the_entries_is_a_failure_like_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    batch = raw_entries(10)
    dewey = Poisoned(batch[3])
    dewey.breaks_with = BatchRefused([(17, "?")])
    bench = Bench(dewey=dewey)
    await bench.buffer.push(batch)
    assert await bench.run_dry() == Counts(received=10, stored=9, dead=1)
    (dead,) = bench.buffer.dead
    assert "without naming one of its entries" in dead.reason


async def test_poison_among_garbage_and_entries_of_others_is_found(autojump_clock: trio.testing.MockClock) -> None:
    """GOD-001."""
    bench = Bench(dewey=Poisoned(poison := raw_entry("poison")))
    bench.buffer.queue.extend([b"garbage", foreign("a"), poison, foreign("b"), b"[]"])
    assert await bench.run_dry() == Counts(received=5, stored=2, dead=3)


def test_another_entry_at_the_oldest_end_begins_to_count_anew() -> None:
    """The queue may have been cut, or another daemon have handed something back."""
    guard = Guard()
    for raw in [b"a"] * 4 + [b"b"] * 4:
        assert not guard.failed([raw])
    assert guard.failed([b"b"])


def test_one_failure_alone_does_not_make_batches_smaller() -> None:
    guard = Guard()
    guard.failed([b"a"] * 1000)
    assert guard.limit(100) == 100
    guard.settled(taken=100, stored=100)
    assert (guard.alert, guard.limit(1000)) == (False, 1000)
