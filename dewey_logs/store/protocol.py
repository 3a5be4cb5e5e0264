"""What Dewey asks of its database."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

import attrs

from dewey_logs.clearing import Clearing, Pin
from dewey_logs.places import Place
from dewey_logs.query import LONG, Query
from dewey_logs.store.batch import Batch
from godot.entries.levels import LevelSetting

ENOUGH_BYTES: Final = 2 * 1024 * 1024
"""A page ends with the entry that goes beyond: it is more than any answer holds (dewey_logs.tools.finding)."""


@attrs.frozen
class Stored:
    """What became of a batch.

    :param duplicates: entries that were there already, or twice in the batch.
    """

    stored: int
    duplicates: int


@attrs.frozen
class StoredEntry:
    """An entry as it is read back (DEW-002, DEW-008).

    :param message: empty where it was not to be read; of a long one the first `READ_CHARS`, as of data.
    :param data: JSON text: it may be megabytes, and hold numbers that a parser would round.
    :param message_chars: how long it is where this is the beginning of it only; may be None where it is all.
    :param data_chars: the same of data.
    :param unread: there is data, which took too long to be read; what stands in its place says so.
    :param created_at: ISO 8601 in UTC with microseconds, as is `ingested_at`.
    :param age: seconds between `created_at` and now, by the clock of the database.
    """

    id: str
    trace_id: str | None
    component: str
    level: str
    message: str
    data: str | None
    created_at: str
    ingested_at: str
    age: float
    message_chars: int | None = None
    data_chars: int | None = None
    unread: bool = False

    @property
    def size_bytes(self) -> int:
        """What it takes in memory, about."""
        return 500 + sys.getsizeof(self.message) + sys.getsizeof(self.data)

    def begin(self, name: str, chars: int) -> dict[str, Any]:
        """Return what is to change where a long field is cut to so many characters."""
        text = getattr(self, name)
        if text is None or len(text) <= chars:
            return {}
        return {name: text[:chars], f"{name}_chars": self.length(name)}

    def length(self, name: str) -> int:
        """Return the length in full of a long field."""
        return getattr(self, f"{name}_chars") or len(getattr(self, name) or "")


@attrs.frozen
class Page:
    """The entries that answer a query, in its order.

    :param more: there are, or may be, further ones behind the last.
    """

    entries: Sequence[StoredEntry]
    more: bool


@attrs.frozen
class Maintained:
    """What maintenance did.

    :param created: names of the new partitions.
    :param moved: entries that left the default partition for one of them.
    """

    created: Sequence[str]
    moved: int


@attrs.frozen
class Stats:
    """How much is stored (DEW-010).

    :param by_component: entries by component; only components that have some.
    :param by_level: the same by level.
    :param oldest: the smallest `created_at`, ISO 8601 in UTC; None when there is no entry.
    :param newest: the largest.
    :param size_bytes: what they take, with their indexes.
    """

    by_component: Mapping[str, int]
    by_level: Mapping[str, int]
    oldest: str | None
    newest: str | None
    size_bytes: int

    @property
    def total(self) -> int:
        """How many entries there are."""
        return sum(self.by_level.values())


@attrs.frozen
class Followed:
    """Entries in the order in which they were stored.

    :param entries: each with its place.
    :param head: everything before it has been read, or was there before.
    :param identity: of the database, whose places these are; another one when it has gone back in time.
    :param end: no place was ever given beyond this number.
    :param more: there are, or may be, further ones behind the last.
    """

    entries: Sequence[tuple[Place, StoredEntry]]
    head: Place
    identity: str
    end: int
    more: bool = False


class LogStore(Protocol):
    """A place where entries are kept and found.

    Every method raises `StoreUnavailable` when the store is away; calling again later is right.
    """

    async def store(self, batch: Batch) -> Stored:
        """Keep a batch, all of it or nothing; what is there already is left as it is (DEW-004).

        An empty batch keeps nothing, but finds out whether a batch could be kept now.

        :raises BatchRefused: for entries that cannot be stored ever.
        """

    async def query(self, query: Query) -> Page:
        """Find entries: fewer than its limit when these are large, or when further ones could not be read in time.

        :raises EntryRejected: when it takes too long.
        """

    async def follow(
        self, after: Place | None, limit: int, long: frozenset[str] = LONG, enough_bytes: int = ENOUGH_BYTES
    ) -> Followed:
        """Read what was stored after a place, in an order to which nothing is added but at its end.

        It gets on whatever there is: `query` says when a page is short, and an entry whose data cannot be read in time
        comes without it.

        :param after: None: read nothing, only find the head.
        :param long: which long fields are read.
        :param enough_bytes: a page ends with the entry that goes beyond.
        """

    async def count_after(self, after: Place, at_most: int) -> int:
        """Count what was stored after a place, no further than to a number."""

    async def stats(self) -> Stats:
        """Count the entries; exact after every batch."""

    async def clear(self, clearing: Clearing, *, by: str, said_by: str | None = None, dry_run: bool = False) -> int:
        """Delete entries, and leave a note of it; return how many (DEW-009).

        Entries that come meanwhile may go or stay. When this fails in the middle, a part has gone, and the note says
        how many; doing it again does the rest.

        :param by: where the call came from, for the note.
        :param said_by: who they say they are, for the note.
        :param dry_run: only count them.
        """

    async def doomed_days(self, clearing: Clearing) -> int:
        """Count the UTC days of which clearing would delete something."""

    async def now(self) -> datetime:
        """Return the time by the clock of the store."""

    async def pins(self) -> Sequence[Pin]:
        """Return what is pinned, oldest pin first."""

    async def pin(self, trace_id: str, *, note: str, until: str | None, by: str, said_by: str | None = None) -> None:
        """Keep the entries of a trace, those that are there and those that come; pinning again changes note and end."""

    async def unpin(self, trace_id: str) -> None:
        """Let a trace go; whether it was pinned or not."""

    async def levels(self) -> Mapping[str, LevelSetting]:
        """Return the levels that are set, by component; what has ended is not among them."""

    async def set_level(
        self, component: str, level: str | None, *, until: str | None, by: str, said_by: str | None = None
    ) -> str | None:
        """Set the level of a component, and return the one that counted before.

        :param level: None: none is set any more.
        :param until: when it is again what it is now, for ever without; what is for a time only is not gone back to.
        """

    async def maintain(self, *, ahead_days: int, retention_days: int, partitioned: bool = True) -> Maintained:
        """Make the store ready for the days to come (DEW-005); doing it again is harmless.

        :param ahead_days: days after today that always have a partition.
        :param retention_days: days before today that get one when they have entries.
        :param partitioned: False: no partition is made, everything goes into the default one.
        """
