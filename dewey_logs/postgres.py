"""The log store on PostgreSQL.

psycopg knows no trio; it is used synchronously in worker threads. There are three lanes, each with
connections and threads of its own, so that neither a slow search nor the maintenance stands in the way
of what is to be stored: one writer, a few readers, one keeper of partitions and schema.

A thread cannot be cancelled, so each call is bounded four times over: PostgreSQL's own timeouts; TCP's;
a deadline here, which asks PostgreSQL to cancel the statement and then cuts the connection; and the
cancellation of the caller, which does the same at once.

psycopg's errors do not leave this module. By SQLSTATE they become `BatchRefused` (the content of a
batch), `EntryRejected` (a query that cannot be answered) or `StoreUnavailable` (the world); what is
none of these is a bug, and passes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any, Final, LiteralString, TypeVar, cast

import attrs
import outcome
import psycopg
import trio
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row

from dewey_logs.migrate import migrate
from dewey_logs.partitions import Partition, on_demand, standing
from dewey_logs.search import Query
from dewey_logs.store import Maintained, Page, Stored, StoredEntry, encode_batch
from godot.entries import Entry, is_uuid7
from godot.errors import BatchRefused, ConfigError, EntryRejected, StoreUnavailable

T = TypeVar("T")
Connection = psycopg.Connection[Any]

READERS: Final = 4
"""Queries that run at once; further ones wait their turn."""

WRITE_TIMEOUT_S: Final = 10.0
"""For one batch, of which 1,000 entries take 0.04 s."""

UPKEEP_TIMEOUT_S: Final = 300.0
"""For one day's partition, however many entries move there."""

WRITE_LOCK_TIMEOUT_S: Final = 5.0
"""Longer than maintenance waits for its own locks: it must not make a batch fail."""

UPKEEP_LOCK_TIMEOUT_S: Final = 2.0
"""Entries wait while maintenance does. Longer than deadlock_timeout (1 s), after which PostgreSQL takes a
lock away from autovacuum."""

_CUT_AFTER_S: Final = 1.0
"""Between asking PostgreSQL to cancel a statement and cutting its connection."""

_ENOUGH_BYTES: Final = 2 * 1024 * 1024
"""No answer holds more (dewey_logs.tools); a page of 1,000 messages of 2 MB each is not read to its end."""

_INSERT: Final = """
INSERT INTO logs (id, trace_id, component, level, message, data, created_at)
SELECT id, trace_id, component, level, message, data, created_at
FROM json_to_recordset(%s::json) AS entry (
    id uuid, trace_id uuid, component text, level text, message text, data jsonb, created_at timestamptz
)
ON CONFLICT DO NOTHING
"""

_FOREIGN_IDS_LOCK: Final = 0x60D07_0002
_PARTITIONS_LOCK: Final = 0x60D07_0003
"""Keys of advisory locks, beside that of `dewey_logs.migrate`."""

_CONTENT: Final = frozenset({"22", "23", "54"})
"""Classes of SQLSTATE that blame the values: data exception, integrity constraint, program limit."""

_AWAY: Final = frozenset({"08", "25", "28", "3D", "40", "53", "55", "57", "58", "XX"})
"""Classes that blame the world: connection, read-only transaction, login, no such database, deadlock,
resources, locks, operator (with timeouts), system, internal."""

_NOT_SET_UP: Final = frozenset({"42501", "42P01", "42883"})
"""No permission, no such table, no such function: not migrated yet, or an operator's slip."""


