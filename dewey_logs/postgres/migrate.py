"""Brings a database to the schema that this program was written for: schema/NNNN_what_it_does.sql.

It goes forward only. Each file is applied once, in a transaction of its own together with its row in `log_migrations`.
An advisory lock is held, so that two Deweys can start at once. All this runs in a worker thread of
`dewey_logs.postgres`, which translates its errors.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Final

import attrs
from psycopg import Connection, errors

from godot.errors import ConfigError

_LOCK: Final = 0x60D07_0001
"""Key of the advisory lock. It can be any number that nobody else uses."""

_IN_THE_WAY: Final = """
SELECT format('%%s %%I.%%I', CASE relkind WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' ELSE 'table' END,
              nspname, relname)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = current_schema() AND relname = ANY (%s) ORDER BY relname
"""

_OURS: Final = ("logs", "logs_default", "log_counts", "log_pins", "log_clears", "logger_config", "log_order")
"""Relations that the schema makes."""

_WAS_OURS: Final = """
SELECT array_agg((attname, atttypid::regtype)::text ORDER BY attnum)
    = ARRAY['(version,integer)', '(name,text)', '(applied_at,"timestamp with time zone")']
FROM pg_attribute WHERE attrelid = to_regclass('schema_migrations') AND attnum > 0 AND NOT attisdropped
"""


@attrs.frozen
class Migration:
    """One step of the schema."""

    version: int
    name: str
    sql: str


@cache
def migrations() -> tuple[Migration, ...]:
    """Read the steps that come with this program, first to last."""
    found = sorted(
        (each for each in (files("dewey_logs") / "schema").iterdir() if each.name.endswith(".sql")),
        key=lambda each: each.name,
    )
    return tuple(Migration(int(each.name[:4]), each.name, each.read_text("utf-8")) for each in found)


def migrate(connection: Connection[Any], steps: tuple[Migration, ...] | None = None) -> list[str]:
    """Apply the missing steps; return the names of their files.

    :param connection: in autocommit mode.
    :raises ConfigError: the schema of the database is newer than this program, or the database does not store text as
        UTF-8, or somebody else's tables have our names.
    """
    steps = migrations() if steps is None else steps
    applied = []
    with connection.transaction():
        _check_encoding(connection)
        # Take the lock first: CREATE TABLE IF NOT EXISTS fails when two do it at once.
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        _prepare(connection)
    for step in steps:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            version = _version(connection)
            if version > steps[-1].version:
                raise ConfigError(
                    f"the database has schema version {version}, this program knows {steps[-1].version}: "
                    "it was used by a newer Dewey; install that version, or point DATABASE_URL elsewhere"
                )
            if version < step.version:
                _apply(connection, step)
                connection.execute(
                    "INSERT INTO log_migrations (version, name) VALUES (%s, %s)", (step.version, step.name)
                )
                applied.append(step.name)
    return applied


def _prepare(connection: Connection[Any]) -> None:
    """Make the table of steps that were applied, or take over the one that earlier versions made."""
    ((there,),) = connection.execute("SELECT to_regclass('log_migrations') IS NOT NULL")
    if there:
        return
    ((was_ours,),) = connection.execute(_WAS_OURS)
    if was_ours:
        ((was_ours,),) = connection.execute(
            "SELECT EXISTS (SELECT FROM schema_migrations WHERE version = 1 AND name = '0001_logs.sql')"
        )
    if was_ours:
        # Other programs use the old name too. Its rows come along.
        connection.execute("ALTER TABLE schema_migrations RENAME TO log_migrations")
        return
    ((schema,),) = connection.execute("SELECT current_schema()")
    if schema is None:
        raise ConfigError(
            "the database has no schema to make tables in: search_path names none that exists; "
            "CREATE SCHEMA one of them, or set search_path in DATABASE_URL"
        )
    if in_the_way := [shown for (shown,) in connection.execute(_IN_THE_WAY, (list(_OURS),))]:
        raise ConfigError(
            f"the database has what Dewey would make already, and Dewey did not make it: {', '.join(in_the_way)}; "
            "point DATABASE_URL to a database of Dewey's own (CREATE DATABASE winni), or rename what is there. "
            "Nothing was changed. Entries of another log can be copied with `godot ingest`"
        )
    connection.execute(
        "CREATE TABLE log_migrations ("
        "version integer PRIMARY KEY, name text NOT NULL, "
        "applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
    )


def _apply(connection: Connection[Any], step: Migration) -> None:
    try:
        connection.execute(step.sql)
    except (errors.DuplicateTable, errors.DuplicateFunction, errors.DuplicateObject, errors.DuplicateColumn) as exc:
        raise ConfigError(
            f"the step {step.name} of the schema cannot be applied, since somebody made something of its name: "
            f"{(exc.diag.message_primary or str(exc))}; rename that. Nothing of this step was changed"
        ) from exc


def _version(connection: Connection[Any]) -> int:
    ((version,),) = connection.execute("SELECT coalesce(max(version), 0) FROM log_migrations")
    return int(version)


def _check_encoding(connection: Connection[Any]) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise ConfigError(
            f"the database stores text as {encoding}; entries need UTF8: "
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )
