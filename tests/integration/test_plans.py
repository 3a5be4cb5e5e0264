"""Plans at 200,000 rows in 14 days: partitions are pruned, and the index that was meant is used (PERF-005)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import psycopg
import pytest
import trio

from dewey_logs.postgres import PostgresStore
from dewey_logs.postgres.store import attempts
from dewey_logs.query import Query
from tests.postgres_servers import VERSIONS, Database, Servers

DAYS: Final = 14
TODAY: Final = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
NOW: Final = TODAY + timedelta(hours=12)

FILL: Final = """
INSERT INTO logs (id, trace_id, component, level, message, data, created_at)
SELECT md5(n::text)::uuid, md5((n / 10)::text)::uuid, 'component-' || n % 40,
       (ARRAY['ERROR', 'WARN', 'INFO', 'INFO', 'INFO', 'DEBUG', 'DEBUG', 'DEBUG', 'DEBUG', 'DEBUG'])[1 + n * 7 % 10],
       'call ' || n || ' of tool ' || n % 500, jsonb_build_object('method', 'tools/call', 'tool', n % 500),
       timestamptz '{start:%Y-%m-%d}Z' + n * interval '{days} days' / 200000
FROM generate_series(0, 199999) AS n
"""

ONE_A_DAY: Final = """
INSERT INTO logs
SELECT gen_random_uuid(), NULL, 'x', 'INFO', '', NULL, day
FROM generate_series(timestamptz '{start:%Y-%m-%d}Z', '{end:%Y-%m-%d}Z', '1 day') AS day
"""

Explain: TypeAlias = Callable[..., str]


@pytest.fixture(scope="module", params=VERSIONS)
def explain(request: pytest.FixtureRequest, postgres_servers: Servers) -> Iterator[Explain]:
    """The plan of a query, with PostgreSQL's own settings."""
    with Database(postgres_servers[request.param]) as database:

        async def make_partitions() -> None:
            with trio.fail_after(60), closing(PostgresStore(database.url)) as store:
                database.execute(ONE_A_DAY.format(start=TODAY - timedelta(days=DAYS - 1), end=TODAY))
                await store.maintain(ahead_days=1, retention_days=DAYS)

        trio.run(make_partitions)
        database.execute(FILL.format(start=TODAY - timedelta(days=DAYS - 1), days=DAYS))
        database.execute("VACUUM ANALYZE logs")
        with closing(psycopg.connect(database.url)) as connection:

            def plan(settings: Mapping[str, str] = MappingProxyType({}), /, **asked: Any) -> str:
                statement, values = Query.parse(**asked, now=lambda: NOW).to_sql()
                with connection.transaction():
                    for name, value in settings.items():
                        connection.execute("SELECT set_config(%s, %s, true)", (name, value))
                    return "\n".join(line for (line,) in connection.execute(f"EXPLAIN {statement}".encode(), values))

            yield plan


def days_read(plan: str) -> set[str]:
    """Return the partitions that a plan reads, by their day."""
    return set(re.findall(r"(?:on|using) logs_(\d{4}_\d\d_\d\d)", plan))


def day(offset: int) -> str:
    """Return the day so many days from today, as partitions have it."""
    return f"{TODAY + timedelta(days=offset):%Y_%m_%d}"


@pytest.mark.parametrize(
    ("asked", "days"),
    [
        ({"start_time": "-1h"}, {0, 1}),
        ({"start_time": "-1h", "end_time": "now"}, {0}),
        ({"start_time": "-2d", "end_time": "-1d"}, {-2, -1}),
        ({"start_time": "-2d", "end_time": "-1d", "component": "component-7", "level": "WARN"}, {-2, -1}),
        ({"start_time": "-3h", "end_time": "now", "contains": "tool 77"}, {0}),
        ({"start_time": "-3h", "end_time": "now", "component": ["component-1*", "x"]}, {0}),
        ({"start_time": "-1d", "end_time": "now", "data": {"tool": 7}}, {-1, 0}),
        ({"start_time": "-1d", "end_time": "now", "search": "77"}, {-1, 0}),
    ],
)
def test_only_the_days_in_question_are_read(explain: Explain, asked: dict[str, Any], days: set[int]) -> None:
    """PERF-005, DEW-005, DEW-006."""
    plan = explain(**asked)
    assert days_read(plan) == {day(offset) for offset in days}, plan
    assert f"Seq Scan on logs_{day(0)}" not in plan


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        ({}, "created_at_id_idx"),
        ({"start_time": "-1d"}, "created_at_id_idx"),
        ({"trace_id": "c4ca4238-a0b9-2382-0dcc-509a6f75849b"}, "trace_id_created_at_id_idx"),
        ({"component": "component-7"}, "component_created_at_id_idx"),
        ({"component": "component-7", "start_time": "-1h"}, "component_created_at_id_idx"),
        ({"component": ["missing", "gone"]}, "component_created_at_id_idx"),
        ({"level": "WARN"}, "created_at_id_component_idx"),
        ({"search": "12345"}, "log_search_vector_idx"),
        ({"data": {"tool": 7}}, "data_idx"),
        ({"data_path": "$ ? (@.tool == 7)"}, "data_idx"),
    ],
)
def test_the_index_that_was_meant_is_used(explain: Explain, asked: dict[str, Any], index: str) -> None:
    """PERF-005, DEW-006, DEW-007."""
    plan = explain(**asked)
    assert re.search(rf"logs_{day(0)}_{index}\b", plan), plan
    assert f"Seq Scan on logs_{day(0)}" not in plan


def test_the_second_attempt_looks_into_the_index_where_the_guess_was_to_walk(explain: Explain) -> None:
    """PERF-005."""
    for asked, index in (({"data": {"method": "tools/call"}}, "data_idx"), ({"search": "call"}, "search_vector_idx")):
        assert f"logs_{day(0)}_created_at_id_idx" in explain(**asked)
        assert re.search(rf"Bitmap Index Scan on logs_{day(0)}_\w*{index}\b", explain(attempts(10)[1][1], **asked))
