"""What a query may ask (DEW-006, DEW-007), and its SQL.

Pure: no driver; the clock is handed in. `Query.parse` checks a question, `Query.to_sql` words it for PostgreSQL,
`dewey_logs.store.memory.MemoryStore` answers it from the same fields.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

import attrs

from dewey_logs.filters import Components, bounded, identifier, moment, storable
from dewey_logs.places import Cursor
from dewey_logs.search import Search
from godot.entries.entry import MAX_DEPTH
from godot.entries.levels import LEVELS, levels_from, parse_level
from godot.entries.wire import check_bounds
from godot.errors import EntryRejected
from godot.json.text import dumps

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1_000

TRACE_ID_SHOWN: Final = "0193a1b2-7c3d-4e4f-8a9b-0123456789ab"
"""An example, for descriptions of tools."""

MAX_SEARCH_CHARS: Final = 1_000
MAX_TEXT_CHARS: Final = 10_000
MAX_WANTED: Final = 1_000
"""How many values the filter `data` may have. Each of them is compared with every new entry for each follower."""

LONG: Final = frozenset({"message", "data"})
"""The fields of an entry that may be megabytes. They are read only on request."""

READ_CHARS: Final = 1_000_000
"""How much of a long field is read: more than the largest answer shows, and more than a follower compares itself."""

Order = Literal["newest", "oldest"]


@attrs.frozen
class Query:
    """A question that has been checked.

    :param level: the least severe level to show.
    :param data: what `data` has to contain, in the sense of PostgreSQL's `@>`.
    :param data_path: an SQL/JSON path that selects something in `data`, or is true of it.
    :param contains: a part of the message, in upper or lower case.
    :param start_time: the first moment, ISO 8601 in UTC with microseconds.
    :param end_time: the first moment after the last, written the same.
    :param after: show only entries behind this place.
    :param stored_before: show only entries whose insert has a smaller number.
    :param only: show only the entry at this place, if it answers the query.
    :param long: the long fields to read.
    """

    trace_id: str | None = None
    component: Components | None = None
    level: str | None = None
    start_time: str | None = None
    end_time: str | None = None
    search: Search | None = None
    contains: str | None = None
    data: dict[str, Any] | None = None
    data_path: str | None = None
    limit: int = DEFAULT_LIMIT
    order: Order = "newest"
    after: Cursor | None = None
    stored_before: int | None = None
    only: Cursor | None = None
    long: frozenset[str] = LONG

    @classmethod
    def parse(
        cls,
        *,
        trace_id: str | None = None,
        component: str | Sequence[str] | None = None,
        level: str | None = None,
        start_time: str | None = None,
        end_time: str | None = None,
        search: str | None = None,
        contains: str | None = None,
        data: dict[str, Any] | None = None,
        data_path: str | None = None,
        limit: int | None = None,
        order: Order | None = None,
        cursor: str | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> Query:
        """Check what was asked; None means "not asked". The store checks `data_path`.

        :param now: what relative times count from.
        :raises EntryRejected: naming the argument and what is allowed.
        """
        limit = DEFAULT_LIMIT if limit is None else limit
        if not 1 <= limit <= MAX_LIMIT:
            raise EntryRejected(
                f"limit: from 1 to {MAX_LIMIT:,}, not {limit}; ask for more with the next_cursor of an answer"
            )
        instant = now()
        start = None if start_time is None else moment("start_time", start_time, instant)
        end = None if end_time is None else moment("end_time", end_time, instant)
        if start is not None and end is not None and start >= end:
            raise EntryRejected(f"end_time: must be later than start_time; {end} is not later than {start}")
        if search is not None:
            bounded("search", search, MAX_SEARCH_CHARS)
        if contains is not None:
            bounded("contains", contains, MAX_TEXT_CHARS)
        if data_path is not None:
            bounded("data_path", data_path, MAX_TEXT_CHARS)
        if contains == "":
            raise EntryRejected("contains: must not be empty")
        return cls(
            trace_id=None if trace_id is None else identifier("trace_id", trace_id),
            component=None if component is None else Components.parse(component),
            level=None if level is None else parse_level(level),
            start_time=start,
            end_time=end,
            search=None if search is None else Search.parse(search),
            contains=None if contains is None else storable("contains", contains),
            data=None if data is None else _wanted(data),
            data_path=None if data_path is None else storable("data_path", data_path),
            limit=limit,
            order=order or "newest",
            after=None if cursor is None else Cursor.decode(cursor),
        )

    @property
    def leaves_out(self) -> bool:
        """Whether there is a filter."""
        filters = (
            self.trace_id,
            self.component,
            self.level,
            self.start_time,
            self.end_time,
            self.search,
            self.contains,
        )
        return any(each is not None for each in (*filters, self.data, self.data_path))

    @property
    def by_content(self) -> bool:
        """Whether the index of words or of data can answer it."""
        return self.search is not None or self.data is not None or self.data_path is not None

    def to_sql(self, *, path_is_condition: bool = False) -> tuple[str, dict[str, Any]]:
        """Word it for PostgreSQL. It asks for one entry more than the limit, to see whether there are more.

        :param path_is_condition: `data_path` is true or false of an entry (`$.ms > 5`). Otherwise it selects
            something there, or nothing (`$.steps[*] ? (@.ms > 5)`).
        :return: a statement with `%(name)s` placeholders, and their values. The text contains no value but levels:
            these are known words, and PostgreSQL chooses a partial index by them.
        """
        conditions, values = [], {}
        for wording, name, value in (
            ("logs.trace_id = %(trace_id)s::uuid", "trace_id", self.trace_id),
            ("logs.created_at >= %(start_time)s::timestamptz", "start_time", self.start_time),
            ("logs.created_at < %(end_time)s::timestamptz", "end_time", self.end_time),
        ):
            if value is not None:
                conditions.append(wording)
                values[name] = value
        if self.component is not None:
            condition, named = self.component.to_sql()
            conditions.append(condition)
            values |= named
        if self.level is not None and self.level != LEVELS[-1]:
            listed = ", ".join(f"'{level}'" for level in levels_from(self.level))
            conditions.append(f"logs.level IN ({listed})")
        if self.search is not None:
            conditions.append("log_search_vector(logs.message) @@ websearch_to_tsquery('simple', %(search)s)")
            values["search"] = self.search.websearch()
        if self.contains is not None:
            conditions.append("strpos(lower(logs.message), lower(%(contains)s::text)) > 0")
            values["contains"] = self.contains
        if self.data is not None:
            conditions.append("logs.data @> %(data)s::jsonb")
            values["data"] = dumps(self.data).decode()
        if self.data_path is not None:
            conditions.append(f"logs.data {'@@' if path_is_condition else '@?'} %(data_path)s::jsonpath")
            values["data_path"] = self.data_path
        if self.stored_before is not None:
            conditions.append("(logs.stored_in < %(stored_before)s::text::xid8 OR logs.stored_in IS NULL)")
            values["stored_before"] = str(self.stored_before)
        if self.only is not None:
            conditions += ["logs.id = %(only_id)s::uuid", "logs.created_at = %(only_time)s::timestamptz"]
            values |= {"only_id": self.only.id, "only_time": self.only.created_at}
        behind, direction = ("<", "DESC") if self.order == "newest" else (">", "ASC")
        if self.after is not None:
            # The row comparison finds the place in the index; the second one skips whole partitions.
            conditions += [
                f"(logs.created_at, logs.id) {behind} (%(after_time)s::timestamptz, %(after_id)s::uuid)",
                f"logs.created_at {behind}= %(after_time)s::timestamptz",
            ]
            values |= {"after_time": self.after.created_at, "after_id": self.after.id}
        where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
        in_order = f"ORDER BY logs.created_at {direction}, logs.id {direction}"
        chosen = f"SELECT * FROM logs {where}{in_order} LIMIT {self.limit + 1:d}"  # noqa: S608 - see above
        return read_back(chosen, in_order, self.long), values


ISO_FORMAT: Final = """'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""


