"""The contract of `Buffer`, kept by its two twins; and what only Redis can promise."""

from __future__ import annotations

import functools
import json
import random
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from itertools import count
from typing import Any, ParamSpec, Protocol

import attrs
import pytest
import trio

from godot.buffer.memory import MemoryBuffer
from godot.buffer.protocol import (
    COMPONENTS_MAX,
    DEAD_MAX_BYTES,
    QUEUE_MAX_BYTES,
    TAKE_MAX_BYTES,
    Buffer,
    Counts,
    DeadEntry,
    Drops,
    Taken,
)
from godot.buffer.redis import ACCOUNT_MS, LEASE_MS, RedisBuffer
from godot.buffer.redis.sending import SOCKET_TIMEOUT_S
from godot.entries.entry import MAX_ENTRY_BYTES, admit_json
from godot.entries.wire import encode_entry
from godot.errors import BufferUnavailable, ConfigError, NotInFlight
from godot.json.text import loads
from godot.mcp.toolbox import Toolbox
from godot.pipeline.dewey import DirectDewey
from godot.pipeline.sender import Sender
from tests.fakes import ENTRIES, Held
from tests.redis_servers import RedisServer

P = ParamSpec("P")

_numbers = count(1)


def bounded(test: Callable[P, Awaitable[None]]) -> Callable[P, Awaitable[None]]:
    """Give a test with real I/O a deadline."""

    @functools.wraps(test)
    async def under_deadline(*args: P.args, **kwargs: P.kwargs) -> None:
        with trio.fail_after(20):
            await test(*args, **kwargs)

    return under_deadline


def entries(number: int, first: int = 0) -> list[bytes]:
    return [b"entry-%d" % each for each in range(first, first + number)]


def assert_balanced(counts: Counts) -> None:
    """The equation that holds at every instant."""
    assert counts.received == counts.stored + counts.queued + counts.in_flight + counts.dropped + counts.dead


class Bench(Protocol):
    """A kind of buffer, and what strangers can do to it."""

    def make(
        self,
        max_size: int = 100,
        dead_max: int = 10_000,
        max_bytes: int = QUEUE_MAX_BYTES,
        dead_max_bytes: int = DEAD_MAX_BYTES,
        entry_max_bytes: int = MAX_ENTRY_BYTES,
    ) -> Buffer: ...

    def queue(self) -> list[bytes]:
        """Everything that is queued, oldest first."""

    def records(self) -> list[tuple[bytes, str]]:
        """What is dead and why, oldest first."""

    def stranger_pushes(self, *raws: bytes) -> None: ...

    def stranger_takes(self, number: int) -> None: ...


class MemoryBench:
    def make(
        self,
        max_size: int = 100,
        dead_max: int = 10_000,
        max_bytes: int = QUEUE_MAX_BYTES,
        dead_max_bytes: int = DEAD_MAX_BYTES,
        entry_max_bytes: int = MAX_ENTRY_BYTES,
    ) -> Buffer:
        self.buffer = MemoryBuffer(max_size, max_bytes, dead_max, dead_max_bytes, entry_max_bytes)
        return self.buffer

    def queue(self) -> list[bytes]:
        return list(self.buffer.queue)

    def records(self) -> list[tuple[bytes, str]]:
        return [(each.raw, each.reason) for each in self.buffer.dead]

    def stranger_pushes(self, *raws: bytes) -> None:
        self.buffer.queue.extend(raws)

    def stranger_takes(self, number: int) -> None:
        for _ in range(number):
            self.buffer.queue.popleft()


class RedisBench:
    """:param name: of the queue; no other test has it."""

    def __init__(self, server: RedisServer, client: Any) -> None:
        self.server, self.client = server, client
        self.name = f"logs:queue:{next(_numbers)}"

    def make(
        self,
        max_size: int = 100,
        dead_max: int = 10_000,
        max_bytes: int = QUEUE_MAX_BYTES,
        dead_max_bytes: int = DEAD_MAX_BYTES,
        entry_max_bytes: int = MAX_ENTRY_BYTES,
        daemon: str = "one",
    ) -> RedisBuffer:
        return RedisBuffer(
            self.server.url,
            queue=self.name,
            daemon=daemon,
            max_size=max_size,
            max_bytes=max_bytes,
            dead_max=dead_max,
            dead_max_bytes=dead_max_bytes,
            entry_max_bytes=entry_max_bytes,
        )

    def queue(self) -> list[bytes]:
        newest_first: list[bytes] = self.client.lrange(self.name, 0, -1)
        return newest_first[::-1]

    def records(self) -> list[tuple[bytes, str]]:
        newest_first = [json.loads(each) for each in self.client.lrange(f"{self.name}:dead", 0, -1)]
        return [(each["entry"].encode(), each["reason"]) for each in newest_first[::-1]]

    def stranger_pushes(self, *raws: bytes) -> None:
        self.client.lpush(self.name, *raws)

    def stranger_takes(self, number: int) -> None:
        self.client.rpop(self.name, number)


