"""Whether an entry answers a query, without a database.

It does in Python what `Query.to_sql` asks for; the contract of `LogStore` holds the two together. Only PostgreSQL knows
SQL/JSON paths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from dewey_logs.query import Query
from dewey_logs.search import Search
from godot.entries.entry import Entry
from godot.entries.levels import levels_from
from godot.errors import EntryRejected


class TooMuch(Exception):
    """Deciding whether an entry answers a query would take more work than is allowed."""


@attrs.define
class Work:
    """How much work may be done to decide whether an entry answers a query.

    :param values: how many values of JSON may be looked at.
    :param chars: how long a text may be that is searched.
    """

    values: float = math.inf
    chars: float = math.inf

    def read(self, text: str) -> str:
        """Return a text that is about to be searched.

        :raises TooMuch: it is too long.
        """
        if len(text) > self.chars:
            raise TooMuch
        return text

    def take(self, values: int) -> None:
        """Count values that are about to be looked at.

        :raises TooMuch: they are more than are left.
        """
        self.values -= values
        if self.values < 0:
            raise TooMuch


def answers(
    query: Query, entry: Entry, words: Callable[[], Sequence[str]], data: Callable[[], Any], work: Work
) -> bool:
    """Whether an entry answers a query, whatever page it is on.

    :param words: returns the words of the message for full-text search; called only when they matter.
    :param data: returns the data of the entry; called only when it matters.
    :raises EntryRejected: the query has a `data_path`.
    :raises TooMuch: it would take more than `work`.
    """
    if query.data_path is not None:
        raise EntryRejected("data_path: the store in memory knows no SQL/JSON paths; ask with data")
    return (
        (query.trace_id is None or entry.trace_id == query.trace_id)
        and (query.component is None or query.component.match(entry.component))
        and (query.level is None or entry.level in levels_from(query.level))
        and (query.start_time is None or entry.created_at >= query.start_time)
        and (query.end_time is None or entry.created_at < query.end_time)
        and (query.search is None or _matches(query.search, words()))
        and (query.contains is None or query.contains.lower() in work.read(entry.message).lower())
        and (query.data is None or _holds(data(), query.data, work))
    )


def _matches(search: Search, words: Sequence[str]) -> bool:
    # No word has a blank in it. So a phrase is in a text when its words stand there side by side.
    text = f" {' '.join(words)} "
    return any(
        all((f" {' '.join(term.words)} " in text) is not term.negated for term in terms)
        for terms in search.alternatives
    )


def _holds(value: Any, wanted: Any, work: Work) -> bool:
    """Whether JSON contains other JSON in the sense of `@>`: arrays in any order, numbers by value."""
    match value, wanted:
        case dict(), dict():
            work.take(1 + len(wanted))
            return all(key in value and _holds(value[key], each, work) for key, each in wanted.items())
        case list(), list():
            work.take(1 + len(value) + len(wanted))
            return _holds_each(value, wanted, work)
        case (dict() | list(), _) | (_, dict() | list()):
            return False
    return _scalar(value) == _scalar(wanted)


def _holds_each(values: list[Any], wanted: list[Any], work: Work) -> bool:
    inner = [each for each in values if isinstance(each, dict | list)]
    scalars = {_scalar(each) for each in values if not isinstance(each, dict | list)}
    return all(
        any(_holds(each, one, work) for each in inner) if isinstance(one, dict | list) else _scalar(one) in scalars
        for one in wanted
    )


def _scalar(value: Any) -> tuple[bool, Any]:
    """Return a key that is equal for equal scalars of JSON: for 1 and 1.0, but not for 1 and true."""
    return isinstance(value, bool), value