def read_back(chosen: str, in_order: str, long: frozenset[str]) -> str:
    """Return the SQL that reads entries as `StoredEntry` has them, and `stored_in`.

    The page is chosen first. Its columns are made afterwards, row by row as they are fetched: a plan that sorts must
    not unpack the data of every entry that it looks at.

    :param chosen: selects the rows, in order.
    :param long: the long fields to read: up to `READ_CHARS` of each, and its length.
    """
    # OFFSET keeps data from being written out twice. Each part repeats the order, or the last one would sort again.
    written = f"SELECT *, data::text AS written FROM ({chosen}) AS logs {in_order} OFFSET 0"  # noqa: S608 - see above
    columns = ["id::text", "trace_id::text", "component", "level"]
    for name, source, nothing in (("message", "message", "''"), ("data", "written", "NULL::text")):
        if name in long:
            columns += [
                f"left({source}, {READ_CHARS}) AS {name}",
                f"CASE WHEN octet_length({source}) > {READ_CHARS} THEN length({source}) END AS {name}_chars",
            ]
        else:
            columns.append(f"{nothing} AS {name}")
    columns += [
        f"to_char(created_at AT TIME ZONE 'UTC', {ISO_FORMAT}) AS created_at",
        f"to_char(ingested_at AT TIME ZONE 'UTC', {ISO_FORMAT}) AS ingested_at",
        "extract(epoch FROM clock_timestamp() - created_at)::float8 AS age",
        "stored_in::text::bigint AS stored_in",
    ]
    rows = written if "data" in long else chosen
    return f"SELECT {', '.join(columns)} FROM ({rows}) AS logs {in_order}"  # noqa: S608 - no value is in it


def _wanted(data: dict[str, Any]) -> dict[str, Any]:
    try:
        raw = dumps(data)
    except RecursionError:
        raise EntryRejected(f"data: nested more than {MAX_DEPTH} levels deep") from None
    check_bounds(raw, data)
    if (count := _count(data)) > MAX_WANTED:
        raise EntryRejected(f"data: at most {MAX_WANTED:,} values in a filter, not {count:,}")
    # The bytes may also be an escaped backslash and letters, as in a Windows path.
    if b"\\u0000" in raw or b"\\ud" in raw:
        _check_storable(data)
    return data


def _count(value: Any) -> int:
    """Count the values in JSON, with those around them."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(_count(each) for each in inner)


def _check_storable(value: object) -> None:
    match value:
        case str():
            storable("data", value)
        case dict():
            for key, each in value.items():
                storable("data", key)
                _check_storable(each)
        case list():
            for each in value:
                _check_storable(each)
