"""The bounds of a buffer in bytes, kept by its two twins: of the queue, of the dead, of one entry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from godot.buffer.protocol import (
    DeadEntry,
    Drops,
)
from godot.entries.entry import MAX_ENTRY_BYTES
from tests.contract.buffers import Bench, assert_balanced, described, sized
from tests.fakes import Held
from tests.programs import bounded


@bounded
async def test_the_queue_is_bounded_in_bytes_and_the_oldest_go_with_the_push_and_are_counted(bench: Bench) -> None:
    """GOD-005: few large entries are as much as many small ones."""
    buffer = bench.make(max_bytes=100)
    assert (await buffer.push(sized(40, 30, 30))).queued_bytes == 100
    counts = await buffer.push([b"x"])
    assert counts == Held(queued=3, received=4, dropped=1)
    assert (counts.queued_bytes, counts.dropped_for_bytes) == (61, 1)
    assert bench.queue() == [*sized(40, 30, 30)[1:], b"x"]


@pytest.mark.parametrize(("sizes", "kept"), [((60, 60, 60), 1), ((101,), 0), ((101, 50, 50), 2)])
@bounded
async def test_a_batch_larger_than_the_bound_in_bytes_leaves_its_newest(
    sizes: tuple[int, ...], kept: int, bench: Bench
) -> None:
    """GOD-005."""
    buffer = bench.make(max_bytes=100)
    counts = await buffer.push(sized(*sizes))
    assert counts == Held(queued=kept, received=len(sizes), dropped=len(sizes) - kept)
    assert bench.queue() == sized(*sizes)[len(sizes) - kept :]
    assert counts.queued_bytes == sum(map(len, bench.queue()))
    assert counts.dropped_for_bytes == counts.dropped


@bounded
async def test_the_total_of_bytes_is_exact_whatever_is_done_to_the_queue(bench: Bench) -> None:
    """GOD-005: also what others push, and what they take, once we look."""
    buffer = bench.make(max_bytes=1000)

    async def assert_exact() -> None:
        await buffer.hand_back()  # looks for what others pushed
        assert (await buffer.counts()).queued_bytes == sum(map(len, bench.queue()))

    await buffer.push(sized(10, 20, 30, 40))
    await assert_exact()
    bench.stranger_pushes(*sized(50, 60))
    await assert_exact()
    await buffer.take(2)
    assert (await buffer.counts()).queued_bytes == 180
    await buffer.settle(keep=[b"and now larger" * 10, b"x"])
    await assert_exact()
    (first, *_) = (await buffer.take(1)).entries
    await buffer.settle(dead=[DeadEntry(first, "no")])
    await assert_exact()
    await buffer.retry()
    await assert_exact()
    bench.stranger_takes(3)
    await assert_exact()
    bench.stranger_takes(len(bench.queue()))
    await assert_exact()
    assert_balanced(await buffer.counts())


@bounded
async def test_a_stranger_cannot_push_beyond_the_bound_in_bytes_for_longer_than_to_the_next_look(bench: Bench) -> None:
    """PERF-003, GOD-001."""
    buffer = bench.make(max_bytes=100)
    bench.stranger_pushes(*sized(60, 60, 30))
    counts = await buffer.hand_back()
    assert counts == Held(queued=2, received=3, dropped=1)
    assert (counts.queued_bytes, counts.dropped_for_bytes, counts.vanished) == (90, 1, 0)


@bounded
async def test_what_is_handed_back_is_dropped_when_its_bytes_have_no_room(bench: Bench) -> None:
    """GOD-005."""
    buffer = bench.make(max_bytes=100)
    await buffer.push(sized(50, 50))
    await buffer.take(2)
    await buffer.push([b"x" * 60])
    assert await buffer.hand_back() == Held(queued=1, received=3, dropped=2)


@bounded
async def test_no_more_are_retried_than_there_are_bytes_for(bench: Bench) -> None:
    """GOD-005: retrying must not make the queue drop anything."""
    buffer = bench.make(max_bytes=100)
    await buffer.push(sized(40, 30, 20))
    await buffer.take(3)
    await buffer.settle(dead=[DeadEntry(raw, "no") for raw in sized(40, 30, 20)])
    await buffer.push([b"x" * 25])
    assert await buffer.retry() == 2
    assert bench.queue() == [*sized(40, 30), b"x" * 25]
    assert await buffer.retry() == 0
    assert_balanced(await buffer.counts())


@bounded
async def test_a_run_of_drops_says_how_many_went_for_their_bytes_and_is_over_when_there_is_room_for_bytes(
    bench: Bench,
) -> None:
    """GOD-005."""
    buffer = bench.make(max_size=3, max_bytes=100)
    runs: list[Drops] = []
    await buffer.push(sized(1, 1, 60, 60, 35))
    assert await buffer.hole(described(runs)) is None, "two of three entries, but 95 of 100 bytes"
    await buffer.take(1)
    assert await buffer.hole(described(runs)) == b"hole-1"
    assert (runs[0].dropped, runs[0].for_bytes) == (3, 1)


@bounded
async def test_the_dead_are_bounded_in_bytes_and_what_is_forgotten_is_counted(bench: Bench) -> None:
    """Ten thousand entries may be 160 GB."""
    buffer = bench.make(dead_max_bytes=300)
    for raw in sized(100, 100, 100, 400, 50):
        await buffer.push([raw])
        await buffer.take(1)
        counts = await buffer.settle(dead=[DeadEntry(raw, "no")])
    assert counts == Held(received=5, dead=5)
    assert counts.dead_forgotten == 3, "the fourth has no room at all, and takes none of the others with it"
    assert [raw for raw, _ in bench.records()] == [b"c" * 100, b"e" * 50]
    await buffer.purge()
    for raw in sized(100, 100):
        await buffer.push([raw])
        await buffer.take(1)
        await buffer.settle(dead=[DeadEntry(raw, "no")])
    assert len(bench.records()) == 2, "what is purged gives its room back"
    assert await buffer.retry() == 2
    await buffer.take(2)
    assert (await buffer.settle(dead=[DeadEntry(raw, "no") for raw in sized(100, 100)])).dead_forgotten == 3


@pytest.mark.parametrize("by_a_stranger", [False, True])
@bounded
async def test_an_entry_larger_than_the_whole_queue_goes_alone_and_throws_no_other_away(
    by_a_stranger: bool, bench: Bench
) -> None:
    """GOD-005: it once emptied the queue, and was gone itself."""
    buffer = bench.make(max_bytes=100)
    large = [entry(component, 150) for component in "xy"]
    await buffer.push(sized(10, 20))
    if by_a_stranger:
        bench.stranger_pushes(large[0], *sized(30), large[1])
        counts = await buffer.push([b"later"])
    else:
        counts = await buffer.push([large[0], *sized(30), large[1], b"later"])
    assert bench.queue() == [*sized(10, 20), *sized(30), b"later"]
    assert counts == Held(queued=4, received=6, dropped=2)
    assert (counts.queued_bytes, counts.dropped_for_bytes, counts.vanished) == (65, 2, 0)
    runs: list[Drops] = []
    assert await buffer.hole(described(runs)) == b"hole-1"
    assert (runs[0].dropped, runs[0].for_bytes, runs[0].components) == (2, 2, {"x": 1, "y": 1})


def entry(component: str, size: int) -> bytes:
    """Make an entry of this size."""
    return (b'{"component":"%b"}' % component.encode()).ljust(size)


@pytest.mark.parametrize("noticed_by", ["push", "take", "hand_back", "retry"])
@bounded
async def test_a_giant_that_a_stranger_pushed_is_put_aside_at_once_with_its_size_and_its_beginning(
    noticed_by: str, bench: Bench
) -> None:
    """GOD-001: it once stopped durable logging for a minute, and took all of the dead with it."""
    buffer = bench.make(entry_max_bytes=100_000, max_bytes=300_000)
    await buffer.push([b"dead before"])
    await buffer.take(1)
    await buffer.settle(dead=[DeadEntry(b"dead before", "no")])
    await buffer.push([b"first"])
    giant = b"ab\xc3\xa9\x00/" * 50_000
    bench.stranger_pushes(b"second", giant, b"third", giant[1:], b"fourth")
    assert await buffer.oldest() == b"first"
    act: dict[str, Callable[[], Awaitable[Any]]] = {
        "push": lambda: buffer.push([b"fifth"]),
        "take": lambda: buffer.take(1),
        "hand_back": buffer.hand_back,
        "retry": buffer.retry,
    }
    await act[noticed_by]()
    counts = await buffer.counts()
    assert_balanced(counts)
    assert counts.dead == (2 if noticed_by == "retry" else 3)
    assert (counts.dropped, counts.dead_forgotten) == (0, 0)
    assert counts.queued_bytes == sum(map(len, bench.queue()))
    *_, one, other = (await buffer.dead_letters(0, 10)).entries
    assert (one.of_bytes, other.of_bytes) == (300_000, 299_999)
    assert one.raw == giant[:65_536].decode("utf-8", "replace").encode()
    assert other.reason == "an entry may have 100000 bytes, this one has 299999"
    assert await buffer.retry([one.id, other.id]) == 0, "the rest of it is gone"
    await buffer.hand_back()
    left = [b"first", b"second", b"third", b"fourth", *([b"fifth"] if noticed_by == "push" else [])]
    assert (await buffer.take(10)).entries == ([b"dead before", *left] if noticed_by == "retry" else left)
    assert await buffer.purge([one.id, other.id]) == 2


@bounded
async def test_a_giant_that_nobody_noticed_is_not_given_to_a_sender(bench: Bench) -> None:
    """GOD-001: its stranger took another entry away, so that the queue is as long as before."""
    buffer = bench.make(entry_max_bytes=100, max_bytes=1000)
    await buffer.push(sized(10, 20))
    bench.stranger_takes(2)
    bench.stranger_pushes(b"g" * 101, b"small")
    assert await buffer.oldest() is None
    assert (await buffer.take(10)).entries == [b"small"]
    assert await buffer.settle() == Held(received=2, stored=1, dead=1)
    bench.stranger_pushes(b"g" * 200)
    await buffer.hand_back()
    await buffer.push(sized(10))
    bench.stranger_takes(1)
    bench.stranger_pushes(b"g" * 101)
    assert (await buffer.take(10)).entries == [], "there is nothing else"
    assert await buffer.settle() == Held(received=4, stored=1, dead=3)
    assert (await buffer.counts()).queued_bytes == 0


@bounded
async def test_a_giant_is_forgotten_rather_than_that_all_the_other_dead_are(bench: Bench) -> None:
    buffer = bench.make(entry_max_bytes=1000, dead_max_bytes=500)
    await buffer.push(sized(50, 50))
    await buffer.take(2)
    await buffer.settle(dead=[DeadEntry(raw, "no") for raw in sized(50, 50)])
    bench.stranger_pushes(b"g" * 2000)
    counts = await buffer.hand_back()
    assert (counts.dead, counts.dead_forgotten) == (3, 1)
    assert [raw for raw, _ in bench.records()] == sized(50, 50)


@bounded
async def test_a_dead_entry_that_the_queue_could_never_hold_does_not_keep_those_behind_it_from_being_retried(
    bench: Bench,
) -> None:
    """GOD-005: it was put aside when the queue might be larger."""
    buffer = bench.make(max_bytes=1000)
    await buffer.push([b"x"])
    await buffer.take(1)
    await buffer.settle(keep=[b"x" * 1001, b"y"])
    await buffer.settle(dead=[DeadEntry(b"x" * 1001, "no"), DeadEntry(b"y", "no")])
    assert await buffer.retry() == 1
    assert bench.queue() == [b"y"]


def test_what_is_kept_of_a_dead_entry_is_all_of_any_json_and_the_beginning_of_what_would_grow() -> None:
    """Bytes that are no text become up to six each: 192 MiB of the 256 for one."""
    json_of_any_kind = b'"' + b'\\"' * ((MAX_ENTRY_BYTES - 2) // 2) + b'"'
    assert DeadEntry.unpack(DeadEntry(json_of_any_kind, "no").packed) == DeadEntry(json_of_any_kind, "no")
    nulls = DeadEntry.unpack(DeadEntry(bytes(MAX_ENTRY_BYTES), "no").packed)
    assert (len(nulls.raw), nulls.reason, nulls.of_bytes) == (65_536, "no", MAX_ENTRY_BYTES)