@pytest.fixture
def redis_bench(redis_server: RedisServer, stranger: Any) -> RedisBench:
    return RedisBench(redis_server, stranger)


@pytest.fixture(params=["memory", "redis"])
def bench(request: pytest.FixtureRequest) -> Bench:
    made: Bench = MemoryBench() if request.param == "memory" else request.getfixturevalue("redis_bench")
    return made


# Both


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


def described(runs: list[Drops]) -> Callable[[Drops], bytes]:
    """Describe a run by its number, and note it."""

    def describe(drops: Drops) -> bytes:
        runs.append(drops)
        return b"hole-%d" % len(runs)

    return describe


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


# Bytes


def sized(*sizes: int) -> list[bytes]:
    """Make entries of these sizes, each with a letter of its own."""
    return [bytes([ord("a") + number]) * size for number, size in enumerate(sizes)]


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


# The twins side by side


class Walk:
    """A random walk of a batcher, a sender and strangers."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.fresh = count()
        self.last: list[bytes] = []

    def new(self, most: int) -> list[bytes]:
        return [
            self.choose.choice((b"e%d", b'{"component":"a","message":"%d"}')) % next(self.fresh)
            + b" " * self.choose.choice((0, 0, 0, 0, 90, 90, 250, 450))
            for _ in range(self.choose.randint(1, most))
        ]

    def step(
        self, in_flight: Sequence[bytes], queued: int, dead: Sequence[DeadEntry], hole: bytes | None
    ) -> tuple[str, Any]:
        """Return what to do, and with what; the same for both twins."""
        match self.choose.choice(
            [
                "push",
                "push",
                "again",
                "take",
                "take",
                "done",
                "mend",
                "bury",
                "back",
                "in",
                "out",
                "retry",
                "purge",
                "hole",
                "told",
            ]
        ):
            case "push":
                self.last = self.new(8)
                return "push", (self.last,)
            case "again" if self.last:
                return "push", (self.last,)
            case "take":
                return "take", (self.choose.randint(1, 6),)
            case "done":
                return "settle", ()
            case "mend":
                return "settle", ([raw + b"'" for raw in in_flight],)
            case "bury":
                dying = [raw for raw in in_flight if self.choose.random() < 0.4]
                keep = [raw for raw in in_flight if raw not in dying]
                return "settle", (keep, [DeadEntry(raw, "no") for raw in dying])
            case "back":
                return "hand_back", ()
            case "in":
                return "stranger_pushes", tuple(self.new(3))
            case "retry" | "purge" as what:
                return what, ([each.id for each in dead if self.choose.random() < 0.4],)
            case "hole":
                return "hole", (as_bytes,)
            case "told" if hole:
                return "hole_told", (hole,)
            case "out" if queued:
                return "stranger_takes", (self.choose.randint(1, queued),)
        return "counts", ()


def as_bytes(drops: Drops) -> bytes:
    return repr(attrs.evolve(drops, components=dict(sorted(drops.components.items())))).encode()


@pytest.mark.parametrize("seed", range(8))
@bounded
async def test_the_twins_do_the_same_on_any_way_and_the_equation_holds_after_every_step(
    seed: int, redis_bench: RedisBench
) -> None:
    """REL-004, GOD-005: received = stored + queued + in flight + dropped + dead."""
    memory_bench = MemoryBench()
    max_bytes = (200, 900, 10_000)[seed % 3]
    benches: tuple[Bench, Bench] = (memory_bench, redis_bench)
    twins = [
        (each, each.make(max_size=20, max_bytes=max_bytes, dead_max_bytes=900, entry_max_bytes=400)) for each in benches
    ]
    walk = Walk(seed)
    in_flight: list[bytes] = []
    strange: set[bytes] = set()
    received = 0
    hole: bytes | None = None
    for _ in range(160):
        what, arguments = walk.step(in_flight, len(memory_bench.queue()), list(memory_bench.buffer.dead), hole)
        results: list[Any] = []
        for each, buffer in twins:
            if what.startswith("stranger"):
                getattr(each, what)(*arguments)
                strange.update(arguments if what == "stranger_pushes" else ())
                results.append(await buffer.counts())
            else:
                results.append(await getattr(buffer, what)(*arguments))
            if isinstance(results[-1], Counts):
                results[-1] = attrs.evolve(results[-1], began=0)
        assert results[0] == results[1], what
        if what == "take":
            in_flight = results[0].entries
            assert results[0].unchecked or strange.isdisjoint(in_flight)
        elif what == "settle":
            in_flight = list(arguments[0]) if arguments else []
        elif what == "hand_back":
            in_flight = []
        elif what == "hole":
            hole = results[0]
        counts = await twins[0][1].counts()
        assert counts == attrs.evolve(await twins[1][1].counts(), began=0)
        assert_balanced(counts)
        assert counts.in_flight == len(in_flight)
        if what == "push" and counts.received > received:  # a push again is none
            assert counts.queued <= 20
            assert counts.queued_bytes <= max_bytes
        received = counts.received
        assert memory_bench.queue() == redis_bench.queue()
    assert memory_bench.records() == redis_bench.records()


# Redis only


@bounded
async def test_every_key_begins_with_the_name_of_the_queue_so_that_a_cluster_keeps_them_together(
    redis_bench: RedisBench, stranger: Any
) -> None:
    redis_bench.name = f"{{logs}}:queue:{next(_numbers)}"
    buffer = redis_bench.make()
    before = set(stranger.keys("*"))
    await buffer.push(entries(103))
    await buffer.take(20)
    await buffer.hole(described([]))
    await buffer.push(entries(30, first=103))
    await buffer.settle(keep=[b"entry-3"], dead=[DeadEntry(b"entry-4", "no")])
    new = {key.decode() for key in set(stranger.keys("*")) - before}
    own = ("inflight:one", "lease:one", "flight:one", "pushed:one")
    parts = (*own, "daemons", "dead", "counts", "drops", "hole")
    assert new == {redis_bench.name, *(f"{redis_bench.name}:{part}" for part in parts)}
    await buffer.hand_back()


@bounded
async def test_a_daemon_that_starts_again_under_its_name_finds_what_it_had_in_flight(redis_bench: RedisBench) -> None:
    """REL-004."""
    before = redis_bench.make()
    await before.push(entries(5))
    await before.take(3)
    after = redis_bench.make()
    assert await after.counts() == Held(queued=2, in_flight=3, received=5)
    assert (await after.take(100)).entries == entries(3)
    await after.hand_back()
    assert (await after.take(100)).entries == entries(5)


@bounded
async def test_two_daemons_on_one_queue_share_the_work_and_nothing_is_lost_or_done_twice(
    redis_bench: RedisBench,
) -> None:
    """REL-004."""
    delivered: list[bytes] = []
    shares: dict[str, int] = {}

    async def deliver(name: str) -> None:
        buffer = redis_bench.make(daemon=name, max_size=10_000)
        while batch := (await buffer.take(7)).entries:
            delivered.extend(batch)
            shares[name] = shares.get(name, 0) + 1
            await buffer.settle()

    await redis_bench.make(daemon="one", max_size=10_000).push(entries(500))
    await redis_bench.make(daemon="two", max_size=10_000).push(entries(500, first=500))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver, "one")
        nursery.start_soon(deliver, "two")
    assert sorted(delivered) == sorted(entries(1000))
    assert set(shares) == {"one", "two"}
    assert await redis_bench.make().counts() == Held(received=1000, stored=1000)


@bounded
async def test_the_batch_of_another_daemon_comes_back_only_when_its_lease_is_gone(
    redis_bench: RedisBench, stranger: Any
) -> None:
    """REL-004: a dead sender loses nothing, a living one is left alone."""
    living, dead = redis_bench.make(daemon="living"), redis_bench.make(daemon="dead")
    await dead.push(entries(6))
    await dead.take(4)
    assert await living.hand_back() == Held(queued=2, in_flight=4, received=6)
    lease = f"{redis_bench.name}:lease:dead"
    assert 0 < stranger.pttl(lease) <= LEASE_MS
    stranger.delete(lease)
    assert await living.hand_back() == Held(queued=6, received=6)
    assert (await living.take(100)).entries == entries(6)
    # It was not dead after all: nothing of what it took is its own any more.
    for settling in (dead.settle(), dead.settle(keep=entries(4)), dead.settle(dead=[DeadEntry(b"entry-0", "no")])):
        with pytest.raises(NotInFlight):
            await settling
    assert await living.settle() == Held(received=6, stored=6)
    assert (await dead.take(100)).entries == []


@pytest.mark.parametrize("when", ["before it completes", "before it sends", "before it settles"])
@bounded
async def test_an_entry_without_id_is_stored_under_one_id_when_a_daemon_sleeps_longer_than_its_lease(
    when: str, redis_bench: RedisBench, stranger: Any
) -> None:
    """GOD-001, REL-004: whenever it slept, nothing is stored under ids that Redis did not keep."""
    stored: list[Any] = []

    class Dewey(DirectDewey):
        """Stores, after a sleep when it is told to."""

        sleeps = False

        async def store(self, entries: Sequence[bytes]) -> None:
            if self.sleeps and when == "before it sends":
                await sleep(self)
            stored.extend(loads(raw)["id"] for raw in entries)
            if self.sleeps and when == "before it settles":
                await sleep(self)

    class Buffer(RedisBuffer):
        async def take(self, limit: int) -> Taken:
            batch = await super().take(limit)
            if batch.entries and dewey.sleeps and when == "before it completes":
                await sleep(dewey)
            return batch

    async def sleep(sleeper: Dewey) -> None:
        """Let the lease run out, and another daemon do all of its work meanwhile."""
        sleeper.sleeps = False
        stranger.delete(f"{redis_bench.name}:lease:sleeper")
        await deliver(redis_bench.make(daemon="other"), Dewey(Toolbox([])))

    async def deliver(buffer: RedisBuffer, dewey: Dewey) -> None:
        wake, pushed = trio.open_memory_channel[None](1)
        wake.close()
        failures: list[object] = []
        sender = Sender(
            buffer,
            dewey,
            pushed,
            batch_size=10,
            on_counts=assert_balanced,
            on_failure=failures.append,
            on_delivery=lambda: None,
        )
        await sender.run()
        assert failures == []

    redis_bench.stranger_pushes(b'{"component": "gates", "level": "INFO", "message": "of others"}')
    dewey = Dewey(Toolbox([]))
    dewey.sleeps = True
    await deliver(Buffer(redis_bench.server.url, queue=redis_bench.name, daemon="sleeper", max_size=100), dewey)
    assert len(set(stored)) == 1
    assert await redis_bench.make().counts() == Held(received=1, stored=1)


@bounded
async def test_a_settlement_that_comes_after_the_batch_went_back_and_was_taken_again_by_the_same_daemon_is_none(
    redis_bench: RedisBench,
) -> None:
    """REL-004: it was still on its way when its sender had given it up."""
    before, after = redis_bench.make(), redis_bench.make()
    await before.push(entries(3))
    await before.take(3)
    await after.hand_back()
    assert (await after.take(2)).entries == entries(2)
    with pytest.raises(NotInFlight):
        await before.settle()
    assert await after.settle() == Held(queued=1, received=3, stored=2)


@bounded
async def test_a_queue_of_an_older_godot_without_a_total_of_bytes_gets_one_at_the_first_push(
    redis_bench: RedisBench, stranger: Any
) -> None:
    """GOD-005: and the numbers that it kept for each daemon that ever was are cleaned away."""
    counts = f"{redis_bench.name}:counts"
    redis_bench.stranger_pushes(*sized(30, 30))
    old = {"expected": 2, "received": 7, "stored": 5, "flight:gone-1": 3, "pushed:gone-1": "x", "flight:gone-2": 1}
    stranger.hset(counts, mapping=old)
    buffer = redis_bench.make(max_bytes=100)
    pushed = await buffer.push(sized(40))
    assert pushed == Held(queued=3, received=8, stored=5)
    assert pushed.queued_bytes == 100
    assert (await buffer.push([b"x"])).dropped == 1
    assert not [field for field in stranger.hkeys(counts) if b":" in field]


@bounded
async def test_daemons_long_gone_leave_nothing_behind(redis_bench: RedisBench, stranger: Any) -> None:
    """Each container has a name of its own: what is kept by name expires."""
    for number in range(20):
        buffer = redis_bench.make(daemon=f"container-{number}")
        await buffer.push([b"%d" % number])
        await buffer.take(10)
        await buffer.settle()
    await redis_bench.make().hand_back()
    of_daemons = [key for key in stranger.keys(f"{redis_bench.name}:*") if b"container-" in key]
    assert of_daemons
    assert all(0 < stranger.pttl(key) <= ACCOUNT_MS for key in of_daemons)
    assert not [field for field in stranger.hkeys(f"{redis_bench.name}:counts") if b"container-" in field]


@pytest.mark.parametrize("what", ["push", "take", "settle", "hand_back", "retry"])
@bounded
async def test_counts_that_are_lost_begin_anew_with_what_is_there_and_the_equation_holds(
    what: str, redis_bench: RedisBench, stranger: Any
) -> None:
    """REL-004: evicted by a cache's policy, or deleted; whatever comes next."""
    buffer = redis_bench.make()
    await buffer.push(entries(8))
    await buffer.take(1)
    await buffer.settle(dead=[DeadEntry(b"entry-0", "no")])
    await buffer.take(3)
    before = await buffer.counts()
    stranger.delete(f"{redis_bench.name}:counts")
    act: dict[str, Callable[[], Awaitable[Any]]] = {
        "push": lambda: buffer.push([b"new"]),
        "take": lambda: buffer.take(3),
        "settle": buffer.settle,
        "hand_back": buffer.hand_back,
        "retry": buffer.retry,
    }
    await act[what]()
    await buffer.take(10)
    await buffer.settle()
    await buffer.retry()
    await buffer.hand_back()
    after = await buffer.counts()
    assert after.began > before.began > 0
    assert_balanced(after)
    assert all(number >= 0 for number in ENTRIES(after))
    assert after.queued_bytes == sum(map(len, redis_bench.queue()))


