"""What only the buffer on Redis can promise."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import trio

from godot.buffer.protocol import (
    DeadEntry,
    Taken,
)
from godot.buffer.redis import ACCOUNT_MS, LEASE_MS, RedisBuffer
from godot.buffer.redis.sending import SOCKET_TIMEOUT_S
from godot.errors import BufferUnavailable, ConfigError, NotInFlight
from godot.json.text import loads
from godot.mcp.toolbox import Toolbox
from godot.pipeline.dewey import DirectDewey
from godot.pipeline.sender import Sender
from tests.contract.buffers import RedisBench, assert_balanced, described, entries, sized
from tests.fakes import ENTRIES, Held
from tests.programs import bounded
from tests.redis_servers import RedisServer


@bounded
async def test_every_key_begins_with_the_name_of_the_queue_so_that_a_cluster_keeps_them_together(
    redis_bench: RedisBench, stranger: Any
) -> None:
    redis_bench.name = "{logs}:" + redis_bench.name
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
    with pytest.raises(BufferUnavailable, match="maxmemory"):
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
