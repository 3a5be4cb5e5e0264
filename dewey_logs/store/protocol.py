"""What Dewey asks of its database, and a store in memory that answers the same.

`MemoryStore` is the twin of `dewey_logs.postgres.PostgresStore`; both pass
tests/contract/test_log_store_contract.py.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import attrs

from dewey_logs.clearing import Clearing, Pin
from dewey_logs.filters import iso
from dewey_logs.query import LONG, READ_CHARS, SEARCHED_CHARS, Cursor, Place, Query, words
from dewey_logs.store.matching import Work, answers
from dewey_logs.store.partitions import Partition, on_demand, standing
from godot.entries.entry import Entry
from godot.entries.wire import encode_entry
from godot.errors import BatchRefused, EntryRejected
from godot.json.text import dumps, loads
from godot.mcp.heavy import message_weight, off_the_loop

ENOUGH_BYTES: Final = 2 * 1024 * 1024
"""A page ends with the entry that goes beyond: it is more than any answer holds (dewey_logs.tools.finding)."""


@attrs.frozen
class Stored:
    """What became of a batch.

    :param duplicates: entries that were there already, or twice in the batch.
    :param warnings: what was changed, `entry <index>: …`.
    """

    stored: int
    duplicates: int
    warnings: Sequence[str] = ()


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


@attrs.frozen
class LevelSetting:
    """From which level on the entries of a component are stored (DEW-011).

    :param level: None: all are, until then.
    :param until: ISO 8601 in UTC; None: for ever.
    :param later: the level that counts after `until`; None: none.
    """

    level: str | None
    until: str | None = None
    later: str | None = None


class LogStore(Protocol):
    """A place where entries are kept and found.

    Every method raises `StoreUnavailable` when the store is away; calling again later is right.
    """

    async def store(self, entries: Sequence[Entry]) -> Stored:
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


async def encode_batch(entries: Sequence[Entry]) -> tuple[list[bytes], list[str]]:
    """Serialise the entries of a batch; others go on meanwhile when it is large.

    :return: the JSON of each, and warnings about what was replaced in them.
    :raises BatchRefused: for what cannot be JSON.
    """
    return await off_the_loop(message_weight.get(), _encode_batch, entries)


def _encode_batch(entries: Sequence[Entry]) -> tuple[list[bytes], list[str]]:
    encoded: list[bytes] = []
    warnings: list[str] = []
    faults: list[tuple[int, str]] = []
    for index, entry in enumerate(entries):
        own: list[str] = []
        try:
            encoded.append(encode_entry(entry, own))
        except EntryRejected as exc:
            faults.append((index, str(exc)))
        warnings += [f"entry {index}: {warning}" for warning in own]
    if faults:
        raise BatchRefused(faults)
    return encoded, warnings


@attrs.frozen
class _Row:
    """What the store in memory keeps; `words` are those that full-text search sees."""

    entry: Entry
    ingested_at: datetime
    words: Sequence[str]
    stored_in: int

    def answers(self, query: Query) -> bool:
        return answers(query, self.entry, lambda: self.words, lambda: self.entry.data, Work())


class MemoryStore:
    """Keeps entries in memory; for tests, and for whoever wants Dewey's tools without a database.

    :param now: the store's clock.
    """

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._rows: dict[Cursor, _Row] = {}
        self._ids: set[str] = set()
        self._partitions: set[Partition] = set()
        self._batches = 0
        self._pins: dict[str, Pin] = {}
        self._levels: dict[str, LevelSetting] = {}
        self.clears: list[tuple[str, str | None, Mapping[str, object], int]] = []
        """Who has cleared, who they said they were, what, and how many entries that were."""

    async def store(self, entries: Sequence[Entry]) -> Stored:
        """Keep a batch."""
        encoded, warnings = await encode_batch(entries)
        self._batches += 1
        stored = sum(self._insert(Entry(**loads(each))) for each in encoded)
        return Stored(stored, len(entries) - stored, warnings)

    def _insert(self, entry: Entry) -> bool:
        place = Cursor(entry.created_at, entry.id)
        if entry.id in self._ids:
            return False
        self._ids.add(entry.id)
        self._rows[place] = _Row(entry, self._now(), words(entry.message[:SEARCHED_CHARS]), self._batches)
        return True

    async def query(self, query: Query) -> Page:
        """Find entries."""
        newest_first = query.order == "newest"
        rows = [
            row
            for place, row in sorted(self._rows.items(), reverse=newest_first)
            if query.only in (None, place)
            and row.answers(query)
            and (query.after is None or _behind(place, query.after, newest_first))
            and (query.stored_before is None or row.stored_in < query.stored_before)
        ]
        now = self._now()
        found = _enough([_read_back(row, now, query.long) for row in rows[: query.limit]])
        return Page(found, more=len(rows) > len(found))

    async def follow(
        self, after: Place | None, limit: int, long: frozenset[str] = LONG, enough_bytes: int = ENOUGH_BYTES
    ) -> Followed:
        """Read what was stored after a place."""
        head = Place(self._batches + 1)
        if after is None:
            return Followed((), head, "memory", head.stored_in)
        now = self._now()
        rows = self._after(after)
        read = _enough([_read_back(row, now, long) for _, row in rows[:limit]], enough_bytes)
        found = [(place, entry) for (place, _), entry in zip(rows, read, strict=False)]
        more = len(rows) > len(found)
        return Followed(found, found[-1][0] if more else head, "memory", head.stored_in, more)

    async def count_after(self, after: Place, at_most: int) -> int:
        """Count what was stored after a place."""
        return min(at_most, len(self._after(after)))

    def _after(self, after: Place) -> list[tuple[Place, _Row]]:
        places = [(Place(row.stored_in, row.entry.created_at, row.entry.id), row) for row in self._rows.values()]
        return sorted((each for each in places if each[0] > after), key=lambda each: each[0])

    async def stats(self) -> Stats:
        """Count the entries."""
        entries = [row.entry for row in self._rows.values()]
        times = sorted(each.created_at for each in entries)
        return Stats(
            Counter(each.component for each in entries),
            Counter(each.level for each in entries),
            oldest=times[0] if times else None,
            newest=times[-1] if times else None,
            size_bytes=sum(len(dumps(attrs.asdict(each))) for each in entries),
        )

    async def clear(self, clearing: Clearing, *, by: str, said_by: str | None = None, dry_run: bool = False) -> int:
        """Delete entries."""
        doomed = await self._doomed(clearing)
        if not dry_run:
            for place in doomed:
                del self._rows[place]
                self._ids.discard(place.id)
            self.clears.append((by, said_by, clearing.filters(), len(doomed)))
        return len(doomed)

    async def _doomed(self, clearing: Clearing) -> list[Cursor]:
        pinned = {each.trace_id for each in await self.pins()}
        return [
            place for place, row in self._rows.items() if clearing.takes(row.entry) and row.entry.trace_id not in pinned
        ]

    async def doomed_days(self, clearing: Clearing) -> int:
        """Count the days of which something would go."""
        return len({place.created_at[:10] for place in await self._doomed(clearing)})

    async def now(self) -> datetime:
        """Return the time."""
        return self._now()

    async def pins(self) -> Sequence[Pin]:
        """Return what is pinned."""
        now = iso(self._now())
        return [each for each in self._pins.values() if each.until is None or each.until > now]

    async def pin(
        self,
        trace_id: str,
        *,
        note: str,
        until: str | None,
        by: str,  # noqa: ARG002
        said_by: str | None = None,  # noqa: ARG002
    ) -> None:
        """Keep the entries of a trace."""
        known = self._pins.get(trace_id)
        since = iso(self._now()) if known is None else known.pinned_at
        self._pins[trace_id] = Pin(trace_id, note, since, until)

    async def unpin(self, trace_id: str) -> None:
        """Let a trace go."""
        self._pins.pop(trace_id, None)

    async def levels(self) -> Mapping[str, LevelSetting]:
        """Return the levels that are set."""
        now = iso(self._now())
        current = {
            component: LevelSetting(each.later) if each.until is not None and each.until <= now else each
            for component, each in sorted(self._levels.items())
        }
        return {component: each for component, each in current.items() if each != LevelSetting(None)}

    async def set_level(
        self,
        component: str,
        level: str | None,
        *,
        until: str | None,
        by: str,  # noqa: ARG002
        said_by: str | None = None,  # noqa: ARG002
    ) -> str | None:
        """Set the level of a component."""
        before = (await self.levels()).get(component, LevelSetting(None))
        lasting = before.later if before.until is not None else before.level
        self._levels[component] = LevelSetting(level, until, lasting if until is not None else None)
        return before.level

    async def maintain(self, *, ahead_days: int, retention_days: int, partitioned: bool = True) -> Maintained:
        """Count off the partitions that a database would have."""
        if not partitioned:
            return Maintained((), 0)
        today = self._now().astimezone(UTC).date()
        start, end = on_demand(today, ahead_days=ahead_days, retention_days=retention_days)
        times = [datetime.fromisoformat(row.entry.created_at) for row in self._rows.values()]
        wanted = {
            *standing(today, ahead_days=ahead_days),
            *(Partition(each.date()) for each in times if start <= each < end),
        }
        new = sorted(wanted - self._partitions)
        self._partitions |= wanted
        moved = sum(Partition(each.date()) in new for each in times)
        return Maintained([each.name for each in new], moved)


def _behind(place: Cursor, after: Cursor, newest_first: bool) -> bool:
    return place < after if newest_first else place > after


def _enough(entries: Sequence[StoredEntry], enough_bytes: int = ENOUGH_BYTES) -> Sequence[StoredEntry]:
    """Cut a page where it is large enough."""
    size = 0
    for index, entry in enumerate(entries):
        if size > enough_bytes:
            return entries[:index]
        size += entry.size_bytes
    return entries


def _read_back(row: _Row, now: datetime, long: frozenset[str]) -> StoredEntry:
    entry = row.entry
    whole = StoredEntry(
        id=entry.id,
        trace_id=entry.trace_id,
        component=entry.component,
        level=entry.level,
        message=entry.message if "message" in long else "",
        data=None if entry.data is None or "data" not in long else dumps(entry.data).decode(),
        created_at=entry.created_at,
        ingested_at=iso(row.ingested_at),
        age=(now - datetime.fromisoformat(entry.created_at)).total_seconds(),
    )
    return attrs.evolve(whole, **whole.begin("message", READ_CHARS), **whole.begin("data", READ_CHARS))