@bounded
async def test_a_server_that_was_emptied_while_we_run_is_noticed_by_when_counting_began(
    own_redis: RedisServer, own_stranger: Any
) -> None:
    """FLUSHALL by an operator."""
    buffer = RedisBuffer(own_redis.url, queue="logs:queue", daemon="one", max_size=10)
    before = await buffer.push(entries(3))
    await buffer.take(2)
    own_stranger.flushall()
    with pytest.raises(NotInFlight):
        await buffer.settle()
    after = await buffer.push(entries(3))
    assert after == Held(queued=3, received=3)
    assert after.began > before.began > 0


@bounded
async def test_two_daemons_that_push_equal_batches_both_push_them(redis_bench: RedisBench) -> None:
    await redis_bench.make(daemon="one").push([b"same"])
    counts = await redis_bench.make(daemon="two").push([b"same"])
    assert counts == Held(queued=2, received=2)


@bounded
async def test_the_digest_tells_apart_batches_whose_bytes_are_split_differently(redis_bench: RedisBench) -> None:
    buffer = redis_bench.make()
    await buffer.push([b"ab", b"c"])
    await buffer.push([b"a", b"bc"])
    assert redis_bench.queue() == [b"ab", b"c", b"a", b"bc"]


@bounded
async def test_an_idle_look_writes_nothing(redis_bench: RedisBench, stranger: Any) -> None:
    """An idle sender looks ten times a second; each write would be an fsync."""
    buffer = redis_bench.make()
    await buffer.push(entries(1))
    await buffer.take(1)
    await buffer.settle()
    await buffer.counts()  # Redis writes each script down once
    before = stranger.info("persistence")["aof_current_size"]
    for _ in range(10):
        assert (await buffer.take(100)).entries == []
        await buffer.counts()
    assert stranger.info("persistence")["aof_current_size"] == before


