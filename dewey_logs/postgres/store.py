"""Keeps entries in PostgreSQL, and finds them."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import datetime
from functools import partial
from typing import Any, Final, cast

import attrs
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from dewey_logs.clearing import Clearing, Pin
from dewey_logs.places import Place
from dewey_logs.postgres.clearing import clear, count_doomed, count_doomed_days, pin, read_pins, unpin
from dewey_logs.postgres.counts import read_stats
from dewey_logs.postgres.following import count_after, follow
from dewey_logs.postgres.lane import Connection, PostgresLane, blames_content, first_line
from dewey_logs.postgres.levels import read_levels, set_level
from dewey_logs.postgres.migrate import migrate
from dewey_logs.postgres.storing import store_batch
from dewey_logs.postgres.upkeep import maintain
from dewey_logs.query import LONG, Query
from dewey_logs.store.batch import Batch
from dewey_logs.store.protocol import ENOUGH_BYTES, Followed, Maintained, Page, Stats, Stored, StoredEntry
from godot.entries.levels import LevelSetting
from godot.errors import ConfigError, EntryRejected, StoreFailed

READERS: Final = 4
"""Queries that run at once. Further ones wait their turn."""

FOLLOW_READERS: Final = 4
"""Followers have connections of their own, so that they do not wait behind slow queries. Those that are behind use two
of them (`dewey_logs.follow.CATCHING_UP`), so that the others do not wait for them."""

LOOKERS: Final = 2
"""Short reads (levels, pins, counts) do not wait behind slow queries, either: health and maintenance depend on them."""

WRITE_TIMEOUT_S: Final = 10.0
"""For one batch. 1,000 entries take 0.04 s."""

UPKEEP_TIMEOUT_S: Final = 300.0
"""For the partition of one day, however many entries move there."""

CLEAR_TIMEOUT_S: Final = 3_600.0
"""For a whole clearing: deleting ten million entries one by one takes a quarter of an hour."""

WRITE_LOCK_TIMEOUT_S: Final = 5.0
"""Longer than maintenance waits for its own locks: it must not make a batch fail."""

UPKEEP_LOCK_TIMEOUT_S: Final = 2.0
"""For each lock that keeps nobody waiting. Those that do share `upkeep.TAKE_ALONE_S`."""

_UNREAD: Final = '{"_godot":{"unread":"PostgreSQL could not write it out in time"}}'
"""Stands in place of data that could not be read."""

_FAULTS_OF_A_PATH: Final = frozenset({"0A", "22", "42", "54"})
"""Classes of SQLSTATE: not supported (a flag of a regular expression), data exception (a regular expression), syntax,
program limit."""


class PostgresStore:
    """Keeps entries in PostgreSQL. See `dewey_logs.store.protocol.LogStore` for what its methods promise.

    It connects when it is first used, and again after a connection broke: the call that finds it broken raises
    `StoreUnavailable`, and the next one connects. The maker of the store calls `close`.

    :param url: a DSN or URL of libpq.
    :param query_timeout_s: for one query; slower ones are refused.
    :param role: stores entries; `godot_log_writer` may do nothing else (CONST-001).
    :raises ConfigError: the URL is not one.
    """

    def __init__(self, url: str, *, query_timeout_s: float = 10.0, role: str | None = None) -> None:
        try:
            conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            # Its text would show the password.
            raise ConfigError(
                "DATABASE_URL: must be a PostgreSQL connection string, such as postgresql://user@host/winni"
            ) from None
        self._query_timeout_s = query_timeout_s
        self._writer = PostgresLane(url, timeout_s=WRITE_TIMEOUT_S, lock_timeout_s=WRITE_LOCK_TIMEOUT_S, role=role)
        self._readers = PostgresLane(
            url, connections=READERS, timeout_s=query_timeout_s, lock_timeout_s=query_timeout_s, writes=False
        )
        self._followers = PostgresLane(
            # Half of the time: what cannot be read in it is read without its data in the other half.
            url,
            connections=FOLLOW_READERS,
            timeout_s=query_timeout_s / 2,
            lock_timeout_s=query_timeout_s,
            writes=False,
        )
        self._lookers = PostgresLane(
            url, connections=LOOKERS, timeout_s=query_timeout_s, lock_timeout_s=query_timeout_s, writes=False
        )
        self._keeper = PostgresLane(url, timeout_s=UPKEEP_TIMEOUT_S, lock_timeout_s=UPKEEP_LOCK_TIMEOUT_S)
        self._cleaner = PostgresLane(url, timeout_s=CLEAR_TIMEOUT_S, lock_timeout_s=UPKEEP_LOCK_TIMEOUT_S)
        self._marker = PostgresLane(url, timeout_s=WRITE_TIMEOUT_S, lock_timeout_s=WRITE_LOCK_TIMEOUT_S)

    def close(self) -> None:
        """Close the connections. Every call must have ended."""
        for lane in (
            self._writer, self._readers, self._followers, self._lookers, self._keeper, self._cleaner, self._marker
        ):  # fmt: skip
            lane.close_idle()

    async def migrate(self) -> Sequence[str]:
        """Bring the schema up to date; return the files that were applied.

        :raises ConfigError: this program cannot use the database.
        """
        return await self._keeper.run(migrate)

    async def store(self, batch: Batch) -> Stored:
        """Keep a batch, in one transaction."""
        stored = await self._writer.run(partial(store_batch, batch=batch))
        return Stored(stored, len(batch) - stored)

    async def query(self, query: Query) -> Page:
        """Find entries."""
        return await self._readers.run(partial(_read, query=query, timeout_s=self._query_timeout_s))

    async def follow(
        self, after: Place | None, limit: int, long: frozenset[str] = LONG, enough_bytes: int = ENOUGH_BYTES
    ) -> Followed:
        """Read what was stored after a place."""
        page = partial(follow, after=after, limit=limit, long=long, enough_bytes=enough_bytes)
        try:
            return await self._followers.run(page)
        except StoreFailed:
            if after is None or "data" not in long:
                raise
        followed = await self._followers.run(partial(page, limit=1, long=long - {"data"}))
        marked = [(place, attrs.evolve(entry, data=_UNREAD, unread=True)) for place, entry in followed.entries]
        return attrs.evolve(followed, entries=marked)

    async def count_after(self, after: Place, at_most: int) -> int:
        """Count what was stored after a place."""
        return await self._followers.run(partial(count_after, after=after, at_most=at_most))

    async def stats(self) -> Stats:
        """Count the entries."""
        return await self._lookers.run(read_stats)

    async def clear(self, clearing: Clearing, *, by: str, said_by: str | None = None, dry_run: bool = False) -> int:
        """Delete entries."""
        if dry_run:
            return await self._cleaner.run(partial(count_doomed, clearing=clearing))
        return await self._cleaner.run(partial(clear, clearing=clearing, by=by, said_by=said_by))

    async def doomed_days(self, clearing: Clearing) -> int:
        """Count the days from which entries would go."""
        return await self._cleaner.run(partial(count_doomed_days, clearing=clearing))

    async def now(self) -> datetime:
        """Return the time by PostgreSQL's clock."""

        def read(connection: Connection) -> datetime:
            ((instant,),) = connection.execute("SELECT clock_timestamp()")
            return cast("datetime", instant)

        return await self._lookers.run(read)

    async def pins(self) -> Sequence[Pin]:
        """Return the pins."""
        return await self._lookers.run(read_pins)

    async def pin(self, trace_id: str, *, note: str, until: str | None, by: str, said_by: str | None = None) -> None:
        """Keep the entries of a trace."""
        await self._marker.run(partial(pin, trace_id=trace_id, note=note, until=until, by=by, said_by=said_by))

    async def unpin(self, trace_id: str) -> None:
        """Let a trace go."""
        await self._marker.run(partial(unpin, trace_id=trace_id))

    async def count_partitions(self) -> int:
        """Count the daily partitions."""

        def count(connection: Connection) -> int:
            ((found,),) = connection.execute(
                "SELECT count(*) FROM pg_inherits WHERE inhparent = 'logs'::regclass "
                "AND inhrelid <> 'logs_default'::regclass"
            )
            return int(found)

        return await self._lookers.run(count)

    async def levels(self) -> Mapping[str, LevelSetting]:
        """Return the levels that are set."""
        return await self._lookers.run(read_levels)

    async def set_level(
        self, component: str, level: str | None, *, until: str | None, by: str, said_by: str | None = None
    ) -> str | None:
        """Set the level of a component."""
        return await self._marker.run(
            partial(set_level, component=component, level=level, until=until, by=by, said_by=said_by)
        )

    async def maintain(self, *, ahead_days: int, retention_days: int, partitioned: bool = True) -> Maintained:
        """Bring schema and partitions up to date."""
        if not partitioned:
            await self.migrate()
            return Maintained((), 0)
        return await self._keeper.run(partial(maintain, ahead_days=ahead_days, retention_days=retention_days))


