"""What the stations ask of the buffer between taking entries in and delivering them.

Entries are bytes here (`godot.entries.wire` made them); a buffer reads only those that it drops. It is a queue with a
bound: a push beyond it makes the OLDEST entries go, and every one of them is counted (GOD-005). What the sender takes
stays `in flight` in the buffer until the sender settles it, so that a sender that dies loses nothing.

Beside the queue a buffer keeps what can never be stored (`DeadLetters`), and the account of each run of drops, until
that account is stored where people read (`Holes`).

At every instant, also across restarts:

    received = stored + queued + in flight + dropped + dead
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, Protocol

import attrs

from godot.entries.entry import MAX_ENTRY_BYTES
from godot.json.text import dumps, loads

TAKE_MAX_BYTES: Final = 8 * 1024 * 1024
"""A take ends with the entry that exceeds this, so that a thousand large entries do not become one frame."""

QUEUE_MAX_BYTES: Final = 1024**3
"""Bytes of entries that may be queued, unless `GODOT_MAX_QUEUE_BYTES` says otherwise."""

DEAD_MAX: Final = 10_000
DEAD_MAX_BYTES: Final = 256 * 1024 * 1024
"""How many dead entries are kept, and how many bytes with their reasons. Older ones are forgotten, and counted."""

GRAVE_MAX_BYTES: Final = 2 * MAX_ENTRY_BYTES + 65_536
"""How much is kept of a dead entry. That is all of it when it is JSON: as a text in JSON its bytes at most double. Each
byte of anything else may become six."""

BEGINNING_BYTES: Final = 65_536
"""How much is kept of a larger one."""

COMPONENTS_MAX: Final = 100
"""How many components are counted one by one in a run of drops: names come from outside, and memory is finite."""


def has_room_again(queued: int, queued_bytes: int, max_size: int, max_bytes: int) -> bool:
    """Whether a run of drops is over: a tenth of the queue is free. With less it would begin again at once."""
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
        """Make it of the beginning of an entry that is too large; the scripts in Redis do the same."""
        reason = f"an entry may have {entry_max_bytes} bytes, this one has {len(raw)}"
        return cls(raw[:BEGINNING_BYTES], reason, len(raw))

    @property
    def id(self) -> str:
        """A name for it, since it may have no id of its own. Identical entries with the same reason share it."""
        return blake2b(b"%b\0%b" % (self.reason.encode(), self.raw), digest_size=8).hexdigest()

    @property
    def packed(self) -> bytes:
        """What is kept of it, as JSON."""
        value: dict[str, Any] = {"reason": self.reason, "entry": self.raw.decode("utf-8", "replace")}
        if self.of_bytes:
            value["bytes"] = self.of_bytes
        record = dumps(value)
        if len(record) > GRAVE_MAX_BYTES:
            return DeadEntry(self.raw[:BEGINNING_BYTES], self.reason, len(self.raw)).packed
        return record

    @classmethod
    def unpack(cls, record: bytes) -> DeadEntry:
        """Make it from what `packed` returned."""
        value = loads(record.decode("utf-8", "replace"))  # a script cuts anywhere, and copies any byte
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

    :param kept: how many are kept altogether.
    """

    entries: Sequence[DeadEntry]
    kept: int


