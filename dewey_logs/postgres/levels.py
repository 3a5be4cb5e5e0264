"""Keeps the levels (DEW-011): schema/0005_logger_config.sql."""

from __future__ import annotations

from dewey_logs.postgres.lane import Connection
from dewey_logs.query import ISO_FORMAT
from godot.entries.levels import LevelSetting


def read_levels(connection: Connection) -> dict[str, LevelSetting]:
    """Return the levels that are set, without those that have ended."""
    rows = connection.execute(
        f"""
        SELECT component, level, to_char(until AT TIME ZONE 'UTC', {ISO_FORMAT}), later, until <= clock_timestamp()
        FROM logger_config ORDER BY component
        """.encode()  # noqa: S608 - a constant
    )
    found = {
        component: LevelSetting(later) if is_over else LevelSetting(level, until, later)
        for component, level, until, later, is_over in rows
    }
    return {component: each for component, each in found.items() if each != LevelSetting(None)}


def set_level(
    connection: Connection, component: str, level: str | None, until: str | None, by: str, said_by: str | None
) -> str | None:
    """Set the level of a component; return the one that counted before."""
    with connection.transaction():
        connection.execute(
            "LOCK TABLE logger_config IN SHARE ROW EXCLUSIVE MODE"
        )  # of two at once, each would go back to the other
        before = read_levels(connection).get(component, LevelSetting(None))
        if level is None and until is None:
            connection.execute("DELETE FROM logger_config WHERE component = %s", (component,))
        else:
            lasting = before.later if before.until is not None else before.level
            connection.execute(
                "INSERT INTO logger_config (component, level, until, later, set_by, said_by) "
                "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (component) DO UPDATE SET level = EXCLUDED.level, "
                "until = EXCLUDED.until, later = EXCLUDED.later, set_by = EXCLUDED.set_by, "
                "said_by = EXCLUDED.said_by, set_at = clock_timestamp()",
                (component, level, until, lasting if until is not None else None, by, said_by),
            )
        return before.level
