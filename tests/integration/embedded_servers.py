"""Embedded servers under test, and what they tell their daemon."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import trio

from godot.embedded import (
    EmbeddedPostgres,
    EmbeddedRedis,
    EmbeddedServer,
)

ENOUGH = 30.0  # seconds for a test that takes one; a test machine may be busy
AS_ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not AS_ROOT, reason="only root runs PostgreSQL as somebody else")

SERVERS = frozenset({"redis-server", "valkey-server", "postgres", "initdb"})

DAEMON = """
import signal
import sys
from pathlib import Path
import trio
from godot.embedded import EmbeddedPostgres, EmbeddedRedis, places

places.STATE_ROOT = Path(sys.argv[1])
signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # a shell has those ignore it that it runs in the background

async def main():
    ignore = {"notify": lambda sentence: None, "on_change": lambda: None}
    async with trio.open_nursery() as nursery:
        await nursery.start(EmbeddedRedis(Path(sys.argv[2], "redis"), **ignore).run)
        await nursery.start(EmbeddedPostgres(Path(sys.argv[2], "postgres"), **ignore).run)
        print("ready", flush=True)

trio.run(main)
"""


class Told:
    """What a server told its daemon."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.pids: list[int | None] = []
        self._server: EmbeddedServer | None = None

    def redis(self, directory: Path, *, aof: bool = True) -> EmbeddedRedis:
        self._server = made = EmbeddedRedis(directory, aof=aof, notify=self.sentences.append, on_change=self._see)
        return made

    def postgres(self, directory: Path) -> EmbeddedPostgres:
        self._server = made = EmbeddedPostgres(directory, notify=self.sentences.append, on_change=self._see)
        return made

    def _see(self) -> None:
        assert self._server is not None
        self.pids.append(self._server.pid)


@contextlib.asynccontextmanager
async def running(embedded: EmbeddedServer) -> AsyncIterator[EmbeddedServer]:
    with trio.fail_after(ENOUGH):
        async with trio.open_nursery() as nursery:
            await nursery.start(embedded.run)
            yield embedded
            nursery.cancel_scope.cancel()


async def becomes_true(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
        await trio.sleep(0.005)


def restarted(embedded: EmbeddedServer, before: int) -> bool:
    return embedded.pid not in (before, None)


def ask_redis(url: str, *command: str) -> Any:
    with redis.Redis.from_url(url) as client:
        return client.execute_command(*command)


def ask_postgres(url: str, query: str) -> Any:
    with psycopg.connect(url, connect_timeout=10) as connection:
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else None


def executable(embedded: EmbeddedServer) -> Path:
    return Path(os.fsdecode(Path(f"/proc/{embedded.pid}/cmdline").read_bytes().partition(b"\0")[0]))


async def remember(embedded: EmbeddedServer) -> None:
    if isinstance(embedded, EmbeddedRedis):
        await trio.to_thread.run_sync(ask_redis, embedded.url, "SET", "spoon", "bent")
    else:
        await trio.to_thread.run_sync(ask_postgres, embedded.url, "CREATE TABLE spoon AS SELECT 'bent' AS shape")


async def remembers(embedded: EmbeddedServer) -> bool:
    if isinstance(embedded, EmbeddedRedis):
        return bool(await trio.to_thread.run_sync(ask_redis, embedded.url, "GET", "spoon") == b"bent")
    return bool(await trio.to_thread.run_sync(ask_postgres, embedded.url, "TABLE spoon") == [("bent",)])


def corrupt(aof: Path) -> None:
    aof.write_bytes(b"*3\r\n$3\r\nSET\r\nthere is no spoon" * 10)
