"""The log store on PostgreSQL.

    store.py    what is kept and found      lane.py     connections, threads, time limits, errors
    storing.py  one batch                   counts.py   how much there is
    upkeep.py   schema and partitions       clearing.py what goes and what stays
    following.py  in the order of storing   levels.py   levels

Law of this package: psycopg's errors do not leave it. By SQLSTATE they become `BatchRefused` (the content of a batch),
`EntryRejected` (a query that cannot be answered) or `StoreUnavailable` (the world). Any other error is a bug, and
passes.
"""

from __future__ import annotations

from dewey_logs.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