def _read(connection: Connection, query: Query, timeout_s: float) -> Page:
    is_condition = query.data_path is not None and _is_condition(connection, query.data_path)
    statement, values = query.to_sql(path_is_condition=is_condition)
    tries = attempts(timeout_s) if query.by_content else [(timeout_s, {})]
    try:
        while True:
            limit_s, settings = tries.pop(0)
            began = time.monotonic()
            entries: list[StoredEntry] = []
            try:
                more = _read_page(connection, statement, values, settings, entries)
            except psycopg.OperationalError as exc:
                late = isinstance(exc, psycopg.errors.QueryCanceled) and time.monotonic() - began >= limit_s
                if tries and late:  # otherwise the caller has cancelled it
                    continue
                if not entries:
                    raise
                more = True  # the next page begins with the entry that could not be read in time
            return Page(entries[: query.limit], more=more or len(entries) > query.limit)
    except psycopg.errors.QueryCanceled as exc:
        raise EntryRejected(
            f"the query took longer than {timeout_s:g} s and was stopped; "
            "narrow it with trace_id, component, start_time and end_time, or leave data out with fields"
        ) from exc
    except psycopg.Error as exc:
        # Class 0A: a path that compares a time without a zone with one that has a zone. It fails where it meets both.
        if not blames_content(exc) and (exc.sqlstate or "")[:2] != "0A":
            raise
        raise EntryRejected(f"PostgreSQL refuses the query: {first_line(exc)}") from exc


