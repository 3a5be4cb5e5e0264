"""Stores a batch: all of it or nothing, and no id twice (DEW-004, MCP-003)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs
import psycopg

from dewey_logs.postgres.lane import Connection, at_work, blames_content, first_line
from godot.entries.entry import Entry, is_uuid7
from godot.errors import BatchRefused

_INSERT: Final = """
INSERT INTO logs (id, trace_id, component, level, message, data, created_at)
SELECT id, trace_id, component, level, message, data, created_at
FROM json_to_recordset(%s::json) AS entry (
    id uuid, trace_id uuid, component text, level text, message text, data jsonb, created_at timestamptz
)
ON CONFLICT DO NOTHING
"""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_IDS_LOCK: Final = 0x60D07_0002
"""Key of an advisory lock, beside those of `dewey_logs.postgres.migrate` and `upkeep`."""


@attrs.frozen
class _Row:
    """An entry on its way in; `index` is its place in the batch as it came.

    :param is_of_its_time: its id names the millisecond of its `created_at`, as one does that Godot made.
    """

    index: int
    id: str
    raw: bytes
    is_of_its_time: bool


def rows(entries: Sequence[Entry], encoded: Sequence[bytes]) -> list[_Row]:
    """Make of entries, and of the JSON of each, what `store_batch` takes."""
    return [
        _Row(index, entry.id, raw, _is_of_its_time(entry))
        for index, (entry, raw) in enumerate(zip(entries, encoded, strict=True))
    ]


def _is_of_its_time(entry: Entry) -> bool:
    if not is_uuid7(entry.id):
        return False
    happened = datetime.fromisoformat(entry.created_at) - _EPOCH
    return happened // timedelta(milliseconds=1) == int(entry.id[:8] + entry.id[9:13], 16)


def store_batch(connection: Connection, batch: Sequence[_Row]) -> int:
    """Insert a batch in one transaction; return how many entries were new."""
    try:
        with connection.transaction(), at_work():
            return _insert(connection, _without_known_ids(connection, batch))
    except psycopg.Error as exc:
        if not blames_content(exc):
            raise
    # Rare, and worth being exact about: who is at fault is found by storing each on its own. When nobody
    # is, the batch is stored in this way.
    with connection.transaction(), at_work():
        stored = 0
        faults = []
        for row in _without_known_ids(connection, batch):
            try:
                with connection.transaction():
                    stored += _insert(connection, [row])
            except psycopg.Error as exc:
                if not blames_content(exc):
                    raise
                faults.append((row.index, f"PostgreSQL refuses it: {first_line(exc)}"))
        if faults:
            raise BatchRefused(faults)
        return stored


def _insert(connection: Connection, batch: Sequence[_Row]) -> int:
    if not batch:
        # A probe that writes nothing would pass where the disk below the write-ahead log hangs, and every entry that
        # fails there would look guilty. This writes, and its commit waits for the disk as every other one does.
        connection.execute("SELECT pg_logical_emit_message(true, 'dewey', 'probe')")
    joined = b"[" + b",".join(row.raw for row in batch) + b"]"
    return connection.execute(_INSERT, (joined.decode(),)).rowcount


def _without_known_ids(connection: Connection, batch: Sequence[_Row]) -> Sequence[_Row]:
    """Leave out what would be a second row with its id although its `created_at` differs.

    The key is (id, created_at), so PostgreSQL itself would take it. To look first is safe only when nobody stores
    the same id at the same time. Where every id names the time of its entry, nobody does: the same id would come
    with the same time. Batches with other ids go one at a time, and with none of these beside them.
    """
    if not batch:
        return batch
    lock = "pg_advisory_xact_lock_shared" if all(row.is_of_its_time for row in batch) else "pg_advisory_xact_lock"
    connection.execute(f"SELECT {lock}(%s)".encode(), (_IDS_LOCK,))
    # Who stores may not be allowed to read: schema/0006_roles.sql. 1,000 ids take 2 ms, 5 % of the insert.
    found = connection.execute(
        "SELECT known::text FROM log_known_ids(%s::uuid[]) AS known", ([row.id for row in batch],)
    )
    known = {entry_id for (entry_id,) in found}
    new = []
    for row in batch:
        if row.id not in known:
            new.append(row)
            known.add(row.id)
    return new
