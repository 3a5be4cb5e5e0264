"""The contract of `Buffer`, kept by its two twins."""

from __future__ import annotations

import json
from typing import Any

import attrs

from godot.buffer.protocol import (
    COMPONENTS_MAX,
    TAKE_MAX_BYTES,
    Buffer,
    DeadEntry,
    Drops,
)
from godot.entries.entry import admit_json
from godot.entries.wire import encode_entry
from tests.contract.buffers import Bench, RedisBench, assert_balanced, described, entries
from tests.fakes import Held
from tests.programs import bounded


@bounded
async def test_a_new_buffer_holds_nothing(bench: Bench) -> None:
    buffer = bench.make()
    assert await buffer.counts() == Held()
    assert (await buffer.take(100)).entries == []
    assert await buffer.settle() == Held()
    assert await buffer.hand_back() == Held()


@bounded
async def test_entries_come_out_in_the_order_they_went_in(bench: Bench) -> None:
    """GOD-001: the head is the newest, the tail the oldest."""
    buffer = bench.make()
    await buffer.push(entries(3))
    assert await buffer.push(entries(2, first=3)) == Held(queued=5, received=5)
    assert bench.queue() == entries(5)
    assert (await buffer.take(2)).entries == entries(2)
    await buffer.settle()
    assert (await buffer.take(100)).entries == entries(3, first=2)
    assert await buffer.settle() == Held(received=5, stored=5)


@bounded
async def test_a_take_says_whether_others_may_have_pushed_some_of_it(bench: Bench) -> None:
    """GOD-001: only then does the sender look into entries again."""
    buffer = bench.make()

    async def unchecked(limit: int) -> bool:
        taken = await buffer.take(limit)
        await buffer.settle()
        return taken.unchecked

    await buffer.push(entries(3))
    bench.stranger_pushes(b"foreign")
    await buffer.push(entries(3, first=3))
    assert [await unchecked(3), await unchecked(1), await unchecked(3)] == [True, True, False]
    await buffer.push(entries(4))
    assert not (await buffer.take(2)).unchecked
    assert (await buffer.take(2)).unchecked, "a sender that died may have taken it, unchecked"
    await buffer.hand_back()
    assert [await unchecked(2), await unchecked(2)] == [True, False]
    await buffer.push(entries(1))
    await buffer.take(1)
    await buffer.settle(dead=[DeadEntry(b"entry-0", "no")])
    await buffer.retry()
    assert await unchecked(1)


@bounded
async def test_what_a_godot_of_before_left_in_the_queue_is_looked_at(redis_bench: RedisBench, stranger: Any) -> None:
    """GOD-001: it did not note which of the entries are of others."""
    buffer = redis_bench.make()
    redis_bench.stranger_pushes(b"foreign")
    await buffer.push(entries(2))
    stranger.hdel(f"{redis_bench.name}:counts", "unchecked")
    assert (await buffer.take(3)).unchecked


@bounded
async def test_entries_are_bytes_and_come_out_as_they_went_in(bench: Bench) -> None:
    buffer = bench.make()
    odd = [b"", b"\x00\xff\r\n", "ü✓".encode(), b"same", b"same", bytes(1_000_000)]
    await buffer.push(odd)
    assert (await buffer.take(10)).entries == odd


@bounded
async def test_beyond_the_bound_the_oldest_are_dropped_with_the_push_and_counted(bench: Bench) -> None:
    """GOD-005, PERF-003: the queue never exceeds its bound, and every drop is counted."""
    buffer = bench.make(max_size=10)
    await buffer.push(entries(8))
    assert await buffer.push(entries(7, first=8)) == Held(queued=10, received=15, dropped=5)
    assert bench.queue() == entries(10, first=5)


@bounded
async def test_a_batch_larger_than_the_bound_leaves_its_newest(bench: Bench) -> None:
    """GOD-005."""
    buffer = bench.make(max_size=10)
    assert await buffer.push(entries(25)) == Held(queued=10, received=25, dropped=15)
    assert bench.queue() == entries(10, first=15)


@bounded
async def test_a_thousand_entries_go_in_and_out_at_once(bench: Bench) -> None:
    """DEW-001: the largest batch there is."""
    buffer = bench.make(max_size=5000)
    await buffer.push(entries(1000))
    assert (await buffer.take(1000)).entries == entries(1000)
    mended = [raw + b"!" for raw in entries(1000)]
    assert (await buffer.settle(keep=mended)).in_flight == 1000
    assert (await buffer.settle(dead=[DeadEntry(raw, "no") for raw in mended])).dead == 1000


@bounded
async def test_what_is_in_flight_does_not_count_against_the_bound_and_is_never_dropped(bench: Bench) -> None:
    buffer = bench.make(max_size=10)
    await buffer.push(entries(10))
    assert (await buffer.take(4)).entries == entries(4)
    assert await buffer.push(entries(6, first=10)) == Held(queued=10, in_flight=4, received=16, dropped=2)
    assert (await buffer.take(100)).entries == entries(4)


@bounded
async def test_a_take_ends_with_the_entry_that_passes_the_bound_in_bytes(bench: Bench) -> None:
    buffer = bench.make()
    half = TAKE_MAX_BYTES // 2
    large = [bytes([letter]) * (half + 1) for letter in b"abc"]
    await buffer.push(large)
    assert (await buffer.take(100)).entries == large[:2]
    await buffer.settle()
    assert (await buffer.take(100)).entries == large[2:]


@bounded
async def test_a_take_returns_one_entry_however_large_it_is(bench: Bench) -> None:
    buffer = bench.make()
    huge = bytes(TAKE_MAX_BYTES + 10)
    await buffer.push([huge, b"small"])
    assert (await buffer.take(100)).entries == [huge]


@bounded
async def test_taking_again_returns_what_is_in_flight_and_nothing_beside_it(bench: Bench) -> None:
    """REL-004: the answer to the take before may have been lost."""
    buffer = bench.make()
    await buffer.push(entries(10))
    assert (await buffer.take(3)).entries == entries(3)
    assert (await buffer.take(100)).entries == entries(3)
    assert await buffer.counts() == Held(queued=7, in_flight=3, received=10)


@bounded
async def test_settling_with_something_kept_replaces_what_is_in_flight(bench: Bench) -> None:
    """GOD-001: completed entries replace those that came without an id."""
    buffer = bench.make()
    await buffer.push(entries(3))
    await buffer.take(3)
    mended = [b"mended-0", b"mended-1", b"mended-2"]
    assert await buffer.settle(keep=mended) == Held(in_flight=3, received=3)
    assert (await buffer.take(100)).entries == mended


@bounded
async def test_settling_puts_the_dead_aside_and_counts_them(bench: Bench) -> None:
    buffer = bench.make()
    await buffer.push(entries(5))
    await buffer.take(4)
    dead = [DeadEntry(b"entry-1", "because"), DeadEntry(b"entry-2", "likewise")]
    assert await buffer.settle(keep=[b"entry-0", b"entry-3"], dead=dead) == Held(
        queued=1, in_flight=2, received=5, dead=2
    )
    assert bench.records() == [(b"entry-1", "because"), (b"entry-2", "likewise")]
    assert await buffer.settle() == Held(queued=1, received=5, stored=2, dead=2)


@bounded
async def test_settling_again_changes_nothing(bench: Bench) -> None:
    """REL-004: the answer may have been lost."""
    buffer = bench.make()
    await buffer.push(entries(5))
    await buffer.take(4)
    dead = [DeadEntry(b"entry-1", "because")]
    keep = [b"entry-0", b"entry-2", b"entry-3"]
    assert await buffer.settle(keep, dead) == await buffer.settle(keep, dead)
    assert bench.records() == [(b"entry-1", "because")]
    assert await buffer.settle() == await buffer.settle() == Held(queued=1, received=5, stored=3, dead=1)


@bounded
async def test_pushing_the_same_batch_again_pushes_it_once(bench: Bench) -> None:
    """REL-004: the answer to the push before may have been lost."""
    buffer = bench.make(max_size=4)
    await buffer.push(entries(3))
    once = await buffer.push(entries(3, first=3))
    assert await buffer.push(entries(3, first=3)) == once == Held(queued=4, received=6, dropped=2)
    assert bench.queue() == entries(4, first=2)


@bounded
async def test_the_same_batch_after_another_one_is_a_new_one(bench: Bench) -> None:
    buffer = bench.make()
    await buffer.push([b"a"])
    await buffer.push([b"b"])
    await buffer.push([b"a"])
    assert bench.queue() == [b"a", b"b", b"a"]


