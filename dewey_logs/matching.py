"""Whether an entry answers a query, without a database.

What `Query.to_sql` means, in Python; the contract of `LogStore` holds the two together. SQL/JSON paths are
PostgreSQL's alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dewey_logs.search import Query, Search, Term, levels_from
from godot.entries import Entry
from godot.errors import EntryRejected


def answers(query: Query, entry: Entry, words: Sequence[str]) -> bool:
    """Whether an entry answers a query, its place among the pages aside.

    :param words: those of the message that full-text search sees.
    :raises EntryRejected: there is a `data_path`.
    """
    if query.data_path is not None:
        raise EntryRejected("data_path: the store in memory knows no SQL/JSON paths; ask with data")
    return (
        (query.trace_id is None or entry.trace_id == query.trace_id)
        and (query.component is None or query.component.match(entry.component))
        and (query.level is None or entry.level in levels_from(query.level))
        and (query.start_time is None or entry.created_at >= query.start_time)
        and (query.end_time is None or entry.created_at < query.end_time)
        and (query.search is None or _matches(query.search, words))
        and (query.contains is None or query.contains.lower() in entry.message.lower())
        and (query.data is None or _holds(entry.data, query.data))
    )


def _matches(search: Search, words: Sequence[str]) -> bool:
    return any(all(_has(words, term) for term in terms) for terms in search.alternatives)


def _has(words: Sequence[str], term: Term) -> bool:
    size = len(term.words)
    found = any(tuple(words[at : at + size]) == term.words for at in range(len(words) - size + 1))
    return found is not term.negated


def _holds(value: Any, wanted: Any) -> bool:
    """Whether JSON contains other JSON, as `@>` has it: an array in any order, a number of equal value."""
    match value, wanted:
        case dict(), dict():
            return all(key in value and _holds(value[key], each) for key, each in wanted.items())
        case list(), list():
            return all(any(_holds(each, one) for each in value) for one in wanted)
        case (dict() | list(), _) | (_, dict() | list()):
            return False
    return isinstance(value, bool) is isinstance(wanted, bool) and bool(value == wanted)