@pytest.fixture
def own_stranger(own_redis: RedisServer) -> Iterator[Any]:
    with closing(own_redis.client()) as client:
        yield client


@bounded
async def test_a_redis_that_was_killed_is_unavailable_and_has_everything_when_it_is_back(
    own_redis: RedisServer,
) -> None:
    """REL-001, REL-004: what was acknowledged survives kill -9."""
    buffer = RedisBuffer(own_redis.url, queue="logs:queue", daemon="one", max_size=6)
    await buffer.push(entries(8))
    await buffer.take(3)
    await buffer.settle(keep=[b"entry-3", b"entry-4"], dead=[DeadEntry(b"entry-2", "no")])
    held = await buffer.counts()
    assert held == Held(queued=3, in_flight=2, received=8, dropped=2, dead=1)
    own_redis.kill()
    for failing in (buffer.push([b"x"]), buffer.take(1), buffer.settle(), buffer.hand_back(), buffer.counts()):
        with pytest.raises(BufferUnavailable, match=r"^Redis: "):
            await failing
    own_redis.start()
    assert await buffer.counts() == held
    await buffer.hand_back()
    assert (await buffer.take(100)).entries == entries(5, first=3)
    await buffer.settle()
    await buffer.push([b"x"])
    assert await buffer.counts() == Held(queued=1, received=9, stored=5, dropped=2, dead=1)