@bounded
async def test_handing_back_puts_what_is_in_flight_in_front_in_its_old_order(bench: Bench) -> None:
    """GOD-004: delivered in order when Dewey returns."""
    buffer = bench.make()
    await buffer.push(entries(6))
    await buffer.take(3)
    assert await buffer.hand_back() == Held(queued=6, received=6)
    assert await buffer.hand_back() == Held(queued=6, received=6)
    assert (await buffer.take(100)).entries == entries(6)


@bounded
async def test_handing_back_more_than_there_is_room_for_drops_the_oldest(bench: Bench) -> None:
    """GOD-005, PERF-003."""
    buffer = bench.make(max_size=10)
    await buffer.push(entries(10))
    await buffer.take(4)
    await buffer.push(entries(3, first=10))
    assert await buffer.hand_back() == Held(queued=10, received=13, dropped=3)
    assert bench.queue() == entries(10, first=3)


@bounded
async def test_what_a_stranger_pushed_counts_as_received_and_is_taken_in_its_turn(bench: Bench) -> None:
    """GOD-001."""
    buffer = bench.make()
    await buffer.push(entries(2))
    bench.stranger_pushes(b"foreign-1", b"foreign-2")
    assert await buffer.counts() == Held(queued=4, received=4)
    await buffer.push(entries(1, first=2))
    assert (await buffer.take(100)).entries == [*entries(2), b"foreign-1", b"foreign-2", *entries(1, first=2)]
    assert await buffer.settle() == Held(received=5, stored=5)


@bounded
async def test_what_waits_before_the_first_look_counts_as_received(bench: Bench) -> None:
    """GOD-001: strangers may be there before us."""
    buffer = bench.make()
    bench.stranger_pushes(b"foreign")
    assert (await buffer.take(100)).entries == [b"foreign"]
    assert await buffer.counts() == Held(in_flight=1, received=1)


@bounded
async def test_a_stranger_cannot_push_beyond_the_bound_for_longer_than_to_the_next_push(bench: Bench) -> None:
    """PERF-003."""
    buffer = bench.make(max_size=5)
    bench.stranger_pushes(*entries(8))
    assert await buffer.push([b"ours"]) == Held(queued=5, received=9, dropped=4)
    assert bench.queue() == [*entries(4, first=4), b"ours"]


@bounded
async def test_what_a_stranger_took_away_counts_as_dropped(bench: Bench) -> None:
    """GOD-005: every entry that was received is accounted for."""
    buffer = bench.make()
    await buffer.push(entries(5))
    bench.stranger_takes(2)
    assert await buffer.counts() == Held(queued=3, received=5, dropped=2)
    assert (await buffer.take(100)).entries == entries(3, first=2)
    assert await buffer.settle() == Held(received=5, stored=3, dropped=2)


@bounded
async def test_the_dead_are_bounded_but_all_counted(bench: Bench) -> None:
    buffer = bench.make(dead_max=3)
    await buffer.push(entries(5))
    await buffer.take(5)
    counts = await buffer.settle(dead=[DeadEntry(raw, "no") for raw in entries(5)])
    assert counts == Held(received=5, dead=5)
    assert [raw for raw, _ in bench.records()] == entries(3, first=2)


@bounded
async def test_looking_changes_nothing(bench: Bench) -> None:
    buffer = bench.make()
    await buffer.push(entries(3))
    bench.stranger_pushes(b"foreign")
    await buffer.take(2)
    assert await buffer.counts() == await buffer.counts() == Held(queued=2, in_flight=2, received=4)


# Dead letters


async def buried(bench: Bench, number: int, max_size: int = 100) -> Buffer:
    """Make a buffer with so many dead entries."""
    buffer = bench.make(max_size=max_size)
    await buffer.push(entries(number))
    await buffer.take(number)
    await buffer.settle(dead=[DeadEntry(raw, "no") for raw in entries(number)])
    return buffer


