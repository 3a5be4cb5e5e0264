"""Data directories of another Redis: an upgrade loses nothing, nor does the way back; what cannot be read is told."""

from __future__ import annotations

import os
import re
import signal
from functools import partial
from pathlib import Path

import pytest
import trio

from godot.buffer.redis import RedisBuffer
from godot.errors import ConfigError
from tests.integration.embedded_servers import (
    ENOUGH,
    Told,
    ask_redis,
    becomes_true,
    restarted,
    running,
)
from tests.redis_servers import find_oldest_redis, running_redis

UPGRADE = Path(__file__).parents[2] / "docs" / "how-to" / "upgrade.md"


def entries(numbers: range) -> list[bytes]:
    return [b"entry-%d" % number for number in numbers]


def queue(url: str) -> RedisBuffer:
    return RedisBuffer(url, queue="logs:queue", daemon="one", max_size=10_000)


async def push(url: str, numbers: range) -> None:
    for first in numbers[::100]:
        await queue(url).push(entries(range(first, first + 100)))


async def drain(url: str) -> list[bytes]:
    """Take what a daemon that was killed left, as its successor does."""
    buffer, found = queue(url), list[bytes]()
    await buffer.hand_back()
    while taken := (await buffer.take(1000)).entries:
        found += taken
        await buffer.settle()
    counts = await buffer.counts()
    assert (counts.received, counts.stored) == (len(found), len(found))
    return found


async def rewrite(url: str) -> None:
    """Have the append-only file begin anew, as it does by itself when it has grown."""
    await trio.to_thread.run_sync(ask_redis, url, "BGREWRITEAOF")
    await becomes_true(lambda: not ask_redis(url, "INFO")["aof_rewrite_in_progress"])


@pytest.mark.parametrize("rewritten", [False, True], ids=["commands", "begins with a snapshot"])
async def test_a_directory_of_redis_6_2_is_taken_over_with_all_that_waits_in_it(
    root: Path, told: Told, monkeypatch: pytest.MonkeyPatch, rewritten: bool
) -> None:
    """REL-001: a new version of Godot brings Valkey. The old server was killed, with a batch in flight."""
    monkeypatch.setenv("PATH", "/nowhere")
    with trio.fail_after(ENOUGH), running_redis(root / "it", find_oldest_redis()) as old:
        await push(old.url, range(1_000))
        await queue(old.url).take(100)
        if rewritten:
            await rewrite(old.url)
        await push(old.url, range(1_000, 1_500))
    async with running(told.redis(root / "it")) as embedded:
        assert os.readlink(f"/proc/{embedded.pid}/exe").endswith("/valkey-server")
        await push(embedded.url, range(1_500, 2_000))
        before = embedded.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await becomes_true(partial(restarted, embedded, before))
        assert await drain(embedded.url) == entries(range(2_000))


@pytest.mark.parametrize("rewritten", [False, True])
async def test_the_way_back_to_redis_6_2_brings_all_that_waits(
    root: Path, told: Told, monkeypatch: pytest.MonkeyPatch, rewritten: bool
) -> None:
    """As docs/how-to/upgrade.md tells it."""
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        async with running(told.redis(root / "it")) as embedded:
            await push(embedded.url, range(1_000))
            if rewritten:
                await rewrite(embedded.url)
            await push(embedded.url, range(1_000, 1_500))
            await queue(embedded.url).take(100)
    guide = UPGRADE.read_text()
    (commands,) = re.findall(r"^```console\n\$ cd DATA_DIR/redis\n(.*?)```", guide, re.MULTILINE | re.DOTALL)
    script = "".join(line.removeprefix("$ ") for line in commands.splitlines(keepends=True))
    await trio.run_process(["sh", "-ec", script], cwd=root / "it")
    with trio.fail_after(ENOUGH), running_redis(root / "it", find_oldest_redis()) as old:
        assert await drain(old.url) == entries(range(1_500))


async def test_a_snapshot_that_only_another_redis_can_read_is_a_config_error_that_says_what_to_do(
    root: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins the file of a Redis that came first on PATH until now."""
    monkeypatch.setenv("PATH", "/nowhere")
    parts = root / "it" / "appendonlydir"
    parts.mkdir(parents=True)
    (parts / "appendonly.aof.1.base.rdb").write_bytes(b"REDIS0013" + bytes(100))
    (parts / "appendonly.aof.manifest").write_text("file appendonly.aof.1.base.rdb seq 1 type b\n")
    with trio.fail_after(ENOUGH), pytest.raises(ConfigError, match="Can't handle RDB format version") as refused:
        await told.redis(root / "it").run()
    assert str(refused.value).endswith("put that redis-server on PATH again")
