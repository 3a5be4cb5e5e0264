"""Deletes entries (DEW-009). Storing and reading do not wait long for it, and no pinned trace goes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, datetime
from typing import Any, Final

import psycopg
from psycopg import sql

from dewey_logs.clearing import Clearing, Pin
from dewey_logs.postgres.lane import Connection
from dewey_logs.postgres.upkeep import PARTITIONS_LOCK, take_alone
from dewey_logs.query import ISO_FORMAT
from dewey_logs.store.partitions import Partition

LOCK_ATTEMPTS: Final = 10
"""Each takes up to `upkeep.TAKE_ALONE_S`: together they are longer than a query may take."""

CHUNK: Final = 5_000
"""Entries that one transaction deletes, in 0.1 s."""

_PINS: Final = f"""
SELECT trace_id::text, note, to_char(pinned_at AT TIME ZONE 'UTC', {ISO_FORMAT}),
    to_char(until AT TIME ZONE 'UTC', {ISO_FORMAT})
FROM log_pins WHERE until IS NULL OR until > clock_timestamp() ORDER BY log_pins.pinned_at, trace_id
"""  # noqa: S608 - a constant

_LOCK_PINS: Final = b"LOCK TABLE log_pins IN SHARE MODE"
"""Pinning waits for the end of the transaction, and pins what is left. After that, nothing pinned goes."""


def count_doomed(connection: Connection, clearing: Clearing) -> int:
    """Count what clearing would delete."""
    condition, values = clearing.to_sql()
    ((count,),) = connection.execute(f"SELECT count(*) FROM logs WHERE {condition}".encode(), values)  # noqa: S608 - no value
    return int(count)


def count_doomed_days(connection: Connection, clearing: Clearing) -> int:
    """Count the UTC days from which clearing would delete something."""
    condition, values = clearing.to_sql()
    ((count,),) = connection.execute(
        f"SELECT count(DISTINCT (created_at AT TIME ZONE 'UTC')::date) FROM logs WHERE {condition}".encode(),  # noqa: S608 - no value
        values,
    )
    return int(count)


def clear(connection: Connection, clearing: Clearing, by: str, said_by: str | None) -> int:
    """Delete; return how many entries went.

    The note in `log_clears` is written first, and updated in the transactions that delete: it is right whatever dies
    meanwhile.
    """
    ((audit,),) = connection.execute(
        "INSERT INTO log_clears (cleared_by, said_by, filters) VALUES (%s, %s, %s) RETURNING id",
        (by, said_by, json.dumps(clearing.filters())),
    )
    deleted = 0
    if clearing.takes_whole_days:
        for partition in _whole_days(connection, str(clearing.before)):
            deleted += _drop_patiently(connection, partition, clearing, audit)
    return deleted + sum(_delete_in_chunks(connection, clearing, audit))


def _whole_days(connection: Connection, before: str) -> list[Partition]:
    """Return the partitions that end before a moment, oldest first."""
    found = connection.execute(
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
        "WHERE inhparent = 'logs'::regclass AND relname ~ '^logs_[0-9]{4}_[0-9]{2}_[0-9]{2}$' ORDER BY relname"
    )
    days = [Partition(date(*map(int, name.split("_")[1:]))) for (name,) in found]
    end = datetime.fromisoformat(before)
    return [each for each in days if each.end <= end]


def _drop_patiently(connection: Connection, partition: Partition, clearing: Clearing, audit: int) -> int:
    """Drop a partition. When readers keep it busy, try again, so that nobody waits for us while we wait for them."""
    for _ in range(LOCK_ATTEMPTS - 1):
        with suppress(psycopg.errors.LockNotAvailable):
            return _drop(connection, partition, clearing, audit)
    return _drop(connection, partition, clearing, audit)


def _drop(connection: Connection, partition: Partition, clearing: Clearing, audit: int) -> int:
    """Drop a partition in one transaction. Entries that stay move to the default partition."""
    names = {"day": sql.Identifier(partition.name), "logs": sql.SQL("logs")}
    condition, values = clearing.to_sql()
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (PARTITIONS_LOCK,))
        ((there,),) = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (partition.name,))
        if not there:
            return 0  # another Dewey was faster
        connection.execute(_LOCK_PINS)
        # As in upkeep: all others wait at `logs`, where they then learn that the partition is gone.
        take_alone(connection, "logs", "logs_default", partition.name)
        connection.execute(
            sql.SQL(
                "CREATE TEMPORARY TABLE kept ON COMMIT DROP AS SELECT * FROM {day} AS logs WHERE NOT ({condition})"
            ).format(
                **names,
                condition=sql.SQL(condition),
            ),
            values,
        )
        ((before,),) = connection.execute(
            "SELECT coalesce(sum(entries), 0)::bigint FROM log_counts WHERE day = %s", (partition.day,)
        )
        connection.execute(sql.SQL("ALTER TABLE logs DETACH PARTITION {day}").format(**names))
        connection.execute(sql.SQL("DROP TABLE {day}").format(**names))
        connection.execute("DELETE FROM log_counts WHERE day = %s", (partition.day,))
        kept = connection.execute("INSERT INTO logs SELECT * FROM kept").rowcount  # its trigger counts them
        deleted = int(before) - kept
        _note(connection, audit, deleted)
    return deleted


def _delete_in_chunks(connection: Connection, clearing: Clearing, audit: int) -> Iterator[int]:
    """Delete chunk after chunk, oldest first; yield the size of each."""
    condition, values = clearing.to_sql()
    behind: tuple[str, str] | None = None
    while True:
        place = ""
        if behind is not None:
            # The row comparison finds the place in the index; the second one skips whole partitions.
            place = (
                "AND (logs.created_at, logs.id) > (%(time)s::timestamptz, %(id)s::uuid) "
                "AND logs.created_at >= %(time)s::timestamptz"
            )
            values |= {"time": behind[0], "id": behind[1]}
        with connection.transaction():
            connection.execute(_LOCK_PINS)
            rows: list[Any] = connection.execute(
                f"WITH doomed AS (SELECT id, created_at FROM logs WHERE {condition} {place} "  # noqa: S608 - no value
                f"ORDER BY created_at, id LIMIT {CHUNK}), gone AS (DELETE FROM logs USING doomed "
                "WHERE logs.id = doomed.id AND logs.created_at = doomed.created_at RETURNING 1) "
                "SELECT created_at::text, id::text, (SELECT count(*) FROM gone), (SELECT count(*) FROM doomed) "
                "FROM doomed ORDER BY doomed.created_at DESC, doomed.id DESC LIMIT 1".encode(),
                values,
            ).fetchall()
            if not rows:
                return
            ((time, entry_id, deleted, seen),) = rows
            _note(connection, audit, deleted)
        behind = time, entry_id
        yield deleted
        if seen < CHUNK:
            return


def _note(connection: Connection, audit: int, deleted: int) -> None:
    connection.execute("UPDATE log_clears SET deleted = deleted + %s WHERE id = %s", (deleted, audit))


def read_pins(connection: Connection) -> list[Pin]:
    """Return the pins that hold now, oldest first."""
    return [Pin(*row) for row in connection.execute(_PINS.encode())]


def pin(connection: Connection, trace_id: str, note: str, until: str | None, by: str, said_by: str | None) -> None:
    """Pin a trace, or change the note and the end of its pin."""
    connection.execute(
        "INSERT INTO log_pins (trace_id, note, until, pinned_by, said_by) VALUES (%s, %s, %s, %s, %s) "
        "ON CONFLICT (trace_id) DO UPDATE SET note = EXCLUDED.note, until = EXCLUDED.until, "
        "pinned_by = EXCLUDED.pinned_by, said_by = EXCLUDED.said_by",
        (trace_id, note, until, by, said_by),
    )


def unpin(connection: Connection, trace_id: str) -> None:
    """Let a trace go."""
    connection.execute("DELETE FROM log_pins WHERE trace_id = %s", (trace_id,))
