"""What a sender has given up may still be on its way to Redis, and gets there after what it did next."""

from __future__ import annotations

import pytest
import trio

from godot.buffer.protocol import Counts
from godot.buffer.redis import RedisBuffer
from godot.embedded import EmbeddedRedis
from godot.errors import NotInFlight
from tests.programs import Workplace

QUEUE = "logs:queue"


def entries(counts: Counts) -> Counts:
    """Return what is counted in entries; the list in Redis has bytes and times, too."""
    return Counts(queued=counts.queued, in_flight=counts.in_flight, received=counts.received, stored=counts.stored)


async def test_a_settlement_that_arrives_late_does_not_lose_what_was_taken_since(place: Workplace) -> None:
    """REL-004: as after a black hole between Godot and Redis, or after a kill -9 of Godot."""
    redis = EmbeddedRedis(place.path / "redis", notify=lambda _: None, on_change=lambda: None)
    with trio.fail_after(20):
        async with trio.open_nursery() as servers:
            await servers.start(redis.run)
            before, after = (RedisBuffer(redis.url, queue=QUEUE, daemon="one", max_size=100) for _ in range(2))
            await before.push([b"first", b"second", b"third"])
            assert (await before.take(1)).entries == [b"first"]
            # Its sender stores this and says so, hears nothing, and starts again.
            await after.hand_back()
            assert (await after.take(1)).entries == [b"first"]
            await after.settle()
            assert (await after.take(2)).entries == [b"second", b"third"]
            with pytest.raises(NotInFlight):
                await before.settle()
            with pytest.raises(NotInFlight):
                await before.settle(keep=[b"mended first"])
            assert entries(await after.counts()) == Counts(in_flight=2, received=3, stored=1)
            # Dewey is away now.
            assert entries(await after.hand_back()) == Counts(queued=2, received=3, stored=1)
            assert (await after.take(2)).entries == [b"second", b"third"]
            assert entries(await after.settle()) == Counts(received=3, stored=3)
            servers.cancel_scope.cancel()