class PostgresStore:
    """Keeps entries in PostgreSQL. See `dewey_logs.store.LogStore` for what its methods promise.

    Connects when it is first used, and again after a connection broke: the call that finds it broken
    raises `StoreUnavailable`, the next one connects. Whoever made the store calls `close`.

    :param url: a DSN or URL of libpq.
    :param query_timeout_s: for one query; what takes longer is refused.
    :raises ConfigError: when the URL is none.
    """

    def __init__(self, url: str, *, query_timeout_s: float = 10.0) -> None:
        try:
            conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            # Its text would show the password.
            raise ConfigError(
                "DATABASE_URL: must be a PostgreSQL connection string, such as postgresql://user@host/winni"
            ) from None
        self._query_timeout_s = query_timeout_s
        self._writer = _Lane(url, timeout_s=WRITE_TIMEOUT_S, lock_timeout_s=WRITE_LOCK_TIMEOUT_S)
        self._readers = _Lane(
            url, connections=READERS, timeout_s=query_timeout_s, lock_timeout_s=query_timeout_s, writes=False
        )
        self._keeper = _Lane(url, timeout_s=UPKEEP_TIMEOUT_S, lock_timeout_s=UPKEEP_LOCK_TIMEOUT_S)

    def close(self) -> None:
        """Close the connections; every call has to have ended."""
        for lane in (self._writer, self._readers, self._keeper):
            lane.close_idle()

    async def migrate(self) -> Sequence[str]:
        """Bring the schema up to date; return the files that were applied.

        :raises ConfigError: when the database cannot be used with this program.
        """
        return await self._keeper.run(migrate)

    async def store(self, entries: Sequence[Entry]) -> Stored:
        """Keep a batch, in one transaction."""
        encoded, warnings = encode_batch(entries)
        batch = [_Row(index, each.id, raw) for index, (each, raw) in enumerate(zip(entries, encoded, strict=True))]
        stored = await self._writer.run(partial(_store, batch=batch))
        return Stored(stored, len(entries) - stored, warnings)

    async def query(self, query: Query) -> Page:
        """Find entries."""
        return await self._readers.run(partial(_read, query=query, timeout_s=self._query_timeout_s))

    async def maintain(self, *, ahead_days: int, retention_days: int, partitioned: bool = True) -> Maintained:
        """Bring schema and partitions up to date."""
        if not partitioned:
            await self.migrate()
            return Maintained((), 0)
        return await self._keeper.run(partial(_maintain, ahead_days=ahead_days, retention_days=retention_days))


@attrs.frozen
class _Row:
    """An entry on its way in; `index` is its place in the batch as it came."""

    index: int
    id: str
    raw: bytes


def _store(connection: Connection, batch: Sequence[_Row]) -> int:
    """Insert a batch in one transaction; return how many entries were new."""
    try:
        with connection.transaction():
            return _insert(connection, _without_known_ids(connection, batch))
    except psycopg.Error as exc:
        if not _blames_content(exc):
            raise
    # Rare, and worth being exact about: who is at fault is found by storing each on its own. When nobody
    # is, the batch is stored in this way.
    with connection.transaction():
        stored = 0
        faults = []
        for row in _without_known_ids(connection, batch):
            try:
                with connection.transaction():
                    stored += _insert(connection, [row])
            except psycopg.Error as exc:
                if not _blames_content(exc):
                    raise
                faults.append((row.index, f"PostgreSQL refuses it: {_first_line(exc)}"))
        if faults:
            raise BatchRefused(faults)
        return stored


def _insert(connection: Connection, batch: Sequence[_Row]) -> int:
    joined = b"[" + b",".join(row.raw for row in batch) + b"]"
    return connection.execute(_INSERT, (joined.decode(),)).rowcount


def _without_known_ids(connection: Connection, batch: Sequence[_Row]) -> Sequence[_Row]:
    """Leave out what would be a second row with its id although its `created_at` differs.

    The key is (id, created_at). A UUIDv7 comes with its own time or from Godot, together with a
    `created_at` that stays; any other id may be sent again with another one. To look first is safe only
    when nobody else does at the same time. Such batches are rare: one lock for all of them will do.
    """
    foreign = {row.id for row in batch if not is_uuid7(row.id)}
    if not foreign:
        return batch
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_FOREIGN_IDS_LOCK,))
    found = connection.execute("SELECT id::text FROM logs WHERE id = ANY(%s::uuid[])", (list(foreign),))
    known = {entry_id for (entry_id,) in found}
    new = []
    for row in batch:
        if row.id not in known:
            new.append(row)
        if row.id in foreign:
            known.add(row.id)
    return new


