"""What the benchmarks share: an entry, the limit for what is stored, and how a figure is shown."""

from __future__ import annotations

import sys
import time
from typing import Final

import psycopg

from godot.entries.entry import admit_json
from godot.entries.wire import encode_entry

ENTRY: Final = {
    "component": "relay",
    "level": "TRACE",
    "message": "tools/call answered in 12 ms",
    "trace_id": "0af76519-16cd-43dd-8448-eb211c80319c",
    "data": {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "search", "arguments": {"q": "x"}}},
}
BATCH: Final = 1_000


def inserts_per_s(database: str, seconds: float) -> float:
    """Insert batches into the same table with psycopg alone: the limit for what is stored."""
    statement = (
        "INSERT INTO logs (id, trace_id, component, level, message, data, created_at) "
        "SELECT * FROM json_to_recordset(%s::json) AS entry (id uuid, trace_id uuid, component text, level text, "
        "message text, data jsonb, created_at timestamptz) ON CONFLICT DO NOTHING"
    )
    done = 0
    with psycopg.connect(database, autocommit=True) as connection:
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            rows = b",".join(encode_entry(admit_json(ENTRY, []), []) for _ in range(BATCH))
            connection.execute(statement, (f"[{rows.decode()}]",))
            done += BATCH
        return done / (time.perf_counter() - began)


def say(what: str, figure: str, ratio: str = "") -> None:
    sys.stdout.write(f"{what:<52}{figure:>22}   {ratio}\n")
    sys.stdout.flush()
