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

from godot.buffer import TAKE_MAX_BYTES, Buffer, Counts, DeadEntry, MemoryBuffer
from godot.errors import BufferUnavailable, ConfigError
from godot.redis_buffer import LEASE_MS, RedisBuffer

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


class RedisServer(Protocol):
    """What a test does to a real Redis; see conftest.py."""

    url: str

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def signal(self, number: signal.Signals) -> None: ...

    def client(self) -> Any: ...


class Bench(Protocol):
    """A kind of buffer, and what strangers can do to it."""

    def make(self, max_size: int = 100, dead_max: int = 10_000) -> Buffer: ...

    def queue(self) -> list[bytes]:
        """Everything that is queued, oldest first."""

    def graves(self) -> list[tuple[bytes, str]]:
        """What is dead and why, oldest first."""

    def stranger_pushes(self, *raws: bytes) -> None: ...

    def stranger_takes(self, number: int) -> None: ...


class MemoryBench:
    def make(self, max_size: int = 100, dead_max: int = 10_000) -> Buffer:
        self.buffer = MemoryBuffer(max_size, dead_max)
        return self.buffer

    def queue(self) -> list[bytes]:
        return list(self.buffer.queue)

    def graves(self) -> list[tuple[bytes, str]]:
        return [(each.raw, each.reason) for each in self.buffer.dead]

    def stranger_pushes(self, *raws: bytes) -> None:
        self.buffer.queue.extend(raws)

    def stranger_takes(self, number: int) -> None:
        for _ in range(number):
            self.buffer.queue.popleft()