def attempts(timeout_s: float) -> list[tuple[float, dict[str, str]]]:
    """Return the attempts for a query for words or for data: seconds, and settings for them.

    PostgreSQL has to guess how rare the words or values are. It either walks from the newest entry until it has found
    enough, or looks into the index of words or data and sorts. Its sample of `data` misleads it: it takes some values
    that are in 500 of 10 million entries to be in 100,000. Then the walk takes 1.5 s, the index 0.01 s. So when its
    own plan does not answer at once, the index is tried. The index does not help with a path such as `$.ms > 5`, so
    its own plan gets the rest of the time.
    """
    by_index = {"enable_indexscan": "off", "enable_indexonlyscan": "off", "enable_seqscan": "off"}
    return [
        (share * timeout_s, settings | {"statement_timeout": f"{max(1, share * timeout_s * 1000):.0f}"})
        for share, settings in ((0.015, {}), (0.1, by_index), (0.885, {}))
    ]


def _read_page(
    connection: Connection,
    statement: str,
    values: Mapping[str, Any],
    settings: Mapping[str, str],
    entries: list[StoredEntry],
) -> bool:
    """Execute a query, with settings of its own if there are any; return whether the page ended before the result.

    :param entries: gets the entries that are found, one by one.
    """
    size = 0
    with ExitStack() as stack:
        if settings:
            stack.enter_context(connection.transaction())
            connection.execute(
                "SELECT set_config(name, value, true) FROM unnest(%s::text[], %s::text[]) AS s (name, value)",
                (list(settings), list(settings.values())),
            )
        cursor = stack.enter_context(connection.cursor(row_factory=dict_row))
        rows = stack.enter_context(closing(cast("Generator[dict[str, Any]]", cursor.stream(statement, values))))
        for row in rows:
            if size > ENOUGH_BYTES:
                return True
            del row["stored_in"]
            entries.append(entry := StoredEntry(**row))
            size += entry.size_bytes
    return False


def _is_condition(connection: Connection, path: str) -> bool:
    """Tell an SQL/JSON path that is true or false of a value from one that selects something in it.

    They need different operators, and each operator accepts the other kind, and then finds nothing or everything. On an
    empty object the first kind yields a single truth value ("unknown" is null); the second yields nothing, or something
    that is not a truth value.

    :raises EntryRejected: it is not a path.
    """
    try:
        ((found,),) = connection.execute("SELECT jsonb_path_query_array('{}', %s::jsonpath, '{}', true)::text", (path,))
    except psycopg.Error as exc:
        if (exc.sqlstate or "")[:2] not in _FAULTS_OF_A_PATH:
            raise
        raise EntryRejected(
            f"data_path: not an SQL/JSON path: {first_line(exc)}; "
            'one is $.params.name == "marco", another $.tools[*] ? (@.name like_regex "^git")'
        ) from exc
    return found in ("[true]", "[false]", "[null]")
