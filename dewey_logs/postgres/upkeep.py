"""Keeps the schema and the partitions up to date (DEW-005)."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Final, LiteralString

from psycopg import sql

from dewey_logs.postgres.lane import Connection
from dewey_logs.postgres.migrate import migrate
from dewey_logs.store.partitions import Partition, on_demand, standing
from dewey_logs.store.protocol import Maintained

PARTITIONS_LOCK: Final = 0x60D07_0003
"""Key of an advisory lock, beside those of `dewey_logs.postgres.migrate` and `storing`."""


TAKE_ALONE_S: Final = 2.0
"""For all the tables together. Storing waits meanwhile, and gives up after 5 s. It is longer than deadlock_timeout
(1 s), after which PostgreSQL takes a lock away from autovacuum."""


def take_alone(connection: Connection, *tables: str) -> None:
    """Lock tables, without their partitions, against all other transactions until this one ends.

    :raises LockNotAvailable: the locks were not free in time. PostgreSQL itself would wait that long for each of them,
        and hold the others meanwhile.
    """
    deadline = time.monotonic() + TAKE_ALONE_S
    ((usual,),) = connection.execute("SELECT current_setting('lock_timeout')")
    for table in tables:
        left_ms = max(1, round((deadline - time.monotonic()) * 1000))
        connection.execute("SELECT set_config('lock_timeout', %s, true)", (str(left_ms),))
        connection.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(table)))
    connection.execute("SELECT set_config('lock_timeout', %s, true)", (usual,))


def maintain(connection: Connection, ahead_days: int, retention_days: int) -> Maintained:
    """Migrate, and make missing partitions."""
    migrate(connection)
    ((today,),) = connection.execute("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")
    wanted = {
        *standing(today, ahead_days=ahead_days),
        *_days_waiting(connection, *on_demand(today, ahead_days=ahead_days, retention_days=retention_days)),
    }
    attached = {
        name
        for (name,) in connection.execute(
            "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
            "WHERE inhparent = 'logs'::regclass"
        )
    }
    created = []
    moved = 0
    for new in sorted(wanted):
        if new.name not in attached and (count := _create(connection, new)) is not None:
            created.append(new.name)
            moved += count
    return Maintained(created, moved)


def _days_waiting(connection: Connection, start: datetime, end: datetime) -> list[Partition]:
    """Return the missing partitions of entries that wait in the default partition."""
    found = connection.execute(
        "SELECT DISTINCT (created_at AT TIME ZONE 'UTC')::date FROM logs_default "
        "WHERE created_at >= %s AND created_at < %s",
        (start, end),
    )
    return [Partition(day) for (day,) in found]


def _create(connection: Connection, new: Partition) -> int | None:
    """Make a partition and move its entries into it, in one transaction; return how many moved.

    :return: None when another Dewey was faster.
    """
    names = {
        "new": sql.Identifier(new.name),
        "bounds": sql.Identifier(f"{new.name}_bounds"),
        "start": sql.Literal(new.start),
        "end": sql.Literal(new.end),
    }

    def execute(statement: LiteralString) -> int:
        return connection.execute(sql.SQL(statement).format(**names)).rowcount

    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (PARTITIONS_LOCK,))
        ((there,),) = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (new.name,))
        if there:
            return None
        # PARTITION OF would refuse the day while the default partition holds entries of it. LIKE makes the indexes
        # that ATTACH looks for; the constraint saves it a scan.
        execute("CREATE TABLE {new} (LIKE logs INCLUDING ALL)")
        execute("ALTER TABLE {new} ADD CONSTRAINT {bounds} CHECK (created_at >= {start} AND created_at < {end})")
        # From here to the commit, all others wait at `logs`, where they then learn of the new partition. A
        # statement that waited further down, at the default partition, would have decided already where to
        # go: a writer would be told that its entry does not belong there any more, a reader would miss the
        # entries that moved. The holder of these locks waits for nothing else, so there is no deadlock.
        take_alone(connection, "logs", "logs_default")
        moved = execute(
            "WITH moving AS (DELETE FROM logs_default WHERE created_at >= {start} AND created_at < {end} "
            "RETURNING *) INSERT INTO {new} SELECT * FROM moving"
        )
        execute("ALTER TABLE logs ATTACH PARTITION {new} FOR VALUES FROM ({start}) TO ({end})")
        execute("ALTER TABLE {new} DROP CONSTRAINT {bounds}")
    return moved
