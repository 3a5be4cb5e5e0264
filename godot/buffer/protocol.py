"""The buffer between taking entries in and delivering them, and its in-memory twin.

Entries are bytes here (`godot.json.text` made them); a buffer looks only into those that it drops. It is a
queue with a bound in entries and one in bytes: what is pushed beyond one makes the OLDEST entries go, and every one of
them is counted (GOD-005). What the sender takes stays `in flight` in the buffer until the sender settles it, so that
a sender that dies loses nothing.

Beside the queue it keeps what can never be stored (`DeadLetters`), and the account of each run of drops,
until that is stored where people read (`Holes`).

At every instant, also across restarts:

    received = stored + queued + in flight + dropped + dead
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import Any, Final, Protocol

import attrs

from godot.entries.entry import MAX_ENTRY_BYTES
from godot.json.text import NotJSON, dumps, loads

TAKE_MAX_BYTES: Final = 8 * 1024 * 1024
"""A take ends with the entry that passes this, so that a thousand large entries do not become one frame."""

QUEUE_MAX_BYTES: Final = 1024**3
"""Bytes of entries that may be queued, unless `GODOT_MAX_QUEUE_BYTES` says otherwise."""

DEAD_MAX: Final = 10_000
DEAD_MAX_BYTES: Final = 256 * 1024 * 1024
"""Dead entries that are kept, and their bytes with their reasons; older ones are forgotten, and counted."""

GRAVE_MAX_BYTES: Final = 2 * MAX_ENTRY_BYTES + 65_536
"""What is kept of one: all of it when it is JSON, whose bytes at most double as a text in JSON. Others become up to
six."""

BEGINNING_BYTES: Final = 65_536
"""What is kept of one that is larger."""

COMPONENTS_MAX: Final = 100
"""Components that are counted one by one in a run of drops: names come from outside, and memory is finite."""

_ORIGIN_MAX_BYTES: Final = 65_536
"""Of an entry that others wrote, to be looked into when it is dropped."""


def has_room_again(queued: int, queued_bytes: int, max_size: int, max_bytes: int) -> bool:
    """Whether a run of drops is over: a tenth of the queue is free. Less, and it would begin again at once."""
    return queued * 10 <= max_size * 9 and queued_bytes * 10 <= max_bytes * 9


@attrs.frozen
class DeadEntry:
    """An entry that can never be stored, and why.

    :param of_bytes: how many bytes it had, when `raw` is only its beginning; 0: `raw` is all of it.
    """

    raw: bytes
    reason: str
    of_bytes: int = 0

    @classmethod
    def beginning(cls, raw: bytes, entry_max_bytes: int) -> DeadEntry:
        """Make it of one that is larger than an entry may be; the scripts in Redis do the same."""
        reason = f"an entry may have {entry_max_bytes} bytes, this one has {len(raw)}"
        return cls(raw[:BEGINNING_BYTES], reason, len(raw))

    @property
    def id(self) -> str:
        """A name for it, since it may have none of its own. Identical entries with the same reason share it."""
        return blake2b(b"%b\0%b" % (self.reason.encode(), self.raw), digest_size=8).hexdigest()

    @property
    def grave(self) -> bytes:
        """What is kept of it, as JSON."""
        value: dict[str, Any] = {"reason": self.reason, "entry": self.raw.decode("utf-8", "replace")}
        if self.of_bytes:
            value["bytes"] = self.of_bytes
        grave = dumps(value)
        if len(grave) > GRAVE_MAX_BYTES:
            return DeadEntry(self.raw[:BEGINNING_BYTES], self.reason, len(self.raw)).grave
        return grave

    @classmethod
    def exhume(cls, grave: bytes) -> DeadEntry:
        """Make it from that."""
        value = loads(grave.decode("utf-8", "replace"))  # a script cuts anywhere, and copies any byte
        return cls(value["entry"].encode(), value["reason"], value.get("bytes", 0))

    def may_return(self, max_bytes: int) -> bool:
        """Whether it could be put back into a queue of so many bytes, if that were empty."""
        return not self.of_bytes and len(self.raw) <= max_bytes


def chosen(entry: DeadEntry, ids: Collection[str] | None) -> bool:
    """Whether a dead entry is one of these; None: every one is."""
    return ids is None or entry.id in ids


@attrs.frozen
class DeadPage:
    """Some of the dead entries, oldest first.

    :param kept: how many there are altogether.
    """

    entries: Sequence[DeadEntry]
    kept: int


@attrs.frozen
class Drops:
    """A run of drops, from the first entry that found the queue full until there was room again.

    :param first: `created_at` of the first entry that was dropped, as far as that is known.
    :param last: that of the last one.
    :param components: how many entries of which component.
    :param others: how many entries that say of no component, or of one beyond the `COMPONENTS_MAX` first.
    :param for_bytes: how many went because of their bytes, when there was room for their number.
    """

    dropped: int
    first: str | None
    last: str | None
    components: Mapping[str, int]
    others: int
    for_bytes: int = 0


@attrs.frozen
class Counts:
    """What a buffer holds now, and what became of everything it was ever given.

    :param queued_bytes: of the entries that are queued. What others pushed is weighed with our own next push or take.
    :param dropped_for_bytes: those of `dropped` that were over the bound in bytes, and not over that in entries.
    :param vanished: those of `dropped` that somebody else took out of the queue, or that Redis evicted.
    :param dead_forgotten: those of `dead` that are not kept any more because there were too many.
    :param began: when counting began, in microseconds since 1970; 0 when that is not known. A later time than before:
        the counts were lost, and began anew.
    :param weakness: of what `push` returns: why that push may be lost although it was answered. None: it is durable.
    """

    queued: int = 0
    in_flight: int = 0
    received: int = 0
    stored: int = 0
    dropped: int = 0
    dead: int = 0
    queued_bytes: int = 0
    dropped_for_bytes: int = 0
    vanished: int = 0
    dead_forgotten: int = 0
    began: int = 0
    weakness: str | None = None


class Buffer(Protocol):
    """What the batcher and the sender ask of a buffer.

    Every method of these protocols may raise `BufferUnavailable`.

    One batcher pushes and one sender takes, each one thing at a time.
    """

    async def push(self, entries: Sequence[bytes]) -> Counts:
        """Append a batch, oldest first, and cut the queue to its bounds.

        An entry that is larger than all of the queue may be goes alone, and is counted as dropped.

        Pushing the same batch again after `BufferUnavailable` pushes it once.
        """

    async def take(self, limit: int) -> list[bytes]:
        """Move up to `limit` of the oldest entries in flight and return them, oldest first.

        What is in flight already is returned again, and nothing beside it: the answer to the take before
        may have been lost. Fewer come when they are large (`TAKE_MAX_BYTES`), but at least one if there is one.

        What others pushed and is larger than an entry may be is never returned: it is dead.
        """

    async def settle(self, keep: Sequence[bytes] = (), dead: Sequence[DeadEntry] = ()) -> Counts:
        """Replace what is in flight by `keep`, oldest first, and put `dead` aside; the rest was stored.

        :param keep: what is still to be stored: nothing when the batch is done, the mended batch when
            entries had to be completed before they can be sent.
        :param dead: entries exactly as they are in flight.
        :raises NotInFlight: another has handed it back since it was taken. Nothing is settled: take again.

        Settling the same again after `BufferUnavailable` settles it once.
        """

    async def hand_back(self) -> Counts:
        """Put what is in flight back, as the oldest of the queue and in its old order.

        That of this sender, and that of every other sender whose lease has run out.
        """

    async def counts(self) -> Counts:
        """Look, and change nothing."""

    async def oldest(self) -> bytes | None:
        """Return the oldest entry that is queued; None when none is, or when it is larger than an entry may be."""

    async def weakness(self) -> str | None:
        """Look why what is pushed now may be lost although it was answered; None: it is durable."""


class Holes(Protocol):
    """What the sender asks of a buffer so that a run of drops is told of, once."""

    async def hole(self, describe: Callable[[Drops], bytes]) -> bytes | None:
        """Return the entry that tells of the oldest run of drops that is over, or None.

        It is the same bytes, with the same id, each time and for every daemon, until `hole_told`. It is not
        in the queue: nothing can drop it.

        :param describe: makes that entry, for a run that has none yet.
        """

    async def hole_told(self, entry: bytes, refused: str | None = None) -> Counts:
        """Note that such an entry is stored: it counts as received and stored, once.

        :param refused: why it cannot be stored, if that is so; then it is dead.
        """


class DeadLetters(Protocol):
    """What an operator asks of a buffer about entries that could not be stored.

    `Counts.dead` is how many there are or were: it falls when some are put back, and not when some are deleted.
    """

    async def dead_letters(self, skip: int, limit: int) -> DeadPage:
        """Return up to `limit` of them behind the `skip` oldest; fewer when they are large (`TAKE_MAX_BYTES`)."""

    async def retry(self, ids: Collection[str] | None = None) -> int:
        """Put dead entries back as the oldest of the queue, and return how many: no more than there is room for.

        Those of which only the beginning is kept stay, and those that are larger than all of the queue may be.

        :param ids: `DeadEntry.id`; None: all.
        """

    async def purge(self, ids: Collection[str] | None = None) -> int:
        """Delete dead entries for ever, and return how many."""


class Notes(Protocol):
    """What Godot writes down for its next start."""

    async def note_levels(self, noted: bytes) -> None:
        """Keep what is known of levels (`godot.levels`) instead of what was noted before."""

    async def noted_levels(self) -> bytes | None:
        """Return it; None when nothing was noted."""


class Keep(Buffer, Holes, DeadLetters, Notes, Protocol):
    """All of it."""


class MemoryBuffer:
    """The twin of `RedisBuffer`: the same behaviour, without durability.

    :param max_size: entries that may be queued.
    :param max_bytes: bytes of entries that may be queued.
    :param dead_max: dead entries that are kept; older ones go, but stay counted.
    :param dead_max_bytes: their bytes.
    :param entry_max_bytes: bytes of an entry; larger ones of others are put aside.
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
        self._expected = 0
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
        """See `Notes.note_levels`."""
        self._levels = noted

    async def noted_levels(self) -> bytes | None:
        """See `Notes.noted_levels`."""
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

    async def take(self, limit: int) -> list[bytes]:
        """See `Buffer.take`."""
        if self.queue and not self._in_flight:
            self._notice_strangers()
            while self.queue and len(self._in_flight) < limit and _size(self._in_flight) < TAKE_MAX_BYTES:
                entry = self.queue.popleft()
                self._bytes -= len(entry)
                if len(entry) > self._entry_max_bytes:
                    self._bury(DeadEntry.beginning(entry, self._entry_max_bytes))
                else:
                    self._in_flight.append(entry)
            self._done()
        return list(self._in_flight)

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
        if len(entry.grave) > self._dead_max_bytes:  # it takes none of the others with it
            self._count(dead_forgotten=1)
            return
        self.dead.append(entry)
        while len(self.dead) > self._dead_max or _size(each.grave for each in self.dead) > self._dead_max_bytes:
            self.dead.popleft()
            self._count(dead_forgotten=1)

    def _notice_strangers(self) -> None:
        """Count what somebody else put into the queue (GOD-001) or took out of it since we last looked."""
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
        self._expected = len(self.queue)

    def _turn_away(self, entries: Sequence[bytes]) -> list[bytes]:
        """Return those that have a place in the queue; each of the others goes by itself."""
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
        self._note_drops(dropped, for_bytes)
        self._done()

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
