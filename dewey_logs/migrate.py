"""Brings a database to the schema that this program was written for: schema/NNNN_what_it_does.sql.

Forward only, each file once and in a transaction of its own, together with its row in
`schema_migrations`. All of it happens under an advisory lock, so that two Deweys can start at once.
Runs in a worker thread of `dewey_logs.postgres`, which translates its errors.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Final

import attrs
from psycopg import Connection

from godot.errors import ConfigError

_LOCK: Final = 0x60D07_0001
"""Key of the advisory lock; any number that nobody else uses."""


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
    """Apply what is missing; return the names of the files that were applied.

    :param connection: in autocommit mode.
    :raises ConfigError: when the database has a schema that is newer than this program, or when it
        does not store text as UTF-8.
    """
    steps = migrations() if steps is None else steps
    applied = []
    with connection.transaction():
        _check_encoding(connection)
        # Waiting for the lock comes first: CREATE TABLE IF NOT EXISTS fails when two do it at once.
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations ("
            "version integer PRIMARY KEY, name text NOT NULL, "
            "applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
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
                connection.execute(step.sql)
                connection.execute(
                    "INSERT INTO schema_migrations (version, name) VALUES (%s, %s)", (step.version, step.name)
                )
                applied.append(step.name)
    return applied


def _version(connection: Connection[Any]) -> int:
    ((version,),) = connection.execute("SELECT coalesce(max(version), 0) FROM schema_migrations")
    return int(version)


def _check_encoding(connection: Connection[Any]) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise ConfigError(
            f"the database stores text as {encoding}; entries need UTF8: "
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )
