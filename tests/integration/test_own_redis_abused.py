"""What others do to Godot's own Redis, beyond logging: giants in its list, and its file taken away."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import redis
import trio

from godot.buffer.redis import RedisBuffer
from godot.embedded import EmbeddedRedis
from godot.errors import BufferUnavailable
from tests.programs import Program, Workplace, append_only_file, connect, until_asked

ENOUGH = 60
GIANT_BYTES = 100 * 1024 * 1024


def peak_bytes(program: Program) -> int:
    """Return the most memory that a process has ever held."""
    status = Path(f"/proc/{program.process.pid}/status").read_text()
    (peak,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(peak) * 1024


async def test_a_giant_that_a_stranger_pushed_reaches_no_daemon_and_takes_none_of_the_dead_with_it(
    place: Workplace,
) -> None:
    """GOD-001, PERF-003: one of 400 MB once took 3.7 GiB, refused callers for a minute and wiped all of the dead."""
    with trio.fail_after(ENOUGH):
        godot = place.up()
        async with connect(await godot.ready()) as peer:
            with closing(redis.Redis.from_url(place.endpoints()["redis"])) as client:
                client.lpush("logs:queue", b"no JSON")
                await peer.status_with(dead=1)
                before = peak_bytes(godot)
                await trio.to_thread.run_sync(client.lpush, "logs:queue", b"z" * GIANT_BYTES)
                await peer.log("behind it")
                await peer.status_with(received=3, stored=1, dead=2, dead_forgotten=0, queued=0)
                (grave, _) = client.lrange("logs:queue:dead", 0, -1)
            assert len(grave) < 100_000
            dead = (await peer.call("logger_dead"))["dead"]
            assert dead[1]["reason"] == f"an entry may have 33554432 bytes, this one has {GIANT_BYTES}"
            assert peak_bytes(godot) - before < GIANT_BYTES / 4
            assert len(godot.events("redis_down")) <= 1, "while Redis wrote it to its file, and looked at it once"
            assert (await peer.log("afterwards", ack="durable"))["status"] == "durable"


def delete(file: Path) -> None:
    file.unlink()


def replace(file: Path) -> None:
    """Put a copy in its place, as a restore does."""
    copy = file.with_suffix(".copy")
    copy.write_bytes(file.read_bytes())
    copy.replace(file)


def rename(file: Path) -> None:
    file.rename(file.with_suffix(".moved"))


def cut_off(file: Path) -> None:
    """Make room on a disk without thinking."""
    os.truncate(file, 0)


@pytest.mark.parametrize("harm", [delete, replace, rename, cut_off])
async def test_a_file_that_was_taken_away_from_redis_is_seen_and_written_anew(
    harm: Callable[[Path], None], place: Workplace
) -> None:
    """REL-001: Redis goes on writing to a file without a name."""
    with trio.fail_after(ENOUGH):
        own = EmbeddedRedis(place.path / "redis", notify=lambda _: None, on_change=lambda: None)
        async with trio.open_nursery() as nursery:
            await nursery.start(own.run)
            buffer = RedisBuffer(own.url, queue="q", daemon="d", max_size=10, lost_file=own.lost_file)
            assert (await buffer.push([b"before"])).weakness is None
            harm(append_only_file(own.directory))
            assert "was deleted, cut off, or replaced" in str(await buffer.weakness())
            await until_asked(partial(is_durable, buffer))
            assert (await buffer.push([b"after"])).weakness is None
            assert own.pid is not None
            os.kill(own.pid, signal.SIGKILL)
            await until_asked(partial(holds, buffer, [b"before", b"after"]))
            assert await buffer.weakness() is None
            nursery.cancel_scope.cancel()


async def is_durable(buffer: RedisBuffer) -> bool:
    return await buffer.weakness() is None


async def holds(buffer: RedisBuffer, entries: list[bytes]) -> bool:
    try:
        return (await buffer.take(10)).entries == entries
    except BufferUnavailable:
        return False


async def test_durable_is_not_said_while_the_file_of_godots_own_redis_is_gone(place: Workplace) -> None:
    """REL-001, MAINT-001: 300 of 300 `durable` entries were once lost with it."""
    with trio.fail_after(ENOUGH):
        godot = place.up()
        async with connect(await godot.ready()) as peer:
            assert (await peer.log("before", ack="durable"))["status"] == "durable"
            append_only_file(place.data / "redis").unlink()
            told = await godot.event("redis_not_durable")
            assert "append-only file of Redis was deleted, cut off, or replaced" in told["reason"]
            await godot.event("redis_durable")
            assert (await peer.log("after", ack="durable"))["status"] == "durable"
            os.kill(place.endpoints()["pids"]["redis"], signal.SIGKILL)
            await godot.event("redis_back")
            await peer.status_with(received=2, stored=2, redis="up", durable=True)
            assert godot.events("counts_lost") == []