@bounded
async def test_a_push_whose_answer_was_lost_is_pushed_once_and_the_wait_for_it_is_bounded(
    own_redis: RedisServer,
) -> None:
    """REL-004: a Redis that hangs is unavailable after a while; its answer may come when nobody waits."""
    buffer = RedisBuffer(own_redis.url, queue="logs:queue", daemon="one", max_size=100)
    await buffer.push(entries(1))
    own_redis.signal(signal.SIGSTOP)
    started = trio.current_time()
    with pytest.raises(BufferUnavailable):
        await buffer.push(entries(2, first=1))
    assert trio.current_time() - started <= 3 * SOCKET_TIMEOUT_S
    own_redis.signal(signal.SIGCONT)
    assert await buffer.push(entries(2, first=1)) == Held(queued=3, received=3)
    assert (await buffer.take(100)).entries == entries(3)


@bounded
async def test_a_redis_without_memory_takes_nothing_more_but_can_be_emptied(
    own_redis: RedisServer, own_stranger: Any
) -> None:
    """GOD-004: otherwise a full Redis would stay full for ever."""
    buffer = RedisBuffer(own_redis.url, queue="logs:queue", daemon="one", max_size=100)
    await buffer.push(entries(10))
    own_stranger.config_set("maxmemory-policy", "noeviction")
    own_stranger.config_set("maxmemory", "1")
    with pytest.raises(BufferUnavailable, match="OOM"):
        await buffer.push([b"more"])
    assert await buffer.counts() == Held(queued=10, received=10)  # all or nothing
    assert (await buffer.take(4)).entries == entries(4)
    await buffer.hand_back()
    assert (await buffer.take(4)).entries == entries(4)
    await buffer.settle(keep=entries(3), dead=[DeadEntry(b"entry-3", "no")])
    assert await buffer.settle() == Held(queued=6, received=10, stored=3, dead=1)
    assert (await buffer.take(100)).entries == entries(6, first=4)
    assert await buffer.settle() == Held(received=10, stored=9, dead=1)
    own_stranger.config_set("maxmemory", "0")
    assert await buffer.push([b"more"]) == Held(queued=1, received=11, stored=9, dead=1)


@bounded
async def test_a_key_that_holds_something_else_is_unavailable_and_is_left_alone(
    redis_bench: RedisBench, stranger: Any
) -> None:
    stranger.set(redis_bench.name, "not a list")
    with pytest.raises(BufferUnavailable, match="WRONGTYPE"):
        await redis_bench.make().push(entries(1))
    assert stranger.get(redis_bench.name) == b"not a list"


async def test_what_is_no_url_is_a_fault_of_the_operators() -> None:
    with pytest.raises(ConfigError, match=r"^REDIS_URL: "):
        RedisBuffer("localhost:6379", queue="q", daemon="d", max_size=1)


async def test_what_is_known_of_levels_is_noted_for_the_next_start(bench: Bench) -> None:
    """DEW-011."""
    buffer = bench.make()
    assert await buffer.noted_levels() is None
    await buffer.note_levels(b'{"relay":{}}')
    await buffer.note_levels(b"{}")
    assert await buffer.noted_levels() == b"{}"
