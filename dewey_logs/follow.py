"""Followers: entries as they are stored, for many at once.

Law of this module: the database is read once for all followers that wait, whatever their number, and the writer never
waits for any of them. New entries are kept for a while (`Followers`, bounded in bytes), and each follower picks what it
asked for. A follower with an older cursor reads the database itself until it has caught up. Only `CATCHING_UP` of them
read at once, and each keeps no more of a page than its answer has room for.

The order is that of the inserts which stored the entries. It is read only as far as every earlier insert has ended
(schema/0008_log_order.sql). So nothing is ever added before a cursor, however old the `created_at` of an entry, and
whichever Dewey stored it.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Final

import attrs
import trio

from dewey_logs.places import Cursor, Place
from dewey_logs.query import READ_CHARS, Query
from dewey_logs.reading import Reading, Tail, answers_here
from dewey_logs.store.matching import TooMuch
from dewey_logs.store.protocol import LogStore, Page, StoredEntry
from godot.errors import EntryRejected, StoreUnavailable
from godot.mcp.toolbox import INSIDE
from godot.service.shares import Shares

MAX_FOLLOWERS: Final = 200

POLL_S: Final = 0.25
"""How often a waiting follower looks for entries that another Dewey stored. Entries stored here wake it at once."""

GATHER_S: Final = 0.02
"""Pause between storing and reading: at a high rate, several batches are read at once."""

PAGE: Final = 1_000
"""Entries that are read at once."""

KEPT_BYTES: Final = 16 * 1024 * 1024
"""How much memory the entries take that are kept for followers."""

CATCHING_UP: Final = 2
"""Followers that read older parts of the database at once, one of each caller. The others wait for their turn."""

TURN_S: Final = 5.0
"""A follower waits at least this long for that turn, even one that would not wait for entries. Then it is told to go on
from where it is."""

PIECE_BYTES: Final = 256 * 1024
"""How much of the kept entries is gone through at once: they may be forgotten meanwhile."""

LAG_MAX: Final = 100_000
"""How many entries a follower may be behind. Older ones are left out, and counted."""

COUNTED_MAX: Final = 1_000_000
"""Counting them stops here."""

PIECE_S: Final = 0.01
"""After comparing entries for this long, other tasks get a turn."""


class Followers:
    """All followers of one store."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._stored = trio.Event()
        self._reading = trio.Lock()
        self._deciding = Shares(1, 1)
        """Where the database has to decide: followers use one of the connections for queries, and leave the others."""
        self._catching_up = Shares(CATCHING_UP, 1)
        self._begun = self._ended = 0
        """Number of the last read that began, and of the last one that ended well."""
        self._identity = ""
        """Of the database that the kept entries are from."""
        self._kept: deque[tuple[Place, StoredEntry]] = deque()
        self._kept_bytes = 0
        self._from: Place | None = None
        """The kept entries begin behind this place; None while nobody waits."""
        self._to = Place(0)
        self._more = False
        """Whether there was more to read after `_to`."""
        self.count = 0
        """How many followers there are now."""

    def note_stored(self) -> None:
        """Wake the followers that wait: something was stored."""
        self._stored.set()
        self._stored = trio.Event()

    async def tail(
        self,
        query: Query,
        cursor: str | None,
        *,
        last: int,
        wait_s: float,
        max_bytes: int = READ_CHARS,
        who: str = INSIDE,
    ) -> Tail:
        """Return entries that were stored after a cursor and answer a query; wait when there are none yet.

        :param query: its filters, its limit and its long fields count; its order does not.
        :param cursor: of an earlier answer; None: begin with the newest entries there are.
        :param last: how many of these.
        :param max_bytes: the room that the answer has; hardly more is kept for it.
        :param who: the caller, for sharing the store fairly.
        :raises EntryRejected: the cursor is not one of ours, or there are too many followers.
        """
        with self._one_more():
            deadline = trio.current_time() + wait_s
            start = await self._store.follow(None, 0)
            self._note_identity(start.identity)
            place = start.head if cursor is None else Place.decode(cursor, start.identity, start.end)
            reading = Reading(query, max_bytes, start.identity, who, place)
            behind = 0
            if cursor is None:
                await self._begin(reading, last)
            elif not self._has(place):
                behind = await self._store.count_after(place, COUNTED_MAX)
                if behind > LAG_MAX:
                    reading.place, reading.missed = start.head, behind
            try:
                if self._from is None and not PAGE < behind <= LAG_MAX:
                    await self._read_new(reading.place)
                await self._read_on(reading, deadline)
            except StoreUnavailable:
                if reading.place == place and not reading.has_something:
                    raise  # otherwise there is something to answer, and the next call meets the trouble
            return Tail(reading.entries, reading.place, reading.identity, reading.missed)

    async def _begin(self, reading: Reading, last: int) -> None:
        """Take the newest entries there are."""
        if last:
            newest = attrs.evolve(reading.query, limit=last, order="newest", stored_before=reading.place.stored_in)
            reading.query = attrs.evolve(reading.query, limit=max(last, reading.query.limit))
            for entry in (await self._ask(newest, reading.who)).entries:
                if not reading.full:
                    reading.add(reading.place, entry)
            reading.entries.reverse()

    async def _read_on(self, reading: Reading, deadline: float) -> None:
        """Read until there is something and no more for now, until there is no room for more, or until the deadline.

        It also ends when the database has become another one. The next call with the cursor is told so.
        """
        while self._identity == reading.identity and not reading.full:
            stored = self._stored
            if self._has(reading.place):
                is_all = await self._go_through_kept(reading)
            else:
                is_all = await self._catch_up(reading, deadline)
            late = trio.current_time() >= deadline
            if late or (is_all and reading.has_something):
                return
            if is_all:
                with trio.move_on_after(min(POLL_S, deadline - trio.current_time())):
                    await stored.wait()
                    await trio.sleep(GATHER_S)
            if is_all or (self._more and self._has(reading.place) and reading.place >= self._to):
                await self._read_new(reading.place)

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

    def _note_identity(self, identity: str) -> None:
        """Forget the kept entries when they are of another database."""
        if identity != self._identity:
            self._forget()
            self._identity = identity

    def _forget(self) -> None:
        self._kept.clear()
        self._kept_bytes = 0
        self._from = None
        self._more = False

    def _has(self, place: Place) -> bool:
        """Whether all entries after a place are kept, as far as they were read."""
        return self._from is not None and self._from <= place

    async def _answers(self, reading: Reading, entry: StoredEntry) -> bool:
        try:
            return answers_here(reading.query, entry)
        except TooMuch:
            only = Cursor(entry.created_at, entry.id)
            alone = attrs.evolve(reading.query, only=only, limit=1, long=frozenset())
            return bool((await self._ask(alone, reading.who)).entries)

    async def _ask(self, query: Query, who: str) -> Page:
        await self._deciding.take(who)
        try:
            return await self._store.query(query)
        finally:
            self._deciding.give_back(who)

    async def _go_through(self, reading: Reading, rows: Sequence[tuple[Place, StoredEntry]]) -> None:
        """Take those of some entries that answer the query, until there is no room for more."""
        pause_at = time.monotonic() + PIECE_S
        for at, entry in rows:
            if time.monotonic() > pause_at:
                await trio.lowlevel.checkpoint()
                pause_at = time.monotonic() + PIECE_S
            if await self._answers(reading, entry):
                reading.add(at, entry)
            reading.place = at
            if reading.full:
                return

    async def _go_through_kept(self, reading: Reading) -> bool:
        """Take from the kept entries; return whether that is all there is for now."""
        while self._has(reading.place) and reading.place < self._to and not reading.full:
            first = bisect_right(self._kept, reading.place, key=lambda each: each[0])
            rows = []
            size = 0
            for each in islice(self._kept, first, None):
                if size > PIECE_BYTES:
                    break
                rows.append(each)
                size += each[1].size_bytes
            read_to = self._to if first + len(rows) == len(self._kept) else rows[-1][0]
            await self._go_through(reading, rows)
            if not reading.full:
                reading.place = read_to
        return self._has(reading.place) and not self._more

    async def _catch_up(self, reading: Reading, deadline: float) -> bool:
        """Read a page of the database for a follower that is behind; return whether that is all there is for now."""
        with trio.move_on_at(max(deadline, trio.current_time() + TURN_S)) as turn:
            await self._catching_up.take(reading.who)
        if turn.cancelled_caught:
            return False
        try:
            followed = await self._store.follow(reading.place, *reading.page(PAGE))
            self._note_identity(followed.identity)
            if followed.identity != reading.identity:
                return False
            await self._go_through(reading, followed.entries)
        finally:
            self._catching_up.give_back(reading.who)
        if not reading.full:
            reading.place = followed.head
        return not followed.more

    async def _read_new(self, place: Place) -> None:
        """Read new entries once for all that wait.

        :param place: where keeping begins when nothing is kept yet.
        """
        begun = self._begun
        async with self._reading:
            if self._ended > begun:
                return  # another task has read since
            self._begun = number = self._begun + 1
            if self._from is None or (self._more and place > self._to):  # or the present would wait for the past
                self._forget()
                self._from = self._to = place
            followed = await self._store.follow(self._to, PAGE)
            self._note_identity(followed.identity)
            if not self._has(self._to):
                return  # it was forgotten meanwhile
            for each in followed.entries:
                self._kept.append(each)
                self._kept_bytes += each[1].size_bytes
            self._to, self._more = followed.head, followed.more
            self._ended = number
            while self._kept_bytes > KEPT_BYTES:
                self._from, entry = self._kept.popleft()
                self._kept_bytes -= entry.size_bytes
