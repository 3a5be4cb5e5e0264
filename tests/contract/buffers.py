"""Buffers under test: its twins behind one face, and what others do to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

from godot.buffer.memory import MemoryBuffer
from godot.buffer.protocol import (
    DEAD_MAX_BYTES,
    QUEUE_MAX_BYTES,
    Buffer,
    Counts,
    Drops,
)
from godot.buffer.redis import RedisBuffer
from godot.entries.entry import MAX_ENTRY_BYTES
from tests.redis_servers import RedisServer

_numbers = count(1)


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


def described(runs: list[Drops]) -> Callable[[Drops], bytes]:
    """Describe a run by its number, and note it."""

    def describe(drops: Drops) -> bytes:
        runs.append(drops)
        return b"hole-%d" % len(runs)

    return describe


def sized(*sizes: int) -> list[bytes]:
    """Make entries of these sizes, each with a letter of its own."""
    return [bytes([ord("a") + number]) * size for number, size in enumerate(sizes)]
