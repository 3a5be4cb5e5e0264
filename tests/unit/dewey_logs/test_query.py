"""Tests of queries: what is accepted, and the SQL that comes of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from dewey_logs.places import Cursor
from dewey_logs.query import Query
from godot.errors import EntryRejected

TRACE = "0193a1b2-7c3d-4e4f-8a9b-0123456789ab"


def test_a_query_without_filters_asks_for_the_newest_100() -> None:
    """DEW-006."""
    statement, values = Query.parse().to_sql()
    assert "WHERE" not in statement
    assert "ORDER BY logs.created_at DESC, logs.id DESC LIMIT 101)" in statement
    assert statement.endswith("AS logs ORDER BY logs.created_at DESC, logs.id DESC")
    assert values == {}


def test_all_filters_are_placeholders() -> None:
    """DEW-006."""
    query = Query.parse(
        trace_id=TRACE,
        component=["'; DROP TABLE logs; --", "gates*"],
        level="warn",
        start_time="2026-11-20",
        end_time="2026-11-20T10:00:00+01:00",
        search="%s %(x)s 'quote'",
        contains="'; DROP",
        data={"'; DROP": 1},
        data_path="$.DROP",
        limit=5,
        order="oldest",
        cursor=Cursor("2026-11-20T08:00:00.000001Z", TRACE).encode(),
    )
    statement, values = query.to_sql()
    assert set(re.findall(r"%\((\w+)\)s", statement)) == set(values)
    assert "DROP" not in statement
    assert values["start_time"] == "2026-11-20T00:00:00.000000Z"
    assert values["end_time"] == "2026-11-20T09:00:00.000000Z"
    assert values["after_time"] == "2026-11-20T08:00:00.000001Z"
    assert "level IN ('ERROR', 'WARN')" in statement
    assert "(logs.created_at, logs.id) > (" in statement
    assert "ORDER BY logs.created_at ASC, logs.id ASC LIMIT 6)" in statement
    assert statement.endswith("AS logs ORDER BY logs.created_at ASC, logs.id ASC")


def test_a_naive_time_is_utc() -> None:
    """DEW-006."""
    assert Query.parse(start_time="2026-11-20T08:30:00").start_time == "2026-11-20T08:30:00.000000Z"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("now", "2026-11-20T12:00:00.000000Z"),
        ("-30s", "2026-11-20T11:59:30.000000Z"),
        ("-15m", "2026-11-20T11:45:00.000000Z"),
        ("-2h", "2026-11-20T10:00:00.000000Z"),
        ("-7d", "2026-11-13T12:00:00.000000Z"),
        ("-4w", "2026-10-23T12:00:00.000000Z"),
    ],
)
def test_a_time_may_be_relative_to_now(said: str, meant: str) -> None:
    """DEW-006."""
    query = Query.parse(start_time=said, now=lambda: datetime(2026, 11, 20, 12, tzinfo=UTC))
    assert query.start_time == meant


def test_the_least_severe_level_is_no_filter() -> None:
    assert Query.parse(level="TRACE").to_sql() == Query.parse().to_sql()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"trace_id": "no uuid"}, "trace_id: must be a UUID, not 'no uuid'"),
        ({"level": "WARNING"}, "level: must be one of ERROR, WARN, INFO, DEBUG, TRACE, not 'WARNING'"),
        ({"start_time": "yesterday"}, "start_time: must be ISO 8601"),
        ({"end_time": "9999-12-31T23:59:59-10:00"}, "end_time: must be ISO 8601"),
        ({"start_time": "2026-11-21", "end_time": "2026-11-20"}, "end_time: must be later than start_time"),
        ({"start_time": "2026-11-20", "end_time": "2026-11-20"}, "end_time: must be later than start_time"),
        ({"search": " ?! "}, "search: must contain a word"),
        ({"limit": 1_001}, "limit: from 1 to 1,000, not 1001"),
        ({"limit": 0}, "limit: from 1 to 1,000, not 0"),
        ({"cursor": "abc"}, "cursor: must be the next_cursor of an earlier answer"),
        ({"cursor": "ünï"}, "cursor: must be the next_cursor of an earlier answer"),
        ({"component": "a\x00b"}, "component: must not contain NUL"),
        ({"component": []}, "component: from 1 to 100 names or patterns, not 0"),
        ({"component": ["x"] * 101}, "component: from 1 to 100 names or patterns, not 101"),
        ({"contains": ""}, "contains: must not be empty"),
        ({"contains": "\x00"}, "contains: must not contain NUL"),
        ({"data": {"a": "\x00"}}, "data: must not contain NUL"),
        ({"data_path": "\ud800"}, "data_path: must not contain NUL"),
        ({"start_time": "-15"}, "start_time: must be ISO 8601, such as 2026-11-20T08:30:00Z (UTC without an offset), "
                                "or relative, such as now, -30s, -15m"),
        ({"start_time": "-999999999w"}, "start_time: must be ISO 8601"),
        ({"start_time": "now", "end_time": "-1m"}, "end_time: must be later than start_time"),
    ],
)  # fmt: skip
def test_a_bad_value_names_its_argument_and_what_is_allowed(arguments: dict[str, Any], said: str) -> None:
    """DEW-006."""
    with pytest.raises(EntryRejected) as caught:
        Query.parse(**arguments)
    assert str(caught.value).startswith(said)
