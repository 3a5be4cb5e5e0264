"""Reads entries in the order in which they were stored: schema/0008_log_order.sql."""

from __future__ import annotations

from typing import Any, Final

from dewey_logs.postgres.lane import Connection
from dewey_logs.search import COLUMNS, Place
from dewey_logs.store import Followed, StoredEntry

# Of the identity, the timeline changes when the database goes back in time: restored to a moment, or taken over by a
# standby that had not got everything. The control file names the new one only after a while, the WAL at once.
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

# The page is chosen first, and its columns made afterwards: data is unpacked for those only that are shown.
_FOLLOW: Final = f"""
SELECT stored_in::text, {COLUMNS} FROM (
    SELECT * FROM logs {_AFTER} ORDER BY stored_in, logs.created_at, logs.id LIMIT %(limit)s
) AS logs ORDER BY logs.stored_in, logs.created_at, logs.id
"""  # noqa: S608 - constants

_COUNT: Final = f"SELECT count(*) FROM (SELECT 1 FROM logs {_AFTER} LIMIT %(limit)s) AS counted"  # noqa: S608 - constants


def follow(connection: Connection, after: Place | None, limit: int) -> Followed:
    """Read what was stored after a place.

    The head is found first: what was stored below it is seen by a statement that begins later.
    """
    ((below, latest, identity),) = connection.execute(_HEAD.encode())
    head = Place(below)
    if after is None:
        return Followed((), head, identity, latest + 1)
    head = max(head, after)  # what two readers are told may go back a little; who has read on does not
    rows = connection.execute(_FOLLOW.encode(), _values(after, head, limit)).fetchall()
    found = []
    for stored_in, *columns in rows:
        entry = StoredEntry(*columns)
        found.append((Place(int(stored_in), entry.created_at, entry.id), entry))
    return Followed(found, head if len(found) < limit else found[-1][0], identity, latest + 1)


def count_after(connection: Connection, after: Place, at_most: int) -> int:
    """Count what was stored after a place, no further than to a number."""
    ((below, _, _),) = connection.execute(_HEAD.encode())
    ((count,),) = connection.execute(_COUNT.encode(), _values(after, Place(below), at_most))
    return int(count)


def _values(after: Place, head: Place, limit: int) -> dict[str, Any]:
    return {
        "stored_in": str(after.stored_in), "created_at": after.created_at, "id": after.id,
        "head": str(head.stored_in), "limit": limit,
    }  # fmt: skip
