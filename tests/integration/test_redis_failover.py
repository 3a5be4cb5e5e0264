"""The buffer behind Sentinels and on a cluster: an ordinary day, and a failover (REL-001, REL-004)."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from typing import Any

import pytest
import trio
from redis.crc import key_slot

from godot.buffer.protocol import Counts, DeadEntry, Drops
from godot.buffer.redis import RedisBuffer, lane
from godot.errors import BufferUnavailable, ConfigError
from tests.fakes import Held
from tests.postgres_servers import Database, Servers
from tests.programs import ENOUGH, POLL_S, CallFault, Peer, Workplace, connect, stored_messages
from tests.redis_servers import (
    RedisServers,
    Topology,
    running_servers,
    start_cluster,
    start_sentinel,
    until,
)

TAG = "{logs}"

_numbers = count(1)


@pytest.fixture(scope="module", params=["sentinel", "cluster"])
def topology(request: pytest.FixtureRequest) -> Iterator[Topology]:
    """Started once; the last test of the module kills the server that has the queue."""

    async def start() -> Topology:
        with trio.fail_after(ENOUGH):
            return await (
                start_sentinel(made) if request.param == "sentinel" else start_cluster(made, key_slot(b"logs"))
            )

    with running_servers() as made:
        yield trio.run(start)


Make = Callable[..., RedisBuffer]


@pytest.fixture
def make(topology: Topology) -> Make:
    """Make buffers of one queue."""
    return partial(RedisBuffer, topology.url, queue=f"{TAG}:queue:{next(_numbers)}", daemon="one", max_size=10_000)


def entries(number: int, first: int = 0) -> list[bytes]:
    return [b"entry-%d" % each for each in range(first, first + number)]


def no_description(drops: Drops) -> bytes:
    raise AssertionError("it is described already")


async def healed(ask: Callable[[], Awaitable[Counts]]) -> Counts:
    """Try again and again, as the batcher and the sender do."""
    while True:
        try:
            return await ask()
        except BufferUnavailable:
            await trio.sleep(POLL_S)


async def drained(buffer: RedisBuffer) -> list[bytes]:
    delivered: list[bytes] = []
    while batch := (await buffer.take(100)).entries:
        delivered += batch
        await buffer.settle()
    return delivered


@contextmanager
def suspended(topology: Topology) -> Iterator[None]:
    """Stop the replicas in their tracks, not for so long that they are given up."""
    for each in topology.replicas:
        topology.servers.signal(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in topology.replicas:
            topology.servers.signal(each, signal.SIGCONT)


async def test_everything_that_is_asked_of_a_buffer_works(make: Make) -> None:
    with trio.fail_after(ENOUGH):
        buffer = make(max_size=10)
        await buffer.push(entries(15))
        assert (await buffer.take(3)).entries == entries(3, first=5)
        await buffer.settle(keep=[b"mended"], dead=[DeadEntry(b"entry-5", "no"), DeadEntry(b"entry-6", "no")])
        assert await buffer.hand_back() == Held(queued=8, received=15, dropped=5, dead=2)
        assert await buffer.retry([(await buffer.dead_letters(0, 1)).entries[0].id]) == 1
        assert await buffer.purge() == 1
        assert await buffer.hole(lambda drops: b"%d are missing" % drops.dropped) == b"5 are missing"
        assert await buffer.hole(no_description) == b"5 are missing"
        assert await buffer.hole_told(b"5 are missing") == Held(queued=9, received=16, stored=1, dropped=5, dead=1)
        assert await drained(buffer) == [b"entry-5", b"mended", *entries(7, first=8)]
        assert await buffer.weakness() is None


async def test_two_daemons_share_a_queue_and_nothing_is_lost_or_done_twice(make: Make) -> None:
    """REL-004."""
    delivered: dict[str, list[bytes]] = {"one": [], "two": []}

    async def deliver(name: str) -> None:
        buffer = make(daemon=name)
        while batch := (await buffer.take(7)).entries:
            delivered[name] += batch
            await buffer.settle()

    with trio.fail_after(ENOUGH):
        for name, first in (("one", 0), ("two", 200)):
            await make(daemon=name).push(entries(200, first))
        async with trio.open_nursery() as daemons:
            for name in delivered:
                daemons.start_soon(deliver, name)
        assert all(delivered.values())
        assert sorted(delivered["one"] + delivered["two"]) == sorted(entries(400))
        assert await make().counts() == Held(received=400, stored=400)


@pytest.mark.parametrize("topology", ["cluster"], indirect=True)
async def test_a_queue_that_moves_to_another_node_is_followed_there_and_back(make: Make, topology: Topology) -> None:
    """REL-004: the node that had it lives on, and says where it is now."""
    pushed = 0
    reasons: list[str] = []

    async def push_some(buffer: RedisBuffer) -> None:
        nonlocal pushed
        for _ in range(20):
            while True:
                try:
                    await buffer.push(entries(2, first=pushed))
                    break
                except BufferUnavailable as exc:
                    reasons.append(str(exc))
                    await trio.sleep(POLL_S)
            pushed += 2

    with trio.fail_after(ENOUGH):
        buffer = make()
        await push_some(buffer)
        for here, there in ((topology.first, topology.replicas[0]), (topology.replicas[0], topology.first)):
            topology.servers.ask(there, "CLUSTER", "FAILOVER", "TAKEOVER")  # the others need not agree, all is well
            await until(lambda there=there: topology.servers.ask(there, "ROLE")[0] == "master")  # type: ignore[misc]
            await push_some(buffer)
            assert reasons.pop(0) == f"Redis: the queue moves to 127.0.0.1:{there}"
            await topology.servers.follow(here)
            reasons.clear()
        assert await drained(buffer) == entries(pushed)
        assert await buffer.counts() == Held(received=pushed, stored=pushed)


async def test_what_no_replica_has_is_not_acknowledged_and_is_there_once_when_one_is_back(
    make: Make, topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REL-004: replication is asynchronous, and a failover loses what no replica had."""
    monkeypatch.setattr(lane, "REPLICAS_WAIT_MS", 50)
    with trio.fail_after(ENOUGH):
        buffer, weak = make(), make(daemon="two", replicas=0)
        await buffer.push(entries(1))
        with suspended(topology):
            # Again on a connection of its own, which has written nothing, and must not be told that all is well.
            for each in (buffer, buffer, make()):
                with pytest.raises(BufferUnavailable, match=r"0 of 1 replicas confirmed the write within 0\.05 s"):
                    await each.push(entries(1, first=1))
            assert (await weak.push(entries(1, first=2))).received == 3
        assert (await healed(lambda: buffer.push(entries(1, first=1)))).received == 3
        assert await drained(buffer) == entries(3)
        assert "GODOT_REDIS_REPLICAS=0" in str(await weak.weakness())


