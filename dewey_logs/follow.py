"""Followers: entries as they are stored, for many at once.

Law of this module: the database is read once for all who wait, whatever their number, and the writer never waits for
any of them. What is new is kept for a while (`Followers`, bounded in bytes) and each one picks what it asked for. Who
comes with an older cursor reads the database until it has caught up.

The order is that of the inserts which stored the entries, and it is read only as far as every earlier insert has
ended (schema/0008_log_order.sql): so nothing is ever added before a cursor, however old the `created_at` of
an entry, and whichever Dewey stored it.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import attrs
import trio

from dewey_logs.matching import TooMuch, Work, answers
from dewey_logs.search import SEARCHED_CHARS, Cursor, Place, Query, words
from dewey_logs.store import LogStore, Page, StoredEntry
from godot import codec
from godot.entries import Entry
from godot.errors import EntryRejected

MAX_FOLLOWERS: Final = 200

POLL_S: Final = 0.25
"""How often somebody who waits looks for what another Dewey has stored; what this one stores wakes them."""

GATHER_S: Final = 0.02
"""Between a store and the reading of what it stored: at a high rate, several batches are read at once."""

PAGE: Final = 1_000

KEPT_BYTES: Final = 16 * 1024 * 1024
"""Of messages and data that are kept for followers."""

LAG_MAX: Final = 100_000
"""Entries that a follower may be behind; what is older is left out, and counted."""

COUNTED_MAX: Final = 1_000_000

MATCHED_CHARS: Final = 262_144
MATCHED_VALUES: Final = 20_000
"""What is longer, or has more to compare, PostgreSQL compares with a filter: here it would hold up everybody."""

PIECE_S: Final = 0.01
"""After so long with the entries that came, everybody else has a turn."""


@attrs.frozen
class Tail:
    """What a follower gets.

    :param entries: each with its place; of `Query.limit`, at most.
    :param place: where to go on from, when all of the entries have been taken.
    :param missed: how many were left out because the follower was too far behind.
    """

    entries: list[tuple[Place, StoredEntry]]
    place: Place
    identity: str
    missed: int = 0


class Followers:
    """All who follow one store."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._stored = trio.Event()
        self._reading = trio.Lock()
        self._deciding = trio.Semaphore(1)
        """Followers take no more than one of those who read for queries, too."""
        self._begun = self._ended = 0
        """Number of the last reading that was begun, and of the last one that ended well."""
        self._kept: deque[tuple[Place, StoredEntry]] = deque()
        self._kept_bytes = 0
        self._from: Place | None = None
        """What is kept begins behind this place; None while nobody waits."""
        self._to = Place(0)
        self.count = 0
        """How many there are now."""

    def note_stored(self) -> None:
        """Wake those who wait: something was stored."""
        self._stored.set()
        self._stored = trio.Event()

    async def tail(self, query: Query, cursor: str | None, *, last: int, wait_s: float) -> Tail:
        """Return what was stored after a cursor and answers a query; wait for it when there is nothing yet.

        :param query: its filters and its limit count, its order does not.
        :param cursor: of an earlier answer; None: begin with the newest entries there are.
        :param last: how many of these.
        :raises EntryRejected: the cursor is none, or there are too many followers.
        """
        with self._one_more():
            deadline = trio.current_time() + wait_s
            start = await self._store.follow(None, 0)
            found: list[tuple[Place, StoredEntry]] = []
            missed = 0
            if cursor is None:
                place = start.head
                if last:
                    newest = attrs.evolve(query, limit=last, order="newest", stored_before=place.stored_in)
                    found = [(place, entry) for entry in reversed((await self._ask(newest)).entries)]
            else:
                place = Place.decode(cursor, start.identity, start.end)
                if not self._has(place):
                    behind = await self._store.count_after(place, COUNTED_MAX)
                    if behind > LAG_MAX:
                        place, missed = start.head, behind
            while True:
                stored = self._stored
                rows, read_to, is_all = await self._after(place)
                pause_at = time.monotonic() + PIECE_S
                for at, entry in rows:
                    if time.monotonic() > pause_at:
                        await trio.lowlevel.checkpoint()
                        pause_at = time.monotonic() + PIECE_S
                    if await self._answers(query, entry):
                        if len(found) >= query.limit:
                            return Tail(found, place, start.identity, missed)
                        found.append((at, entry))
                    place = at
                place = read_to
                late = trio.current_time() >= deadline
                if late or (is_all and (found or missed)):
                    return Tail(found, place, start.identity, missed)
                if is_all:
                    with trio.move_on_after(min(POLL_S, deadline - trio.current_time())):
                        await stored.wait()
                        await trio.sleep(GATHER_S)
                    await self._read_new(place)

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        if self.count >= MAX_FOLLOWERS:
            raise EntryRejected(
                f"there are {MAX_FOLLOWERS} followers already, which is the most; try again when one of them has gone"
            )
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
            if not self.count:
                self._forget()

    def _forget(self) -> None:
        self._kept.clear()
        self._kept_bytes = 0
        self._from = None

    def _has(self, place: Place) -> bool:
        """Whether all that came after a place, so far as it was read, is kept."""
        return self._from is not None and self._from <= place

    async def _answers(self, query: Query, entry: StoredEntry) -> bool:
        try:
            return _answers_here(query, entry)
        except TooMuch:
            alone = attrs.evolve(query, only=Cursor(entry.created_at, entry.id), limit=1)
            return bool((await self._ask(alone)).entries)

    async def _ask(self, query: Query) -> Page:
        async with self._deciding:
            return await self._store.query(query)

    async def _after(self, place: Place) -> tuple[list[tuple[Place, StoredEntry]], Place, bool]:
        """Return what comes after a place, how far that goes, and whether that is all there is for now."""
        if self._has(place):
            at = bisect_right(self._kept, place, key=lambda each: each[0])
            return [self._kept[number] for number in range(at, len(self._kept))], max(place, self._to), True
        followed = await self._store.follow(place, PAGE)
        return list(followed.entries), followed.head, len(followed.entries) < PAGE

    async def _read_new(self, place: Place) -> None:
        """Read what is new, once for all who wait.

        :param place: where keeping begins when nothing is kept.
        """
        begun = self._begun
        async with self._reading:
            if self._ended > begun:
                return  # somebody has begun and ended reading since
            self._begun = number = self._begun + 1
            if self._from is None:
                self._from = self._to = place
            followed = await self._store.follow(self._to, PAGE)
            for each in followed.entries:
                self._kept.append(each)
                self._kept_bytes += _bytes(each[1])
            self._to = followed.head
            self._ended = number
            while self._kept_bytes > KEPT_BYTES:
                self._from, entry = self._kept.popleft()
                self._kept_bytes -= _bytes(entry)


def _bytes(entry: StoredEntry) -> int:
    return 500 + len(entry.message) + len(entry.data or "")


def _answers_here(query: Query, found: StoredEntry) -> bool:
    """Whether an entry answers a query; what no filter asks about is not unpacked.

    :raises TooMuch: that is for the database to find out.
    """
    entry = Entry(
        id=found.id, trace_id=found.trace_id, component=found.component, level=found.level, message=found.message,
        data=None, created_at=found.created_at,
    )  # fmt: skip

    work = Work(MATCHED_VALUES, MATCHED_CHARS)
    return answers(
        query,
        entry,
        words=lambda: words(found.message[:SEARCHED_CHARS]),
        data=lambda: None if found.data is None else codec.loads(work.read(found.data)),
        work=work,
    )
