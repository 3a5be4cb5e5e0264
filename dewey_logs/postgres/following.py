"""Reads entries in the order in which they were stored: schema/0003_log_order.sql."""

from __future__ import annotations

from typing import Any, Final

from dewey_logs.postgres.lane import Connection
from dewey_logs.search import COLUMNS, Place
from dewey_logs.store import Followed, StoredEntry

_HEAD: Final = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text, system_identifier::text FROM pg_control_system()"

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

    The head is found first: what every transaction below it has written is seen by a statement that begins later.
    """
    ((horizon, identity),) = connection.execute(_HEAD.encode())
    head = Place(int(horizon))
    if after is None:
        return Followed((), head, identity)
    rows = connection.execute(_FOLLOW.encode(), _values(after, head, limit)).fetchall()
    found = []
    for stored_in, *columns in rows:
        entry = StoredEntry(*columns)
        found.append((Place(int(stored_in), entry.created_at, entry.id), entry))
    return Followed(found, head if len(found) < limit else found[-1][0], identity)


def count_after(connection: Connection, after: Place, at_most: int) -> int:
    """Count what was stored after a place, no further than to a number."""
    ((horizon, _),) = connection.execute(_HEAD.encode())
    ((count,),) = connection.execute(_COUNT.encode(), _values(after, Place(int(horizon)), at_most))
    return int(count)


def _values(after: Place, head: Place, limit: int) -> dict[str, Any]:
    return {
        "stored_in": str(after.stored_in), "created_at": after.created_at, "id": after.id,
        "head": str(head.stored_in), "limit": limit,
    }  # fmt: skip