@attrs.frozen
class Drops:
    """A run of drops, from the first entry that found the queue full until there was room again.

    :param first: `created_at` of the first dropped entry, as far as that is known.
    :param last: that of the last one.
    :param components: how many entries of which component.
    :param others: how many entries without a component, or of one beyond the first `COMPONENTS_MAX`.
    :param for_bytes: how many went because of their bytes, while there was room for their number.
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

    :param queued_bytes: bytes of the queued entries. What others pushed is weighed with our own next push or take.
    :param dropped_for_bytes: those of `dropped` that were over the bound in bytes, and not over that in entries.
    :param vanished: those of `dropped` that another process took out of the queue, or that Redis evicted.
    :param dead_forgotten: those of `dead` that are not kept any more, because there were too many.
    :param began: when counting began, in microseconds since 1970; 0: not known. When it is later than before, the
        counts were lost and began anew.
    :param weakness: set by `push`: why that push may be lost although it was answered. None: it is durable.
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


@attrs.frozen
class Taken:
    """Entries that a take has moved in flight, oldest first.

    :param unchecked: others than Godot may have pushed some of them, so that they may be anything. False: each is as
        `godot.entries.wire.encode_entry` made it.
    """

    entries: list[bytes]
    unchecked: bool = False


class Queue(Protocol):
    """What the batcher and the sender ask of a buffer.

    Every method of these protocols may raise `BufferUnavailable`.

    One batcher pushes and one sender takes, each one thing at a time.
    """

    async def push(self, entries: Sequence[bytes]) -> Counts:
        """Append a batch, oldest first, and cut the queue to its bounds.

        An entry that is larger than the whole queue may be goes alone, and is counted as dropped.

        The same batch, pushed again after `BufferUnavailable`, is pushed once.
        """

    async def take(self, limit: int) -> Taken:
        """Move up to `limit` of the oldest entries in flight and return them, oldest first.

        What is in flight already is returned again, and nothing beside it: the answer to the take before may have been
        lost. Fewer come when they are large (`TAKE_MAX_BYTES`), but at least one if there is one.

        What others pushed is never returned when it is larger than an entry may be: it is dead.
        """

    async def settle(self, keep: Sequence[bytes] = (), dead: Sequence[DeadEntry] = ()) -> Counts:
        """Replace what is in flight by `keep`, oldest first, and put `dead` aside; the rest was stored.

        :param keep: what is still to be stored: nothing when the batch is done; the mended batch when entries had to be
            completed before they can be sent.
        :param dead: entries exactly as they are in flight.
        :raises NotInFlight: another daemon has handed it back since it was taken. Nothing is settled: take again.

        The same, settled again after `BufferUnavailable`, is settled once.
        """

    async def hand_back(self) -> Counts:
        """Put what this sender has in flight back, as the oldest of the queue and in its old order.

        Do the same for every other sender whose lease has run out.
        """

    async def counts(self) -> Counts:
        """Return the counts, and change nothing."""

    async def oldest(self) -> bytes | None:
        """Return the oldest entry that is queued; None when none is, or when it is larger than an entry may be."""

    async def weakness(self) -> str | None:
        """Return why what is pushed now may be lost although it was answered; None: it is durable."""


class Holes(Protocol):
    """What the sender asks of a buffer, so that people are told of a run of drops, once."""

    async def hole(self, describe: Callable[[Drops], bytes]) -> bytes | None:
        """Return the entry that tells of the oldest run of drops that is over, or None.

        Until `hole_told` it is the same bytes, with the same id, each time and for every daemon. It is not in the
        queue: nothing can drop it.

        :param describe: makes that entry, for a run that has none yet.
        """

    async def hole_told(self, entry: bytes, refused: str | None = None) -> Counts:
        """Note that such an entry is stored: it counts as received and stored, once.

        :param refused: why it cannot be stored; then it is dead. None: it is stored.
        """


class DeadLetters(Protocol):
    """What an operator asks of a buffer about entries that could not be stored.

    `Counts.dead` counts those that are or were dead: it falls when some are put back, and not when some are deleted.
    """

    async def dead_letters(self, skip: int, limit: int) -> DeadPage:
        """Return up to `limit` of them behind the `skip` oldest; fewer when they are large (`TAKE_MAX_BYTES`)."""

    async def retry(self, ids: Collection[str] | None = None) -> int:
        """Put dead entries back as the oldest of the queue, and return how many: no more than there is room for.

        An entry stays dead when only its beginning is kept, or when it is larger than the whole queue may be.

        :param ids: `DeadEntry.id`; None: all.
        """

    async def purge(self, ids: Collection[str] | None = None) -> int:
        """Delete dead entries for ever, and return how many."""


class LevelNotes(Protocol):
    """What Godot writes down for its next start."""

    async def note_levels(self, noted: bytes) -> None:
        """Keep what is known of levels (`godot.pipeline.levels`) instead of what was noted before."""

    async def noted_levels(self) -> bytes | None:
        """Return what was noted; None: nothing."""


class Buffer(Queue, Holes, DeadLetters, LevelNotes, Protocol):
    """Everything that Godot asks of a buffer."""