@bounded
async def test_dead_entries_are_shown_oldest_first_page_by_page(bench: Bench) -> None:
    buffer = await buried(bench, 5)
    first = await buffer.dead_letters(0, 3)
    assert (first.entries, first.kept) == ([DeadEntry(raw, "no") for raw in entries(3)], 5)
    rest = await buffer.dead_letters(3, 100)
    assert [each.raw for each in rest.entries] == entries(2, first=3)
    assert len({each.id for each in [*first.entries, *rest.entries]}) == 5
    assert (await buffer.dead_letters(5, 100)).entries == []
    assert (await buffer.dead_letters(0, 0)).kept == 5


@bounded
async def test_a_page_of_dead_entries_is_bounded_in_bytes(bench: Bench) -> None:
    buffer = bench.make()
    half = TAKE_MAX_BYTES // 2
    large = [bytes([letter]) * (half + 1) for letter in b"abc"]
    for each in large:
        await buffer.push([each])
        await buffer.take(1)
        await buffer.settle(dead=[DeadEntry(each, "large")])
    assert [each.raw for each in (await buffer.dead_letters(0, 10)).entries] == large[:2]
    assert await buffer.retry() == 3


@bounded
async def test_a_dead_entry_that_is_retried_is_the_oldest_of_the_queue_and_not_dead_any_more(bench: Bench) -> None:
    """REL-004: the equation holds."""
    buffer = await buried(bench, 5)
    await buffer.push([b"later"])
    (_, second, _, fourth, _) = (await buffer.dead_letters(0, 100)).entries
    assert await buffer.retry([second.id, fourth.id, "none of them"]) == 2
    assert await buffer.counts() == Held(queued=3, received=6, dead=3)
    assert await buffer.retry([second.id, fourth.id]) == 0
    assert (await buffer.take(100)).entries == [second.raw, fourth.raw, b"later"]
    assert [raw for raw, _ in bench.records()] == [b"entry-0", b"entry-2", b"entry-4"]
    assert await buffer.settle() == Held(received=6, stored=3, dead=3)


@bounded
async def test_all_the_dead_can_be_retried_and_die_again(bench: Bench) -> None:
    buffer = await buried(bench, 250, max_size=1000)
    assert await buffer.retry() == 250
    assert sorted((await buffer.take(1000)).entries) == sorted(entries(250))
    counts = await buffer.settle(dead=[DeadEntry(raw, "again") for raw in entries(250)])
    assert counts == Held(received=250, dead=250)
    assert {reason for _, reason in bench.records()} == {"again"}


@bounded
async def test_no_more_are_retried_than_the_queue_has_room_for(bench: Bench) -> None:
    """GOD-005: retrying must not make the queue drop anything."""
    buffer = await buried(bench, 10, max_size=10)
    await buffer.push(entries(7, first=10))
    assert await buffer.retry() == 3
    assert await buffer.counts() == Held(queued=10, received=17, dead=7)
    assert [raw for raw, _ in bench.records()] == entries(7, first=3)
    assert await buffer.retry() == 0


@bounded
async def test_equal_entries_that_died_of_the_same_are_one_to_look_at_and_each_is_moved(bench: Bench) -> None:
    buffer = bench.make()
    await buffer.push([b"same"] * 3)
    await buffer.take(3)
    await buffer.settle(dead=[DeadEntry(b"same", "no")] * 3)
    (entry_id,) = {each.id for each in (await buffer.dead_letters(0, 10)).entries}
    assert await buffer.retry([entry_id]) == 3
    assert bench.queue() == [b"same"] * 3


@bounded
async def test_purged_entries_are_gone_for_ever_and_stay_counted(bench: Bench) -> None:
    """REL-004: the equation holds."""
    buffer = await buried(bench, 230, max_size=1000)
    chosen = (await buffer.dead_letters(120, 2)).entries
    assert await buffer.purge([each.id for each in chosen]) == 2
    assert await buffer.purge([each.id for each in chosen]) == 0
    assert (await buffer.dead_letters(0, 0)).kept == 228
    assert await buffer.purge() == 228
    assert await buffer.purge() == 0
    assert bench.records() == []
    assert await buffer.counts() == Held(received=230, dead=230)


# Holes


def logged(component: str, minute: int) -> bytes:
    """Serialise an entry as the listener does."""
    value = {"component": component, "level": "INFO", "message": "m", "created_at": f"2026-11-20T08:{minute:02}:00Z"}
    return encode_entry(admit_json(value, []), [])


