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
"""A page ends with the entry that exceeds this. It is more than any answer holds (dewey_logs.tools.answers)."""


@attrs.frozen
class Stored:
    """The outcome of a batch.

    :param duplicates: entries that were there already, or twice in the batch.
    """

    stored: int
    duplicates: int


@attrs.frozen
class StoredEntry:
    """An entry as it is read back (DEW-002, DEW-008).

    :param message: empty where it was not asked for; cut to the first `READ_CHARS`, as data is.
    :param data: JSON text: it may be megabytes, and hold numbers that a parser would round.
    :param message_chars: its full length where `message` is only the beginning; may be None where it is all.
    :param data_chars: the same for data.
    :param unread: reading the data took too long, and `data` says so instead.
    :param created_at: ISO 8601 in UTC with microseconds, like `ingested_at`.
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
        """About how much memory it takes."""
        return 500 + sys.getsizeof(self.message) + sys.getsizeof(self.data)

    def begin(self, name: str, chars: int) -> dict[str, Any]:
        """Return the fields that change when a long field is cut to so many characters."""
        text = getattr(self, name)
        if text is None or len(text) <= chars:
            return {}
        return {name: text[:chars], f"{name}_chars": self.length(name)}

    def length(self, name: str) -> int:
        """Return the full length of a long field."""
        return getattr(self, f"{name}_chars") or len(getattr(self, name) or "")


@attrs.frozen
class Page:
    """The entries that answer a query, in its order.

    :param more: further entries follow the last one, or may.
    """

    entries: Sequence[StoredEntry]
    more: bool


@attrs.frozen
class Maintained:
    """What maintenance has done.

    :param created: names of the new partitions.
    :param moved: how many entries moved there from the default partition.
    """

    created: Sequence[str]
    moved: int


@attrs.frozen
class Stats:
    """How much is stored (DEW-010).

    :param by_component: how many entries each component has; components without entries are left out.
    :param by_level: the same for levels.
    :param oldest: the smallest `created_at`, ISO 8601 in UTC; None when there is no entry.
    :param newest: the largest.
    :param size_bytes: the size of the table and its indexes.
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
    :param head: everything before this place has been read now or earlier.
    :param identity: of the database that these places belong to; it changes when the database goes back in time.
    :param end: the largest number that a place can have by now.
    :param more: further entries follow the last one, or may.
    """

    entries: Sequence[tuple[Place, StoredEntry]]
    head: Place
    identity: str
    end: int
    more: bool = False


class LogStore(Protocol):
    """A place where entries are kept and found.

    Every method raises `StoreUnavailable` when the store is away. Calling again later is right.
    """

    async def store(self, batch: Batch) -> Stored:
        """Keep a batch, all of it or nothing. Entries that are there already stay as they are (DEW-004).

        An empty batch keeps nothing, but finds out whether a batch could be kept now.

        :raises BatchRefused: some entries can never be stored.
        """

    async def query(self, query: Query) -> Page:
        """Find entries: fewer than the limit when they are large, or when the rest could not be read in time.

        :raises EntryRejected: it takes too long.
        """

    async def follow(
        self, after: Place | None, limit: int, long: frozenset[str] = LONG, enough_bytes: int = ENOUGH_BYTES
    ) -> Followed:
        """Read what was stored after a place, in an order that grows only at its end.

        Pages may be short, as those of `query`. No entry can hold it up: one whose data cannot be read in time comes
        without it.

        :param after: None: read nothing, only find the head.
        :param long: the long fields to read.
        :param enough_bytes: a page ends with the entry that exceeds this.
        """

    async def count_after(self, after: Place, at_most: int) -> int:
        """Count what was stored after a place, up to a maximum."""

    async def stats(self) -> Stats:
        """Count the entries; exact after every batch."""

    async def clear(self, clearing: Clearing, *, by: str, said_by: str | None = None, dry_run: bool = False) -> int:
        """Delete entries, and leave a note of it; return how many (DEW-009).

        Entries that come meanwhile may go or stay. When this fails halfway, a part has gone, and the note says how
        many; calling again deletes the rest.

        :param by: where the call came from, for the note.
        :param said_by: what the caller says of itself, for the note.
        :param dry_run: only count them.
        """

    async def doomed_days(self, clearing: Clearing) -> int:
        """Count the UTC days from which clearing would delete something."""

    async def now(self) -> datetime:
        """Return the time by the clock of the store."""

    async def pins(self) -> Sequence[Pin]:
        """Return the pins, oldest first."""

    async def pin(self, trace_id: str, *, note: str, until: str | None, by: str, said_by: str | None = None) -> None:
        """Keep the entries of a trace, present and future. Pinning again changes note and end."""

    async def unpin(self, trace_id: str) -> None:
        """Let a trace go. It need not be pinned."""

    async def levels(self) -> Mapping[str, LevelSetting]:
        """Return the levels that are set, by component, without those that have ended."""

    async def set_level(
        self, component: str, level: str | None, *, until: str | None, by: str, said_by: str | None = None
    ) -> str | None:
        """Set the level of a component, and return the one that counted before.

        :param level: None: the component has no level of its own any more.
        :param until: when the level goes back to the permanent one; None: never. A level that is itself set for a time
            is never gone back to.
        """

    async def maintain(self, *, ahead_days: int, retention_days: int, partitioned: bool = True) -> Maintained:
        """Make the store ready for the days to come (DEW-005). Doing it again is harmless.

        :param ahead_days: days after today that always have a partition.
        :param retention_days: days before today that get one when they have entries.
        :param partitioned: False: no partition is made, and all entries go into the default one.
        """
