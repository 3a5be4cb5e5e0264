"""Reads entries in the order in which they were stored: schema/0008_log_order.sql."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any, Final, cast

import psycopg
from psycopg.rows import dict_row

from dewey_logs.places import Place
from dewey_logs.postgres.lane import Connection, at_work
from dewey_logs.query import LONG, read_back
from dewey_logs.store.protocol import ENOUGH_BYTES, Followed, StoredEntry

# The timeline, a part of the identity, changes when the database goes back in time: when it is restored to a moment, or
# taken over by a standby that lacked something. The WAL names the new timeline at once, the control file only later.
_HEAD: Final = """
SELECT below, latest, concat_ws(
    '.', system_identifier,
    CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
         ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer END,
    (SELECT oid FROM pg_database WHERE datname = current_database())
) FROM log_head(), pg_control_system()
"""

_AFTER: Final = """
WHERE stored_in >= %(stored_in)s::text::xid8 AND stored_in < %(head)s::text::xid8
    AND (stored_in > %(stored_in)s::text::xid8 OR %(created_at)s = ''
         OR (created_at, id) > (nullif(%(created_at)s, '')::timestamptz, nullif(%(id)s, '')::uuid))
"""

_IN_ORDER: Final = "ORDER BY logs.stored_in, logs.created_at, logs.id"
_CHOSEN: Final = f"SELECT * FROM logs {_AFTER} {_IN_ORDER} LIMIT %(limit)s"  # noqa: S608 - constants

_COUNT: Final = f"SELECT count(*) FROM (SELECT 1 FROM logs {_AFTER} LIMIT %(limit)s) AS counted"  # noqa: S608 - constants


def follow(
    connection: Connection,
    after: Place | None,
    limit: int,
    long: frozenset[str] = LONG,
    enough_bytes: int = ENOUGH_BYTES,
) -> Followed:
    """Read what was stored after a place.

    The head is found first: a statement that begins later sees everything that was stored below it.

    :raises StoreFailed: not even the first entry could be read in time. When that happens to a later one, the page ends
        before it.
    """
    ((below, latest, identity),) = connection.execute(_HEAD.encode())
    head = Place(below)
    if after is None:
        return Followed((), head, identity, latest + 1)
    head = max(head, after)  # two reads of the head may go back a little; a reader never does
    found: list[tuple[Place, StoredEntry]] = []
    more = False
    statement = read_back(_CHOSEN, _IN_ORDER, long).encode()
    with at_work(), connection.cursor(row_factory=dict_row) as cursor:
        stream = cast("Generator[dict[str, Any]]", cursor.stream(statement, _values(after, head, limit)))
        try:
            with closing(stream) as rows:
                size = 0
                for row in rows:
                    if more := size > enough_bytes:
                        break
                    stored_in = row.pop("stored_in")
                    entry = StoredEntry(**row)
                    found.append((Place(stored_in, entry.created_at, entry.id), entry))
                    size += entry.size_bytes
        except psycopg.OperationalError:
            if not found:
                raise
            more = True
    more = more or len(found) == limit
    return Followed(found, found[-1][0] if more else head, identity, latest + 1, more)


def count_after(connection: Connection, after: Place, at_most: int) -> int:
    """Count what was stored after a place, up to a maximum."""
    ((below, _, _),) = connection.execute(_HEAD.encode())
    ((count,),) = connection.execute(_COUNT.encode(), _values(after, Place(below), at_most))
    return int(count)


def _values(after: Place, head: Place, limit: int) -> dict[str, Any]:
    return {
        "stored_in": str(after.stored_in), "created_at": after.created_at, "id": after.id,
        "head": str(head.stored_in), "limit": limit,
    }  # fmt: skip
