"""The twin of `RedisBuffer` in memory: the same behaviour, without durability."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import accumulate
from typing import Any, Final

import attrs

from godot.buffer.protocol import (
    COMPONENTS_MAX,
    DEAD_MAX,
    DEAD_MAX_BYTES,
    QUEUE_MAX_BYTES,
    TAKE_MAX_BYTES,
    Counts,
    DeadEntry,
    DeadPage,
    Drops,
    Taken,
    chosen,
    has_room_again,
)
from godot.entries.entry import MAX_ENTRY_BYTES
from godot.json.text import NotJSON, loads

_ORIGIN_MAX_BYTES: Final = 65_536
"""When an entry that others wrote is dropped, it is only read when it is no larger than this."""


class MemoryBuffer:
    """The twin of `RedisBuffer`: the same behaviour, without durability.

    :param max_size: entries that may be queued.
    :param max_bytes: bytes of entries that may be queued.
    :param dead_max: dead entries that are kept; older ones go, but stay counted.
    :param dead_max_bytes: bytes of dead entries that are kept.
    :param entry_max_bytes: bytes that an entry may have; larger ones of others are put aside.
    """

    def __init__(
        self,
        max_size: int,
        max_bytes: int = QUEUE_MAX_BYTES,
        dead_max: int = DEAD_MAX,
        dead_max_bytes: int = DEAD_MAX_BYTES,
        entry_max_bytes: int = MAX_ENTRY_BYTES,
    ) -> None:
        self.queue: deque[bytes] = deque()
        """Tail first: the oldest entry is on the left."""
        self.dead: deque[DeadEntry] = deque()
        self.weak: str | None = None
        """What `weakness` says, for tests."""
        self._in_flight: list[bytes] = []
        self._max_size, self._max_bytes = max_size, max_bytes
        self._dead_max, self._dead_max_bytes, self._entry_max_bytes = dead_max, dead_max_bytes, entry_max_bytes
        self._bytes = 0
        self._last_push: list[bytes] = []
        self._expected = self._unchecked = 0
        self._counts = Counts()
        self._drops: Drops | None = None
        self._hole: bytes | None = None
        self._levels: bytes | None = None

    async def weakness(self) -> str | None:
        """See `Buffer.weakness`."""
        return self.weak

    async def oldest(self) -> bytes | None:
        """See `Buffer.oldest`."""
        return self.queue[0] if self.queue and len(self.queue[0]) <= self._entry_max_bytes else None

    async def note_levels(self, noted: bytes) -> None:
        """See `LevelNotes.note_levels`."""
        self._levels = noted

    async def noted_levels(self) -> bytes | None:
        """See `LevelNotes.noted_levels`."""
        return self._levels

    async def push(self, entries: Sequence[bytes]) -> Counts:
        """See `Buffer.push`."""
        if list(entries) != self._last_push:
            self._last_push = list(entries)
            self._notice_strangers()
            self._count(received=len(entries))
            welcome = self._turn_away(entries)
            self.queue.extend(welcome)
            self._bytes += _size(welcome)
            self._cut()
        return attrs.evolve(await self.counts(), weakness=self.weak)

    async def take(self, limit: int) -> Taken:
        """See `Buffer.take`."""
        unchecked = True
        if self.queue and not self._in_flight:
            self._notice_strangers()
            unchecked, before = self._unchecked > 0, len(self.queue)
            while self.queue and len(self._in_flight) < limit and _size(self._in_flight) < TAKE_MAX_BYTES:
                entry = self.queue.popleft()
                self._bytes -= len(entry)
                if len(entry) > self._entry_max_bytes:
                    self._bury(DeadEntry.beginning(entry, self._entry_max_bytes))
                else:
                    self._in_flight.append(entry)
            self._note_gone(before - len(self.queue))
            self._done()
        return Taken(list(self._in_flight), bool(self._in_flight) and unchecked)

    async def settle(self, keep: Sequence[bytes] = (), dead: Sequence[DeadEntry] = ()) -> Counts:
        """See `Buffer.settle`."""
        for entry in dead:
            if entry.raw in self._in_flight:
                self._in_flight.remove(entry.raw)
                self._bury(entry)
        self._count(stored=len(self._in_flight) - len(keep))
        self._in_flight = list(keep)
        return await self.counts()

    async def hand_back(self) -> Counts:
        """See `Buffer.hand_back`."""
        self._notice_strangers()
        self.queue.extendleft(reversed(self._in_flight))
        self._bytes += _size(self._in_flight)
        self._unchecked += len(self._in_flight)
        self._in_flight = []
        self._cut()
        return await self.counts()

    async def counts(self) -> Counts:
        """See `Buffer.counts`."""
        more = len(self.queue) - self._expected
        return attrs.evolve(
            self._counts,
            queued=len(self.queue),
            in_flight=len(self._in_flight),
            received=self._counts.received + max(0, more),
            dropped=self._counts.dropped + max(0, -more),
            vanished=self._counts.vanished + max(0, -more),
            queued_bytes=max(0, self._bytes),
        )

    async def hole(self, describe: Callable[[Drops], bytes]) -> bytes | None:
        """See `Holes.hole`."""
        has_room = has_room_again(len(self.queue), self._bytes, self._max_size, self._max_bytes)
        if self._hole is None and self._drops is not None and has_room:
            self._hole, self._drops = describe(self._drops), None
        return self._hole

    async def hole_told(self, entry: bytes, refused: str | None = None) -> Counts:
        """See `Holes.hole_told`."""
        if entry == self._hole:
            self._hole = None
            self._count(received=1)
            if refused is None:
                self._count(stored=1)
            else:
                self._bury(DeadEntry(entry, refused))
        return await self.counts()

    async def dead_letters(self, skip: int, limit: int) -> DeadPage:
        """See `DeadLetters.dead_letters`."""
        page: list[DeadEntry] = []
        for entry in list(self.dead)[skip : skip + limit]:
            if _size(each.raw for each in page) >= TAKE_MAX_BYTES:
                break
            page.append(entry)
        return DeadPage(page, len(self.dead))

    async def retry(self, ids: Collection[str] | None = None) -> int:
        """See `DeadLetters.retry`."""
        found = [entry for entry in self.dead if chosen(entry, ids) and entry.may_return(self._max_bytes)]
        if not found:
            return 0
        self._notice_strangers()
        sizes = accumulate(len(entry.raw) for entry in found)
        room = sum(size <= self._max_bytes - self._bytes for size in sizes)
        found = found[: max(0, min(room, self._max_size - len(self.queue)))]
        found = [entry for entry in found if entry in self.dead]  # what strangers pushed may have made it go
        for entry in found:
            self.dead.remove(entry)
        self.queue.extendleft(reversed([entry.raw for entry in found]))
        self._bytes += _size(entry.raw for entry in found)
        self._count(dead=-len(found))
        self._unchecked += len(found)
        self._done()
        return len(found)

    async def purge(self, ids: Collection[str] | None = None) -> int:
        """See `DeadLetters.purge`."""
        found = [entry for entry in self.dead if chosen(entry, ids)]
        for entry in found:
            self.dead.remove(entry)
        return len(found)

    def _bury(self, entry: DeadEntry) -> None:
        self._count(dead=1)
        if len(entry.packed) > self._dead_max_bytes:  # no other has to go for it
            self._count(dead_forgotten=1)
            return
        self.dead.append(entry)
        while len(self.dead) > self._dead_max or _size(each.packed for each in self.dead) > self._dead_max_bytes:
            self.dead.popleft()
            self._count(dead_forgotten=1)

    def _notice_strangers(self) -> None:
        """Count what another process put into the queue (GOD-001) or took out of it since our last step."""
        more = len(self.queue) - self._expected
        if not more:
            return
        self._count(received=max(0, more), dropped=max(0, -more), vanished=max(0, -more))
        new = list(self.queue)[-more:] if more > 0 else list(self.queue)
        for _ in new:
            self.queue.pop()
        welcome = self._turn_away(new)
        self.queue.extend(welcome)
        self._bytes = _size(self.queue) if more < 0 else self._bytes + _size(welcome)
        self._expected = self._unchecked = len(self.queue)

    def _turn_away(self, entries: Sequence[bytes]) -> list[bytes]:
        """Return those that have a place in the queue; each of the others goes alone."""
        giants = [entry for entry in entries if len(entry) > self._entry_max_bytes]
        for entry in giants:
            self._bury(DeadEntry.beginning(entry, self._entry_max_bytes))
        large = [entry for entry in entries if self._max_bytes < len(entry) <= self._entry_max_bytes]
        self._note_drops(large, len(large))
        return [entry for entry in entries if len(entry) <= min(self._entry_max_bytes, self._max_bytes)]

    def _cut(self) -> None:
        dropped: list[bytes] = []
        for_bytes = 0
        while len(self.queue) > self._max_size or (self.queue and self._bytes > self._max_bytes):
            for_bytes += len(self.queue) <= self._max_size
            dropped.append(self.queue.popleft())
            self._bytes -= len(dropped[-1])
        self._note_gone(len(dropped))
        self._note_drops(dropped, for_bytes)
        self._done()

    def _note_gone(self, number: int) -> None:
        """Note that so many of the oldest entries are gone."""
        self._unchecked = max(0, self._unchecked - number)

    def _note_drops(self, dropped: Sequence[bytes], for_bytes: int) -> None:
        if dropped:
            self._drops = _with_drops(self._drops, dropped, for_bytes)
            self._count(dropped=len(dropped), dropped_for_bytes=for_bytes)

    def _done(self) -> None:
        self._expected = len(self.queue)
        if not self.queue:
            self._bytes = 0

    def _count(self, **more: int) -> None:
        grown = {name: getattr(self._counts, name) + by for name, by in more.items()}
        self._counts = attrs.evolve(self._counts, **grown)


def _size(entries: Iterable[bytes]) -> int:
    return sum(map(len, entries))


def _with_drops(run: Drops | None, dropped: Sequence[bytes], for_bytes: int) -> Drops:
    """Add entries, oldest first, to a run of drops."""
    origins = [_origin(raw) for raw in dropped]
    times = [created_at for _, created_at in origins if created_at is not None]
    components = Counter(run.components if run else ())
    others = run.others if run else 0
    for name, _ in origins:
        if name is not None and (name in components or len(components) < COMPONENTS_MAX):
            components[name] += 1
        else:
            others += 1
    first = run.first if run else None
    last = run.last if run else None
    return Drops(
        dropped=len(dropped) + (run.dropped if run else 0),
        first=first or (times[0] if times else None),
        last=times[-1] if times else last,
        components=dict(components),
        others=others,
        for_bytes=for_bytes + (run.for_bytes if run else 0),
    )


def _origin(raw: bytes) -> tuple[str | None, str | None]:
    """Return component and `created_at` of an entry, as far as it says them."""
    try:
        value: Any = loads(raw) if len(raw) <= _ORIGIN_MAX_BYTES else None
    except NotJSON:
        value = None
    if type(value) is not dict:
        return None, None
    component, created_at = value.get("component"), value.get("created_at")
    return (
        component if type(component) is str and component else None,
        created_at if type(created_at) is str and len(created_at) <= 64 else None,
    )
