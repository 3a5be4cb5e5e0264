"""The buffer between taking entries in and delivering them, and its in-memory twin.

Entries are bytes here (`godot.codec` made them); a buffer does not look inside. It is a queue with
a bound: what is pushed beyond it makes the OLDEST entries go, and every one of them is counted
(GOD-005). What the sender takes stays `in flight` in the buffer until the sender settles it, so that
a sender that dies loses nothing.

At every instant, also across restarts:

    received = stored + queued + in flight + dropped + dead
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

import attrs

TAKE_MAX_BYTES: Final = 8 * 1024 * 1024
"""A take ends with the entry that passes this, so that a thousand large entries do not become one frame."""


@attrs.frozen
class DeadEntry:
    """An entry that can never be stored, and why."""

    raw: bytes
    reason: str


@attrs.frozen
class Counts:
    """What a buffer holds now, and what became of everything it was ever given."""

    queued: int = 0
    in_flight: int = 0
    received: int = 0
    stored: int = 0
    dropped: int = 0
    dead: int = 0


class Buffer(Protocol):
    """What the batcher and the sender ask of a buffer. Every method may raise `BufferUnavailable`.

    One batcher pushes and one sender takes, each one thing at a time.
    """

    async def push(self, entries: Sequence[bytes]) -> Counts:
        """Append a batch, oldest first, and cut the queue to its bound.

        Pushing the same batch again after `BufferUnavailable` pushes it once.
        """

    async def take(self, limit: int) -> list[bytes]:
        """Move up to `limit` of the oldest entries in flight and return them, oldest first.

        What is in flight already is returned again, and nothing beside it: the answer to the take before
        may have been lost. Fewer come when they are large (`TAKE_MAX_BYTES`), but at least one if there is one.
        """

    async def settle(self, keep: Sequence[bytes] = (), dead: Sequence[DeadEntry] = ()) -> Counts:
        """Replace what is in flight by `keep`, oldest first, and put `dead` aside; the rest was stored.

        :param keep: what is still to be stored: nothing when the batch is done, the mended batch when
            entries had to be completed before they can be sent.
        :param dead: entries exactly as they are in flight.

        Settling the same again after `BufferUnavailable` settles it once.
        """

    async def hand_back(self) -> Counts:
        """Put what is in flight back, as the oldest of the queue and in its old order.

        That of this sender, and that of every other sender whose lease has run out.
        """

    async def counts(self) -> Counts:
        """Look, and change nothing."""


class MemoryBuffer:
    """The twin of `RedisBuffer`: the same behaviour, without durability.

    :param max_size: entries that may be queued.
    :param dead_max: dead entries that are kept; older ones go, but stay counted.
    """

    def __init__(self, max_size: int, dead_max: int = 10_000) -> None:
        self.queue: deque[bytes] = deque()
        """Tail first: the oldest entry is on the left."""
        self.dead: deque[DeadEntry] = deque(maxlen=dead_max)
        self._in_flight: list[bytes] = []
        self._max_size = max_size
        self._last_push: list[bytes] = []
        self._expected = 0
        self._counts = Counts()

    async def push(self, entries: Sequence[bytes]) -> Counts:
        """See `Buffer.push`."""
        if list(entries) == self._last_push:
            return await self.counts()
        self._last_push = list(entries)
        self._notice_strangers()
        self._count(received=len(entries))
        self.queue.extend(entries)
        return self._cut()

    async def take(self, limit: int) -> list[bytes]:
        """See `Buffer.take`."""
        if self.queue and not self._in_flight:
            self._notice_strangers()
            size = 0
            while self.queue and len(self._in_flight) < limit and size < TAKE_MAX_BYTES:
                self._in_flight.append(self.queue.popleft())
                size += len(self._in_flight[-1])
            self._expected = len(self.queue)
        return list(self._in_flight)

    async def settle(self, keep: Sequence[bytes] = (), dead: Sequence[DeadEntry] = ()) -> Counts:
        """See `Buffer.settle`."""
        for entry in dead:
            if entry.raw in self._in_flight:
                self._in_flight.remove(entry.raw)
                self.dead.append(entry)
                self._count(dead=1)
        self._count(stored=len(self._in_flight) - len(keep))
        self._in_flight = list(keep)
        return await self.counts()

    async def hand_back(self) -> Counts:
        """See `Buffer.hand_back`."""
        if not self._in_flight:
            return await self.counts()
        self._notice_strangers()
        self.queue.extendleft(reversed(self._in_flight))
        self._in_flight = []
        return self._cut()

    async def counts(self) -> Counts:
        """See `Buffer.counts`."""
        more = len(self.queue) - self._expected
        return attrs.evolve(
            self._counts,
            queued=len(self.queue),
            in_flight=len(self._in_flight),
            received=self._counts.received + max(0, more),
            dropped=self._counts.dropped + max(0, -more),
        )

    def _notice_strangers(self) -> None:
        """Count what somebody else put into the queue (GOD-001) or took out of it since we last looked."""
        more = len(self.queue) - self._expected
        self._count(received=max(0, more), dropped=max(0, -more))
        self._expected = len(self.queue)

    def _cut(self) -> Counts:
        excess = max(0, len(self.queue) - self._max_size)
        for _ in range(excess):
            self.queue.popleft()
        self._count(dropped=excess)
        self._expected = len(self.queue)
        return attrs.evolve(self._counts, queued=len(self.queue), in_flight=len(self._in_flight))

    def _count(self, **more: int) -> None:
        grown = {name: getattr(self._counts, name) + by for name, by in more.items()}
        self._counts = attrs.evolve(self._counts, **grown)
