"""A way to Redis that delivers late what is large, and all the same at last."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio
import trio.testing

from godot.buffer.redis import RedisBuffer, sending
from godot.errors import BufferUnavailable
from tests.chaos.link import CHUNK_BYTES, Link
from tests.redis_servers import RedisServer

TIMEOUT_S: Final = 0.5
LARGE: Final = b"x" * 32 * CHUNK_BYTES


@asynccontextmanager
async def slow_buffer(server: RedisServer, queue: str, *, by_s: float) -> AsyncIterator[RedisBuffer]:
    """Yield a buffer whose way to Redis takes so many seconds for each `CHUNK_BYTES`."""
    link = Link("redis", random.Random(1))
    link.dial = partial(trio.open_unix_socket, server.url.removeprefix("unix://"))
    way = f"{server.url.removeprefix('unix://')}-{queue}"
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(link.run_on_unix, Path(way))
            buffer = RedisBuffer(f"unix://{way}", queue=queue, daemon="one", max_size=1_000)
            await buffer.push([b"small"])
            nursery.start_soon(link.delay, by_s, 60.0)
            await trio.testing.wait_all_tasks_blocked()
            yield buffer
            nursery.cancel_scope.cancel()


async def test_one_large_entry_on_a_slow_way_goes_through_at_once_and_holds_up_nobody_for_ever(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes three times as long as a small one may."""
    monkeypatch.setattr(sending, "SOCKET_TIMEOUT_S", TIMEOUT_S)
    monkeypatch.setattr(sending, "SLOWEST_BYTES_PER_S", 128 * 1024)
    async with slow_buffer(redis_server, "large", by_s=3 * TIMEOUT_S / 32) as buffer:
        began = trio.current_time()
        assert (await buffer.push([LARGE])).queued == 2
        assert trio.current_time() - began > TIMEOUT_S


async def test_a_batch_that_only_trickles_is_given_up_as_a_whole_however_many_entries_it_has(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each entry alone passes in time."""
    monkeypatch.setattr(sending, "SOCKET_TIMEOUT_S", TIMEOUT_S)
    monkeypatch.setattr(sending, "SLOWEST_BYTES_PER_S", 1024 * len(LARGE))
    async with slow_buffer(redis_server, "trickle", by_s=TIMEOUT_S / 5) as buffer:
        with pytest.raises(BufferUnavailable, match="Timeout writing"):
            await buffer.push([LARGE[number:CHUNK_BYTES] for number in range(64)])
