"""Reads how much is stored (DEW-010). Triggers keep `log_counts` exact: schema/0002_log_counts.sql."""

from __future__ import annotations

from collections import Counter
from typing import Final

from dewey_logs.postgres.lane import Connection
from dewey_logs.query import ISO_FORMAT
from dewey_logs.store.protocol import Stats

_STATS: Final = f"""
SELECT
    (SELECT coalesce(json_agg(json_build_array(component, level, entries)), '[]') FROM (
        SELECT component, level, sum(entries) AS entries FROM log_counts GROUP BY 1, 2 HAVING sum(entries) > 0
    ) AS groups),
    (SELECT to_char(min(created_at) AT TIME ZONE 'UTC', {ISO_FORMAT}) FROM logs),
    (SELECT to_char(max(created_at) AT TIME ZONE 'UTC', {ISO_FORMAT}) FROM logs),
    (SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint
     FROM pg_inherits WHERE inhparent = 'logs'::regclass)
"""  # noqa: S608 - a constant


def read_stats(connection: Connection) -> Stats:
    """Read the statistics, all at one instant."""
    ((groups, oldest, newest, size_bytes),) = connection.execute(_STATS.encode())
    by_component: Counter[str] = Counter()
    by_level: Counter[str] = Counter()
    for component, level, entries in groups:
        by_component[component] += entries
        by_level[level] += entries
    return Stats(by_component, by_level, oldest, newest, size_bytes)