async def test_what_must_not_get_another_id_is_confirmed_before_it_is_sent(
    make: Make, topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GOD-001, REL-004: entries of others, and the one that tells of a hole, would be stored twice."""
    monkeypatch.setattr(lane, "REPLICAS_WAIT_MS", 50)
    with trio.fail_after(ENOUGH):
        buffer = make(max_size=2)
        await buffer.push(entries(3))
        await buffer.take(2)
        with suspended(topology):
            with pytest.raises(BufferUnavailable, match="replicas confirmed"):
                await buffer.settle(keep=[b"with an id"])
            for describe in (lambda _: b"hole", no_description):
                with pytest.raises(BufferUnavailable, match="replicas confirmed"):
                    await buffer.hole(describe)
            # What is stored is delivered without: it comes again under its id, if at all.
            assert (await buffer.settle()).stored == 2
        while True:
            with suppress(BufferUnavailable):
                assert await buffer.hole(no_description) == b"hole"
                break


async def test_daemons_that_share_the_work_go_through_a_failover_and_lose_and_double_nothing(
    topology: Topology,
    place: Workplace,
    postgres_servers: Servers,
) -> None:
    """REL-004: two of `godot serve` under load, and kill -9 of the Redis that has the queue."""
    acknowledged: list[str] = []
    goal = 0

    async def log(peer: Peer, client: int) -> None:
        """Log durably, again what was refused."""
        number = 0
        while len(acknowledged) < goal:
            message = f"{client} {number}"
            try:
                await peer.log(message, ack="durable")
            except CallFault:
                number += 1  # it may be stored, and was not promised
                continue
            acknowledged.append(message)
            number += 1

    with trio.fail_after(2 * ENOUGH), Database(postgres_servers["18"]) as database:
        godots = [
            place.start(
                *("godot", "serve", "--port", 0),
                GODOT_DAEMON=f"daemon-{number}",
                REDIS_URL=topology.url,
                LOG_QUEUE_NAME=f"{TAG}:queue",
                DATABASE_URL=database.url,
            )
            for number in range(2)
        ]
        async with connect(await godots[0].ready()) as one, connect(await godots[1].ready()) as two:
            for first, kill in ((0, False), (2, True)):
                if kill:
                    topology.servers.kill(topology.first)
                goal = len(acknowledged) + 150
                async with trio.open_nursery() as clients:
                    for client, peer in enumerate((one, two), first):
                        clients.start_soon(log, peer, client)
            for peer in (one, two):
                await peer.status_with(queued=0, in_flight=0, redis="up")
            status = await one.status()
        stored = stored_messages(database.url)
        assert set(acknowledged) <= set(stored)
        assert len(stored) == len(set(stored))
        assert status["stored"] == len(stored)
        assert (status["dropped"], status["dead"]) == (0, 0)
        for each in godots:
            assert each.events("redis_down")
            assert each.events("redis_back")
            assert await each.stop() == 0


async def test_a_cluster_that_cannot_be_reached_or_is_none_is_unavailable(redis_servers: RedisServers) -> None:
    """REL-004: as any Redis that is away; the batcher and the sender go on trying."""
    with trio.fail_after(ENOUGH):
        single = redis_servers.start()
        await until(partial(redis_servers.ask, single, "PING"))
        buffer = RedisBuffer(f"redis+cluster://127.0.0.1:9,127.0.0.1:{single}", queue=TAG, daemon="d", max_size=1)
        with pytest.raises(BufferUnavailable, match=r"no node of the cluster says where the queue is: .*127.0.0.1:9: "):
            await buffer.push([b"x"])
        with pytest.raises(BufferUnavailable, match="cluster support disabled"):
            await buffer.take(1)


async def test_a_queue_without_a_hash_tag_on_a_cluster_ends_the_start_with_2(place: Workplace) -> None:
    """MAINT-004."""
    with trio.fail_after(ENOUGH):
        environ: dict[str, Any] = {"REDIS_URL": "redis+cluster://127.0.0.1:9", "DEWEY_MCP_URL": "ws://127.0.0.1:9"}
        godot = place.start("godot", "serve", "--port", 0, **environ)
        assert await godot.exit() == 2
        assert godot.err[0].startswith("godot: LOG_QUEUE_NAME: on a Redis Cluster it needs a hash tag")


@pytest.mark.parametrize(
    ("url", "queue", "problem"),
    [
        ("redis+cluster://h:1", "logs:queue", "LOG_QUEUE_NAME: on a Redis Cluster it needs a hash tag"),
        ("redis+cluster://h:1", "{}:queue", "LOG_QUEUE_NAME: on a Redis Cluster it needs a hash tag"),
        ("redis+cluster://h:1", "{logs:queue", "LOG_QUEUE_NAME: on a Redis Cluster it needs a hash tag"),
        ("redis+cluster://h:1/2", TAG, "REDIS_URL: a cluster has no databases"),
        ("redis+cluster://", TAG, "REDIS_URL: must name a host"),
        ("redis+cluster://h:x", TAG, "REDIS_URL: a host or a port cannot be read"),
        ("redis+cluster://h:1?db=2", TAG, "REDIS_URL: takes no options"),
        ("redis+sentinel://h:1", TAG, "REDIS_URL: must look like redis+sentinel://host:26379/mymaster"),
        ("redis+sentinel://h:1/main/zero", TAG, "REDIS_URL: must look like redis+sentinel://"),
        ("redis+sentinel:///main", TAG, "REDIS_URL: must name a host"),
    ],
)
def test_a_url_that_cannot_be_used_is_named_before_anything_starts(url: str, queue: str, problem: str) -> None:
    """MAINT-004."""
    with pytest.raises(ConfigError) as raised:
        RedisBuffer(url, queue=queue, daemon="d", max_size=1)
    assert str(raised.value).startswith(problem)
