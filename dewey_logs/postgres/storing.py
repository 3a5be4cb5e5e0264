"""Stores a batch: all of it or nothing, and no id twice (DEW-004, MCP-003)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

import psycopg

from dewey_logs.postgres.lane import Connection, at_work, blames_content, first_line
from dewey_logs.store.batch import Batch
from godot.entries.entry import is_uuid7
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


def store_batch(connection: Connection, batch: Batch) -> int:
    """Insert a batch in one transaction; return how many entries were new."""
    try:
        with connection.transaction(), at_work():
            new = _without_known_ids(connection, batch)
            return _insert(connection, batch.json_of(new))
    except psycopg.Error as exc:
        if not blames_content(exc):
            raise
    # This is rare, and worth being exact about: storing each entry on its own finds those at fault. When none is, the
    # batch is stored in this way.
    with connection.transaction(), at_work():
        stored = 0
        faults = []
        for index in _without_known_ids(connection, batch):
            try:
                with connection.transaction():
                    stored += _insert(connection, batch.json_of([index]))
            except psycopg.Error as exc:
                if not blames_content(exc):
                    raise
                faults.append((index, f"PostgreSQL refuses it: {first_line(exc)}"))
        if faults:
            raise BatchRefused(faults)
        return stored


def _insert(connection: Connection, entries: bytes) -> int:
    """Insert a JSON array of entries; return how many were new."""
    if entries == b"[]":
        # A probe that writes nothing would pass while the disk of the write-ahead log hangs, and every entry that fails
        # there would look guilty. This one writes, and its commit waits for the disk like every other. The insert of
        # nothing that follows tells of a database that is read-only.
        connection.execute("SELECT pg_logical_emit_message(true, 'dewey', 'probe')")
    return connection.execute(_INSERT, (entries.decode(),)).rowcount


def _without_known_ids(connection: Connection, batch: Batch) -> Sequence[int]:
    """Return the indices of a batch, without entries whose id is stored already, even under another `created_at`.

    The key is (id, created_at), so PostgreSQL itself would accept a second row. To look first is safe only when nobody
    stores the same id at the same time. Where every id names the time of its entry, that cannot matter: the same id has
    the same time. Batches with other ids go one at a time, and alone.
    """
    if not batch:
        return ()
    of_their_time = all(map(_is_of_its_time, batch.ids, batch.times))
    lock = "pg_advisory_xact_lock_shared" if of_their_time else "pg_advisory_xact_lock"
    connection.execute(f"SELECT {lock}(%s)".encode(), (_IDS_LOCK,))
    # The role that stores may not be allowed to read: schema/0006_roles.sql. 1,000 ids take 2 ms, 5 % of the insert.
    found = connection.execute("SELECT known::text FROM log_known_ids(%s::uuid[]) AS known", (batch.ids,))
    known = {entry_id for (entry_id,) in found}
    if not known and len(set(batch.ids)) == len(batch):
        return range(len(batch))
    new = []
    for index, entry_id in enumerate(batch.ids):
        if entry_id not in known:
            new.append(index)
            known.add(entry_id)
    return new


def _is_of_its_time(entry_id: str, created_at: str) -> bool:
    """Whether an id names the millisecond of its entry, as the ids that Godot makes do."""
    if not is_uuid7(entry_id):
        return False
    return int(entry_id[:8] + entry_id[9:13], 16) == _milliseconds(created_at[:19]) + int(created_at[20:23])


@lru_cache(maxsize=64)
def _milliseconds(second: str) -> int:
    """Return a second in UTC, written without its offset, in milliseconds since 1970."""
    return (datetime.fromisoformat(second).replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