def _read(connection: Connection, query: Query, timeout_s: float) -> Page:
    statement, values = query.to_sql()
    entries: list[StoredEntry] = []
    size = 0
    try:
        with (
            connection.cursor(row_factory=class_row(StoredEntry)) as cursor,
            closing(cast("Generator[StoredEntry]", cursor.stream(statement, values))) as rows,
        ):
            for entry in rows:
                if size > _ENOUGH_BYTES:
                    return Page(entries[: query.limit], more=True)
                entries.append(entry)
                size += len(entry.message) + len(entry.data or "")
    except psycopg.errors.QueryCanceled as exc:
        raise EntryRejected(
            f"the query took longer than {timeout_s:g} s and was stopped; "
            "narrow it with trace_id, component, start_time and end_time"
        ) from exc
    except psycopg.Error as exc:
        if not _blames_content(exc):
            raise
        raise EntryRejected(f"PostgreSQL refuses the query: {_first_line(exc)}") from exc
    return Page(entries[: query.limit], more=len(entries) > query.limit)


def _maintain(connection: Connection, ahead_days: int, retention_days: int) -> Maintained:
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
    """Return the partitions that entries in the default partition wait for."""
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
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_PARTITIONS_LOCK,))
        ((there,),) = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (new.name,))
        if there:
            return None
        # PARTITION OF would refuse the day while entries of it lie in the default partition. The indexes
        # that LIKE makes are those that ATTACH looks for; the constraint spares it a scan.
        execute("CREATE TABLE {new} (LIKE logs INCLUDING ALL)")
        execute("ALTER TABLE {new} ADD CONSTRAINT {bounds} CHECK (created_at >= {start} AND created_at < {end})")
        # Everybody waits from here to the commit, at `logs`, where they learn of the new partition. Who
        # waited further down, at the default partition, has decided already where to go: a writer would
        # be told that its entry does not belong there any more, a reader would miss what moved. Whoever
        # holds these locks waits for nothing else, so there is no deadlock.
        execute("LOCK TABLE ONLY logs, logs_default IN ACCESS EXCLUSIVE MODE")
        moved = execute(
            "WITH moving AS (DELETE FROM logs_default WHERE created_at >= {start} AND created_at < {end} "
            "RETURNING *) INSERT INTO {new} SELECT * FROM moving"
        )
        execute("ALTER TABLE logs ATTACH PARTITION {new} FOR VALUES FROM ({start}) TO ({end})")
        execute("ALTER TABLE {new} DROP CONSTRAINT {bounds}")
    return moved