class RedisBench:
    """:param name: of the queue; no other test has it."""

    def __init__(self, server: RedisServer, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server, self.client, self.monkeypatch = server, client, monkeypatch
        self.name = f"logs:queue:{next(_numbers)}"

    def make(self, max_size: int = 100, dead_max: int = 10_000, daemon: str = "one") -> RedisBuffer:
        self.monkeypatch.setattr("godot.redis_buffer.DEAD_MAX", dead_max)
        return RedisBuffer(self.server.url, queue=self.name, daemon=daemon, max_size=max_size)

    def queue(self) -> list[bytes]:
        newest_first: list[bytes] = self.client.lrange(self.name, 0, -1)
        return newest_first[::-1]

    def graves(self) -> list[tuple[bytes, str]]:
        newest_first = [json.loads(each) for each in self.client.lrange(f"{self.name}:dead", 0, -1)]
        return [(each["entry"].encode(), each["reason"]) for each in newest_first[::-1]]

    def stranger_pushes(self, *raws: bytes) -> None:
        self.client.lpush(self.name, *raws)

    def stranger_takes(self, number: int) -> None:
        self.client.rpop(self.name, number)


@pytest.fixture
def redis_bench(redis_server: RedisServer, stranger: Any, monkeypatch: pytest.MonkeyPatch) -> RedisBench:
    return RedisBench(redis_server, stranger, monkeypatch)


@pytest.fixture(params=["memory", "redis"])
def bench(request: pytest.FixtureRequest) -> Bench:
    made: Bench = MemoryBench() if request.param == "memory" else request.getfixturevalue("redis_bench")
    return made


# Both


@bounded
async def test_a_new_buffer_holds_nothing(bench: Bench) -> None:
    buffer = bench.make()
    assert await buffer.counts() == Counts()
    assert await buffer.take(100) == []
    assert await buffer.settle() == Counts()
    assert await buffer.hand_back() == Counts()


@bounded
async def test_entries_come_out_in_the_order_they_went_in(bench: Bench) -> None:
    """GOD-001: the head is the newest, the tail the oldest."""
    buffer = bench.make()
    await buffer.push(entries(3))
    assert await buffer.push(entries(2, first=3)) == Counts(queued=5, received=5)
    assert bench.queue() == entries(5)
    assert await buffer.take(2) == entries(2)
    await buffer.settle()
    assert await buffer.take(100) == entries(3, first=2)
    assert await buffer.settle() == Counts(received=5, stored=5)


@bounded
async def test_entries_are_bytes_and_come_out_as_they_went_in(bench: Bench) -> None:
    buffer = bench.make()
    odd = [b"", b"\x00\xff\r\n", "ü✓".encode(), b"same", b"same", bytes(1_000_000)]
    await buffer.push(odd)
    assert await buffer.take(10) == odd


@bounded
async def test_beyond_the_bound_the_oldest_are_dropped_with_the_push_and_counted(bench: Bench) -> None:
    """GOD-005, PERF-003: the queue never exceeds its bound, and every drop is counted."""
    buffer = bench.make(max_size=10)
    await buffer.push(entries(8))
    assert await buffer.push(entries(7, first=8)) == Counts(queued=10, received=15, dropped=5)
    assert bench.queue() == entries(10, first=5)


@bounded
async def test_a_batch_larger_than_the_bound_leaves_its_newest(bench: Bench) -> None:
    """GOD-005."""
    buffer = bench.make(max_size=10)
    assert await buffer.push(entries(25)) == Counts(queued=10, received=25, dropped=15)
    assert bench.queue() == entries(10, first=15)


@bounded
async def test_a_thousand_entries_go_in_and_out_at_once(bench: Bench) -> None:
    """DEW-001: the largest batch there is."""
    buffer = bench.make(max_size=5000)
    await buffer.push(entries(1000))
    assert await buffer.take(1000) == entries(1000)
    mended = [raw + b"!" for raw in entries(1000)]
    assert (await buffer.settle(keep=mended)).in_flight == 1000
    assert (await buffer.settle(dead=[DeadEntry(raw, "no") for raw in mended])).dead == 1000


@bounded
async def test_what_is_in_flight_does_not_count_against_the_bound_and_is_never_dropped(bench: Bench) -> None:
    buffer = bench.make(max_size=10)
    await buffer.push(entries(10))
    assert await buffer.take(4) == entries(4)
    assert await buffer.push(entries(6, first=10)) == Counts(queued=10, in_flight=4, received=16, dropped=2)
    assert await buffer.take(100) == entries(4)


@bounded
async def test_a_take_ends_with_the_entry_that_passes_the_bound_in_bytes(bench: Bench) -> None:
    buffer = bench.make()
    half = TAKE_MAX_BYTES // 2
    large = [bytes([letter]) * (half + 1) for letter in b"abc"]
    await buffer.push(large)
    assert await buffer.take(100) == large[:2]
    await buffer.settle()
    assert await buffer.take(100) == large[2:]


@bounded
async def test_a_take_returns_one_entry_however_large_it_is(bench: Bench) -> None:
    buffer = bench.make()
    huge = bytes(TAKE_MAX_BYTES + 10)
    await buffer.push([huge, b"small"])
    assert await buffer.take(100) == [huge]


@bounded
async def test_taking_again_returns_what_is_in_flight_and_nothing_beside_it(bench: Bench) -> None:
    """REL-004: the answer to the take before may have been lost."""
    buffer = bench.make()
    await buffer.push(entries(10))
    assert await buffer.take(3) == entries(3)
    assert await buffer.take(100) == entries(3)
    assert await buffer.counts() == Counts(queued=7, in_flight=3, received=10)


@bounded
async def test_settling_with_something_kept_replaces_what_is_in_flight(bench: Bench) -> None:
    """GOD-001: completed entries replace those that came without an id."""
    buffer = bench.make()
    await buffer.push(entries(3))
    await buffer.take(3)
    mended = [b"mended-0", b"mended-1", b"mended-2"]
    assert await buffer.settle(keep=mended) == Counts(in_flight=3, received=3)
    assert await buffer.take(100) == mended


@bounded
async def test_settling_puts_the_dead_aside_and_counts_them(bench: Bench) -> None:
    buffer = bench.make()
    await buffer.push(entries(5))
    await buffer.take(4)
    dead = [DeadEntry(b"entry-1", "because"), DeadEntry(b"entry-2", "likewise")]
    assert await buffer.settle(keep=[b"entry-0", b"entry-3"], dead=dead) == Counts(
        queued=1, in_flight=2, received=5, dead=2
    )
    assert bench.graves() == [(b"entry-1", "because"), (b"entry-2", "likewise")]
    assert await buffer.settle() == Counts(queued=1, received=5, stored=2, dead=2)


@bounded
async def test_settling_again_changes_nothing(bench: Bench) -> None:
    """REL-004: the answer may have been lost."""
    buffer = bench.make()
    await buffer.push(entries(5))
    await buffer.take(4)
    dead = [DeadEntry(b"entry-1", "because")]
    keep = [b"entry-0", b"entry-2", b"entry-3"]
    assert await buffer.settle(keep, dead) == await buffer.settle(keep, dead)
    assert bench.graves() == [(b"entry-1", "because")]
    assert await buffer.settle() == await buffer.settle() == Counts(queued=1, received=5, stored=3, dead=1)


@bounded
async def test_pushing_the_same_batch_again_pushes_it_once(bench: Bench) -> None:
    """REL-004: the answer to the push before may have been lost."""
    buffer = bench.make(max_size=4)
    await buffer.push(entries(3))
    once = await buffer.push(entries(3, first=3))
    assert await buffer.push(entries(3, first=3)) == once == Counts(queued=4, received=6, dropped=2)
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
    assert await buffer.hand_back() == Counts(queued=6, received=6)
    assert await buffer.hand_back() == Counts(queued=6, received=6)
    assert await buffer.take(100) == entries(6)


@bounded
async def test_handing_back_more_than_there_is_room_for_drops_the_oldest(bench: Bench) -> None:
    """GOD-005, PERF-003."""
    buffer = bench.make(max_size=10)
    await buffer.push(entries(10))
    await buffer.take(4)
    await buffer.push(entries(3, first=10))
    assert await buffer.hand_back() == Counts(queued=10, received=13, dropped=3)
    assert bench.queue() == entries(10, first=3)


@bounded
async def test_what_a_stranger_pushed_counts_as_received_and_is_taken_in_its_turn(bench: Bench) -> None:
    """GOD-001."""
    buffer = bench.make()
    await buffer.push(entries(2))
    bench.stranger_pushes(b"foreign-1", b"foreign-2")
    assert await buffer.counts() == Counts(queued=4, received=4)
    await buffer.push(entries(1, first=2))
    assert await buffer.take(100) == [*entries(2), b"foreign-1", b"foreign-2", *entries(1, first=2)]
    assert await buffer.settle() == Counts(received=5, stored=5)


@bounded
async def test_what_waits_before_the_first_look_counts_as_received(bench: Bench) -> None:
    """GOD-001: strangers may be there before us."""
    buffer = bench.make()
    bench.stranger_pushes(b"foreign")
    assert await buffer.take(100) == [b"foreign"]
    assert await buffer.counts() == Counts(in_flight=1, received=1)


@bounded
async def test_a_stranger_cannot_push_beyond_the_bound_for_longer_than_to_the_next_push(bench: Bench) -> None:
    """PERF-003."""
    buffer = bench.make(max_size=5)
    bench.stranger_pushes(*entries(8))
    assert await buffer.push([b"ours"]) == Counts(queued=5, received=9, dropped=4)
    assert bench.queue() == [*entries(4, first=4), b"ours"]


@bounded
async def test_what_a_stranger_took_away_counts_as_dropped(bench: Bench) -> None:
    """GOD-005: every entry that was received is accounted for."""
    buffer = bench.make()
    await buffer.push(entries(5))
    bench.stranger_takes(2)
    assert await buffer.counts() == Counts(queued=3, received=5, dropped=2)
    assert await buffer.take(100) == entries(3, first=2)
    assert await buffer.settle() == Counts(received=5, stored=3, dropped=2)


@bounded
async def test_the_dead_are_bounded_but_all_counted(bench: Bench) -> None:
    buffer = bench.make(dead_max=3)
    await buffer.push(entries(5))
    await buffer.take(5)
    counts = await buffer.settle(dead=[DeadEntry(raw, "no") for raw in entries(5)])
    assert counts == Counts(received=5, dead=5)
    assert [raw for raw, _ in bench.graves()] == entries(3, first=2)


@bounded
async def test_looking_changes_nothing(bench: Bench) -> None:
    buffer = bench.make()
    await buffer.push(entries(3))
    bench.stranger_pushes(b"foreign")
    await buffer.take(2)
    assert await buffer.counts() == await buffer.counts() == Counts(queued=2, in_flight=2, received=4)


# The twins side by side


class Walk:
    """A random walk of a batcher, a sender and strangers."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.fresh = count()
        self.last: list[bytes] = []

    def new(self, most: int) -> list[bytes]:
        return [b"e%d" % next(self.fresh) for _ in range(self.choose.randint(1, most))]

    def step(self, in_flight: Sequence[bytes], queued: int) -> tuple[str, Any]:
        """Return what to do, and with what; the same for both twins."""
        match self.choose.choice(
            ["push", "push", "again", "take", "take", "done", "mend", "bury", "back", "in", "out"]
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
                dead = [raw for raw in in_flight if self.choose.random() < 0.4]
                return "settle", ([raw for raw in in_flight if raw not in dead], [DeadEntry(raw, "no") for raw in dead])
            case "back":
                return "hand_back", ()
            case "in":
                return "stranger_pushes", tuple(self.new(3))
            case "out" if queued:
                return "stranger_takes", (self.choose.randint(1, queued),)
        return "counts", ()


@pytest.mark.parametrize("seed", range(8))
@bounded
async def test_the_twins_do_the_same_on_any_way_and_the_equation_holds_after_every_step(
    seed: int, redis_bench: RedisBench
) -> None:
    """REL-004, GOD-005: received = stored + queued + in flight + dropped + dead."""
    memory_bench = MemoryBench()
    twins: list[tuple[Bench, Buffer]] = [(each, each.make(max_size=20)) for each in (memory_bench, redis_bench)]
    walk = Walk(seed)
    in_flight: list[bytes] = []
    received = 0
    for _ in range(120):
        what, arguments = walk.step(in_flight, len(memory_bench.queue()))
        results: list[Any] = []
        for each, buffer in twins:
            if what.startswith("stranger"):
                getattr(each, what)(*arguments)
                results.append(await buffer.counts())
            else:
                results.append(await getattr(buffer, what)(*arguments))
        assert results[0] == results[1], what
        if what == "take":
            in_flight = results[0]
        elif what == "settle":
            in_flight = list(arguments[0]) if arguments else []
        elif what == "hand_back":
            in_flight = []
        counts = await twins[0][1].counts()
        assert counts == await twins[1][1].counts()
        assert_balanced(counts)
        assert counts.in_flight == len(in_flight)
        if what == "push" and counts.received > received:  # a push again is none
            assert counts.queued <= 20
        received = counts.received
        assert memory_bench.queue() == redis_bench.queue()
    assert memory_bench.graves() == redis_bench.graves()


# Redis only


@bounded
async def test_every_key_begins_with_the_name_of_the_queue_so_that_a_cluster_keeps_them_together(
    redis_bench: RedisBench, stranger: Any
) -> None:
    redis_bench.name = f"{{logs}}:queue:{next(_numbers)}"
    buffer = redis_bench.make()
    before = set(stranger.keys("*"))
    await buffer.push(entries(3))
    await buffer.take(2)
    await buffer.settle(keep=[b"entry-0"], dead=[DeadEntry(b"entry-1", "no")])
    new = {key.decode() for key in set(stranger.keys("*")) - before}
    parts = ("inflight:one", "lease:one", "daemons", "dead", "counts")
    assert new == {redis_bench.name, *(f"{redis_bench.name}:{part}" for part in parts)}
    await buffer.hand_back()


@bounded
async def test_a_daemon_that_starts_again_under_its_name_finds_what_it_had_in_flight(redis_bench: RedisBench) -> None:
    """REL-004."""
    before = redis_bench.make()
    await before.push(entries(5))
    await before.take(3)
    after = redis_bench.make()
    assert await after.counts() == Counts(queued=2, in_flight=3, received=5)
    assert await after.take(100) == entries(3)
    await after.hand_back()
    assert await after.take(100) == entries(5)


@bounded
async def test_two_daemons_on_one_queue_share_the_work_and_nothing_is_lost_or_done_twice(
    redis_bench: RedisBench,
) -> None:
    """REL-004."""
    delivered: list[bytes] = []
    shares: dict[str, int] = {}

    async def deliver(name: str) -> None:
        buffer = redis_bench.make(daemon=name, max_size=10_000)
        while batch := await buffer.take(7):
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
    assert await redis_bench.make().counts() == Counts(received=1000, stored=1000)


@bounded
async def test_the_batch_of_another_daemon_comes_back_only_when_its_lease_is_gone(
    redis_bench: RedisBench, stranger: Any
) -> None:
    """REL-004: a dead sender loses nothing, a living one is left alone."""
    living, dead = redis_bench.make(daemon="living"), redis_bench.make(daemon="dead")
    await dead.push(entries(6))
    await dead.take(4)
    assert await living.hand_back() == Counts(queued=2, in_flight=4, received=6)
    lease = f"{redis_bench.name}:lease:dead"
    assert 0 < stranger.pttl(lease) <= LEASE_MS
    stranger.delete(lease)
    assert await living.hand_back() == Counts(queued=6, received=6)
    assert await living.take(100) == entries(6)
    # It was not dead after all: what it settles now is not counted again.
    assert await dead.settle() == Counts(in_flight=6, received=6)
    assert await living.settle() == Counts(received=6, stored=6)


@bounded
async def test_two_daemons_that_push_equal_batches_both_push_them(redis_bench: RedisBench) -> None:
    await redis_bench.make(daemon="one").push([b"same"])
    counts = await redis_bench.make(daemon="two").push([b"same"])
    assert counts == Counts(queued=2, received=2)


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
        assert await buffer.take(100) == []
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
    assert held == Counts(queued=3, in_flight=2, received=8, dropped=2, dead=1)
    own_redis.kill()
    started = trio.current_time()
    for failing in (buffer.push([b"x"]), buffer.take(1), buffer.settle(), buffer.hand_back(), buffer.counts()):
        with pytest.raises(BufferUnavailable, match=r"^Redis: "):
            await failing
    assert trio.current_time() - started < 5
    own_redis.start()
    assert await buffer.counts() == held
    await buffer.hand_back()
    assert await buffer.take(100) == entries(5, first=3)
    await buffer.settle()
    await buffer.push([b"x"])
    assert await buffer.counts() == Counts(queued=1, received=9, stored=5, dropped=2, dead=1)


@bounded
async def test_a_push_whose_answer_was_lost_is_pushed_once_and_the_wait_for_it_is_bounded(
    own_redis: RedisServer,
) -> None:
    """REL-004: a Redis that hangs is unavailable after two seconds; its answer may come when nobody waits."""
    buffer = RedisBuffer(own_redis.url, queue="logs:queue", daemon="one", max_size=100)
    await buffer.push(entries(1))
    own_redis.signal(signal.SIGSTOP)
    started = trio.current_time()
    with pytest.raises(BufferUnavailable):
        await buffer.push(entries(2, first=1))
    assert trio.current_time() - started < 4
    own_redis.signal(signal.SIGCONT)
    assert await buffer.push(entries(2, first=1)) == Counts(queued=3, received=3)
    assert await buffer.take(100) == entries(3)


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
    assert await buffer.counts() == Counts(queued=10, received=10)  # all or nothing
    assert await buffer.take(4) == entries(4)
    await buffer.hand_back()
    assert await buffer.take(4) == entries(4)
    await buffer.settle(keep=entries(3), dead=[DeadEntry(b"entry-3", "no")])
    assert await buffer.settle() == Counts(queued=6, received=10, stored=3, dead=1)
    assert await buffer.take(100) == entries(6, first=4)
    assert await buffer.settle() == Counts(received=10, stored=9, dead=1)
    own_stranger.config_set("maxmemory", "0")
    assert await buffer.push([b"more"]) == Counts(queued=1, received=11, stored=9, dead=1)


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


def test_counts_are_what_logger_status_names() -> None:
    names = [field.name for field in attrs.fields(Counts)]
    assert names == ["queued", "in_flight", "received", "stored", "dropped", "dead"]
