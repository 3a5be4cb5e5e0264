"""One follower's reading: how far it has come, what it has got, and whether an entry answers its query. Pure."""

from __future__ import annotations

from typing import Any, Final

import attrs

from dewey_logs.places import Place
from dewey_logs.query import Query
from dewey_logs.search import SEARCHED_CHARS, words
from dewey_logs.store.matching import TooMuch, Work, answers
from dewey_logs.store.protocol import ENOUGH_BYTES, StoredEntry
from godot.entries.entry import Entry
from godot.json.text import loads

MATCHED_CHARS: Final = 262_144
MATCHED_VALUES: Final = 20_000
"""PostgreSQL compares longer texts, and data with more values, with a filter: here it would hold up everything else."""


@attrs.frozen
class Tail:
    """What a follower gets.

    :param entries: each with its place; at most `Query.limit`.
    :param place: where to go on after the last of these entries.
    :param missed: how many entries were left out because the follower was too far behind.
    """

    entries: list[tuple[Place, StoredEntry]]
    place: Place
    identity: str
    missed: int = 0


@attrs.define
class Reading:
    """What one follower has got so far.

    :param max_bytes: how much room its answer has.
    :param who: its caller.
    :param place: how far it has read.
    :param full: its answer has no room for more.
    """

    query: Query
    max_bytes: int
    identity: str
    who: str
    place: Place
    missed: int = 0
    entries: list[tuple[Place, StoredEntry]] = attrs.field(factory=list)
    full: bool = False
    _bytes: int = 0

    def add(self, at: Place, entry: StoredEntry) -> None:
        """Keep as much of an entry as the answer can show."""
        cut: dict[str, Any] = {} if "message" in self.query.long else {"message": ""}
        cut |= {} if "data" in self.query.long else {"data": None}
        for name in self.query.long:
            cut |= entry.begin(name, self.max_bytes)
        kept = attrs.evolve(entry, **cut) if cut else entry
        self.entries.append((at, kept))
        self._bytes += len(kept.message) + len(kept.data or "")
        self.full = len(self.entries) >= self.query.limit or self._bytes >= self.max_bytes

    def page(self, most: int) -> tuple[int, frozenset[str], int]:
        """Return how many entries to read at once, which long fields of them, and how many bytes are enough.

        :param most: how many entries to read where a filter will drop some.
        """
        query = self.query
        if not query.leaves_out:
            return query.limit - len(self.entries), query.long, min(ENOUGH_BYTES, self.max_bytes - self._bytes)
        asked = {"message": query.search or query.contains, "data": query.data}
        return most, query.long | {name for name, value in asked.items() if value}, ENOUGH_BYTES

    @property
    def has_something(self) -> bool:
        """Whether there is something to answer."""
        return bool(self.entries or self.missed)


def answers_here(query: Query, found: StoredEntry) -> bool:
    """Whether an entry answers a query. Only fields that a filter asks about are unpacked.

    :raises TooMuch: the database has to decide.
    """
    entry = Entry(
        id=found.id, trace_id=found.trace_id, component=found.component, level=found.level, message=found.message,
        data=None, created_at=found.created_at,
    )  # fmt: skip

    def data() -> Any:
        if found.unread:
            raise TooMuch
        return None if found.data is None else loads(work.read(found.data))

    work = Work(MATCHED_VALUES, MATCHED_CHARS)
    return answers(
        query,
        entry,
        words=lambda: words(found.message[:SEARCHED_CHARS]),
        data=data,
        work=work,
    )
