"""Keeps entries in memory, and answers as PostgreSQL does.

The twin of `dewey_logs.postgres.PostgresStore`; both pass tests/contract/test_log_store_contract.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import attrs
import trio

from dewey_logs.clearing import Clearing, Pin
from dewey_logs.places import Cursor, Place
from dewey_logs.query import LONG, READ_CHARS, Query
from dewey_logs.search import SEARCHED_CHARS, words
from dewey_logs.store.batch import Batch
from dewey_logs.store.matching import Work, answers
from dewey_logs.store.partitions import Partition, on_demand, standing
from dewey_logs.store.protocol import ENOUGH_BYTES, Followed, Maintained, Page, Stats, Stored, StoredEntry
from godot.entries.entry import Entry
from godot.entries.levels import LevelSetting
from godot.entries.times import iso
from godot.json.text import dumps, loads


@attrs.frozen
class _Row:
    """An entry in memory.

    :param words: of its message, for full-text search.
    :param stored_in: the number of its batch.
    """

    entry: Entry
    ingested_at: datetime
    words: Sequence[str]
    stored_in: int

    def answers(self, query: Query) -> bool:
        return answers(query, self.entry, lambda: self.words, lambda: self.entry.data, Work())


class MemoryStore:
    """Keeps entries in memory: for tests, and for Dewey's tools without a database.

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
        """The notes of clearings: `by`, `said_by`, the filters, and how many entries went."""

    async def store(self, batch: Batch) -> Stored:
        """Keep a batch."""
        await trio.lowlevel.checkpoint()
        self._batches += 1
        stored = sum(self._insert(Entry(**each)) for each in loads(batch.json))
        return Stored(stored, len(batch) - stored)

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
        """Count the days from which entries would go."""
        return len({place.created_at[:10] for place in await self._doomed(clearing)})

    async def now(self) -> datetime:
        """Return the time."""
        return self._now()

    async def pins(self) -> Sequence[Pin]:
        """Return the pins."""
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
        """Note the partitions that a database would make."""
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
    """End a page where it is large enough."""
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