class _Lane:
    """Connections that do one kind of work, each used by one call at a time.

    :param timeout_s: for one statement, and (a little more) for one call.
    """

    def __init__(
        self, url: str, *, timeout_s: float, lock_timeout_s: float, connections: int = 1, writes: bool = True
    ) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._session = {
            "TimeZone": "UTC",
            "client_min_messages": "warning",
            "default_transaction_isolation": "read committed",
            "idle_in_transaction_session_timeout": f"{timeout_s * 1000:.0f}",
            "lock_timeout": f"{lock_timeout_s * 1000:.0f}",
            "statement_timeout": f"{timeout_s * 1000:.0f}",
            "synchronous_commit": "on",
        } | ({} if writes else {"default_transaction_read_only": "on"})
        self._vacant = trio.Semaphore(connections)
        self._threads = trio.CapacityLimiter(connections)
        self._idle: list[Connection] = []

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Do some work in a thread, on a connection of its own.

        When cancelled, or when it takes too long, PostgreSQL is asked to cancel the statement; if that
        does not help, the connection is cut. Either way the thread has ended when this returns.

        :raises StoreUnavailable: when the database is away.
        """
        async with self._vacant:
            call = _Call(self._idle.pop() if self._idle else None)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(call.watch, self._timeout_s + _CUT_AFTER_S)
                    try:
                        result = await trio.to_thread.run_sync(
                            outcome.capture, self._attempt, call, work, limiter=self._threads
                        )
                    finally:
                        call.ended.set()
                    nursery.cancel_scope.cancel()
            finally:
                self._take_back(call)
        return result.unwrap()

    def close_idle(self) -> None:
        """Close the connections that no call has now."""
        while self._idle:
            self._idle.pop().close()

    def _attempt(self, call: _Call, work: Callable[[Connection], T]) -> T:
        try:
            with _translated():
                if call.connection is None:
                    call.connection = self._connect()
                    self._set_up(call.connection)
                if call.spoilt:
                    raise StoreUnavailable("the call was cancelled while it was connecting")
                return work(call.connection)
        except StoreUnavailable:
            call.spoilt = True
            raise

    def _connect(self) -> Connection:
        return psycopg.connect(
            self._url,
            application_name="dewey",
            autocommit=True,
            client_encoding="utf8",
            connect_timeout=2,
            keepalives_count=3,
            keepalives_idle=2,
            keepalives_interval=1,
            prepare_threshold=None,  # a generic plan would know neither the day nor how rare a word is
            tcp_user_timeout=5_000,
        )

    def _set_up(self, connection: Connection) -> None:
        # A statement and not `options`, which connection poolers refuse; after the call knows of the
        # connection, so that it can be cut.
        try:
            connection.execute(
                "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS s (name, value)",
                (list(self._session), list(self._session.values())),
            )
        except psycopg.Error:
            connection.close()
            raise

    def _take_back(self, call: _Call) -> None:
        if call.connection is None:
            return
        if call.spoilt or call.connection.info.transaction_status != TransactionStatus.IDLE:
            call.connection.close()
            # What spoilt one has probably spoilt the others, and each would cost a call.
            self.close_idle()
        else:
            self._idle.append(call.connection)


class _Call:
    """One call of a lane, while a thread works at it.

    `spoilt`: nobody else is to use its connection. Also one that can only be read from, for after a
    failover another server may be behind the same URL.
    """

    def __init__(self, connection: Connection | None) -> None:
        self.connection = connection
        self.ended = trio.Event()
        self.spoilt = False

    async def watch(self, timeout_s: float) -> None:
        """End the thread's work after so many seconds, or when cancelled before the thread has ended."""
        try:
            await trio.sleep(timeout_s)
        finally:
            if not self.ended.is_set():
                with trio.CancelScope(shield=True):
                    await self._interrupt()

    async def _interrupt(self) -> None:
        self.spoilt = True
        if self.connection is None:
            return  # it is connecting, which takes 2 s at most
        with suppress(psycopg.Error):
            await trio.to_thread.run_sync(partial(self.connection.cancel_safe, timeout=2.0))
        with trio.move_on_after(_CUT_AFTER_S):
            await self.ended.wait()
            return
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.connection.fileno())) as own:
            own.shutdown(socket.SHUT_RDWR)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as exc:
        if _blames_the_world(exc):
            raise StoreUnavailable(f"PostgreSQL: {_first_line(exc)}") from exc
        raise


def _blames_content(exc: psycopg.Error) -> bool:
    return exc.sqlstate is not None and exc.sqlstate[:2] in _CONTENT


def _blames_the_world(exc: psycopg.Error) -> bool:
    if exc.sqlstate is None:
        return isinstance(exc, psycopg.OperationalError | psycopg.InterfaceError)
    return exc.sqlstate[:2] in _AWAY or exc.sqlstate in _NOT_SET_UP


def _first_line(exc: psycopg.Error) -> str:
    return (exc.diag.message_primary or str(exc)).partition("\n")[0]
