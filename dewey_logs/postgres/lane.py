"""Calls to PostgreSQL in worker threads, each bounded, and its errors translated.

psycopg does not know trio, so it is used synchronously. A lane has connections and threads of its own, so that neither
a slow search nor maintenance holds up storing.

A thread cannot be cancelled, so each call is bounded four times: by PostgreSQL's own timeouts; by TCP's; by a deadline
here, which asks PostgreSQL to cancel the statement and then cuts the connection; and by the cancellation of the
caller, which does the same at once.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar

import outcome
import psycopg
import trio
from psycopg.pq import TransactionStatus

from godot.errors import StoreBusy, StoreFailed, StoreUnavailable

T = TypeVar("T")
Connection = psycopg.Connection[Any]

_CUT_AFTER_S: Final = 1.0
"""Between asking PostgreSQL to cancel a statement and cutting its connection."""

_CONTENT: Final = frozenset({"22", "23", "54"})
"""Classes of SQLSTATE that blame the values: data exception, integrity constraint, program limit."""

_AWAY: Final = frozenset({"08", "25", "28", "3D", "40", "53", "55", "57", "58"})
"""Classes that blame the world: connection, read-only transaction, login, no such database, deadlock,
resources, locks, operator, system."""

_BROKEN_OFF: Final = frozenset({"53200", "53400", "57014"})
"""Out of memory, over a configured limit, cancelled (by a timeout or on request): PostgreSQL is up, and broke off this
one call. Internal errors (class XX) are treated alike; too large a request for memory is one of them."""

_LOCKED: Final = "55P03"

_NOT_SET_UP: Final = frozenset({"42501", "42P01", "42883"})
"""No permission, no such table, no such function: the database is not migrated yet, or an operator made a slip."""


class PostgresLane:
    """Connections that do one kind of work, each used by one call at a time.

    :param timeout_s: for one statement, and (a little more) for one call.
    :param role: the role to work as; None: the one that logs in.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        lock_timeout_s: float,
        connections: int = 1,
        writes: bool = True,
        role: str | None = None,
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
        }
        if not writes:
            self._session["default_transaction_read_only"] = "on"
        if role is not None:
            self._session["role"] = role
        self._vacant = trio.Semaphore(connections)
        self._threads = trio.CapacityLimiter(connections)
        self._idle: list[Connection] = []

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Do some work in a thread, on a connection of its own.

        When this is cancelled or takes too long, PostgreSQL is asked to cancel the statement; if that does not help,
        the connection is cut. Either way the thread has ended when this returns.

        :raises StoreUnavailable: the database is away.
        """
        async with self._vacant:
            call = _Work(self._idle.pop() if self._idle else None)
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
        """Close the connections that no call is using."""
        while self._idle:
            self._idle.pop().close()

    def _attempt(self, call: _Work, work: Callable[[Connection], T]) -> T:
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
            prepare_threshold=None,  # a generic plan knows neither the day nor how rare a word is
            tcp_user_timeout=5_000,
        )

    def _set_up(self, connection: Connection) -> None:
        # By a statement, because connection poolers refuse `options`. The call knows the connection by now, so it can
        # cut it.
        try:
            connection.execute(
                "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS s (name, value)",
                (list(self._session), list(self._session.values())),
            )
        except psycopg.Error as exc:
            connection.close()
            if "role" in self._session and (exc.sqlstate or "")[:2] in ("22", "42"):
                # The error blames a value, but not one of an entry.
                raise StoreUnavailable(
                    f"PostgreSQL: DEWEY_DATABASE_ROLE={self._session['role']}: {first_line(exc)}"
                ) from exc
            raise

    def _take_back(self, call: _Work) -> None:
        if call.connection is None:
            return
        if call.spoilt or call.connection.info.transaction_status != TransactionStatus.IDLE:
            call.connection.close()
            # The others are probably spoilt too, and each would cost a call.
            self.close_idle()
        else:
            self._idle.append(call.connection)


class _Work:
    """One call of a lane, while a thread works on it.

    `spoilt`: no other call may use its connection. Connections that have become read-only are among these: after a
    failover another server may be behind the same URL.
    """

    def __init__(self, connection: Connection | None) -> None:
        self.connection = connection
        self.ended = trio.Event()
        self.spoilt = False

    async def watch(self, timeout_s: float) -> None:
        """End the thread's work after so many seconds, or when this is cancelled before the thread has ended."""
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
        said = f"PostgreSQL: {first_line(exc)}"
        if exc.sqlstate == _LOCKED:
            raise StoreBusy(said) from exc
        if _is_broken_off(exc):
            raise StoreFailed(said) from exc
        if _blames_the_world(exc):
            raise StoreUnavailable(said) from exc
        raise


@contextmanager
def at_work() -> Iterator[None]:
    """Mark the part of a transaction in which the work itself may have broken the connection.

    The connection was good when the transaction began. Since then this call was cut for taking too long, or its server
    process died. A single huge value can cause that: the kernel ends the process when memory runs out.

    :raises StoreFailed: the connection broke.
    """
    try:
        yield
    except psycopg.OperationalError as exc:
        if exc.sqlstate is None:
            raise StoreFailed(f"PostgreSQL: {first_line(exc)}") from exc
        raise


def blames_content(exc: psycopg.Error) -> bool:
    """Whether the values are at fault, and not the world."""
    return exc.sqlstate is not None and exc.sqlstate[:2] in _CONTENT


def _is_broken_off(exc: psycopg.Error) -> bool:
    return exc.sqlstate is not None and (exc.sqlstate in _BROKEN_OFF or exc.sqlstate.startswith("XX"))


def _blames_the_world(exc: psycopg.Error) -> bool:
    if exc.sqlstate is None:
        return isinstance(exc, psycopg.OperationalError | psycopg.InterfaceError)
    return exc.sqlstate[:2] in _AWAY or exc.sqlstate in _NOT_SET_UP


def first_line(exc: psycopg.Error) -> str:
    """Return the first line of what PostgreSQL says."""
    return (exc.diag.message_primary or str(exc)).partition("\n")[0]