@bounded
async def test_a_run_of_drops_is_accounted_for_by_component_and_time(bench: Bench) -> None:
    """GOD-005: whoever wrote the entries, and however."""
    buffer = bench.make(max_size=10)
    foreign = {"level": "WARN", "message": "by hand", "component": 'ca"fé', "created_at": "2026-11-20 09:00"}
    await buffer.push([b"no JSON", logged("gates", 1), logged("relay", 2), logged("gates", 3), logged('q"\\', 4)])
    bench.stranger_pushes(json.dumps(foreign).encode(), b'{"component": 5}', b'{"component": ""}', b"[]", b"\xff")
    await buffer.push([*entries(5), logged("gates", 5)])
    await buffer.push(entries(4, first=5))
    runs: list[Drops] = []
    assert await buffer.hole(described(runs)) is None
    assert (await buffer.counts()).dropped == 10
    await buffer.take(1)
    assert await buffer.hole(described(runs)) == b"hole-1"
    assert runs == [
        Drops(
            dropped=10,
            first="2026-11-20T08:01:00.000000Z",
            last="2026-11-20 09:00",
            components={"gates": 2, "relay": 1, 'q"\\': 1, 'ca"fé': 1},
            others=5,
        )
    ]


@bounded
async def test_a_hole_is_told_once_and_counts_as_received_and_stored(bench: Bench) -> None:
    """GOD-005, REL-004: it is the same entry until it is told, whoever asks and however often."""
    buffer = bench.make(max_size=10)
    runs: list[Drops] = []
    assert await buffer.hole(described(runs)) is None
    await buffer.push(entries(15))
    await buffer.take(2)
    assert [await buffer.hole(described(runs)) for _ in range(3)] == [b"hole-1"] * 3
    before = await buffer.counts()
    assert before == Held(queued=8, in_flight=2, received=15, dropped=5)
    after = attrs.evolve(before, received=16, stored=1)
    assert await buffer.hole_told(b"hole-1") == await buffer.hole_told(b"hole-1") == after
    assert await buffer.hole(described(runs)) is None
    assert len(runs) == 1


@bounded
async def test_what_is_dropped_while_a_hole_waits_is_the_next_run(bench: Bench) -> None:
    """GOD-005: nothing can drop the hole itself."""
    buffer = bench.make(max_size=10)
    runs: list[Drops] = []
    await buffer.push(entries(15))
    await buffer.take(5)
    assert await buffer.hole(described(runs)) == b"hole-1"
    await buffer.push(entries(20, first=15))
    assert await buffer.hole(described(runs)) == b"hole-1"
    await buffer.hole_told(b"hole-1")
    assert await buffer.hole(described(runs)) is None
    await buffer.settle()
    await buffer.take(5)
    assert await buffer.hole(described(runs)) == b"hole-2"
    assert [run.dropped for run in runs] == [5, 15]
    assert_balanced(await buffer.hole_told(b"hole-2"))


@bounded
async def test_a_hole_that_cannot_be_stored_is_dead(bench: Bench) -> None:
    buffer = bench.make(max_size=10)
    await buffer.push(entries(15))
    await buffer.take(10)
    await buffer.hole(described([]))
    counts = await buffer.hole_told(b"hole-1", "refused")
    assert counts == Held(in_flight=10, received=16, dropped=5, dead=1)
    assert bench.records() == [(b"hole-1", "refused")]


@bounded
async def test_the_account_of_a_run_is_bounded_however_many_components_there_are(bench: Bench) -> None:
    buffer = bench.make(max_size=10)
    await buffer.push([logged(f"c{number}", 1) for number in range(130)])
    await buffer.push([logged("c3", 2)] * 10)
    await buffer.take(10)
    runs: list[Drops] = []
    await buffer.hole(described(runs))
    assert (runs[0].dropped, len(runs[0].components), runs[0].others) == (130, COMPONENTS_MAX, 30)
    assert set(runs[0].components) == {f"c{number}" for number in range(COMPONENTS_MAX)}


async def test_what_is_known_of_levels_is_noted_for_the_next_start(bench: Bench) -> None:
    """DEW-011."""
    buffer = bench.make()
    assert await buffer.noted_levels() is None
    await buffer.note_levels(b'{"relay":{}}')
    await buffer.note_levels(b"{}")
    assert await buffer.noted_levels() == b"{}"
