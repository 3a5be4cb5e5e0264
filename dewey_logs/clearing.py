"""What can be cleared from the log, and what is pinned (DEW-009). Pure; the clock is handed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import attrs

from dewey_logs.filters import Components, identifier, moment
from godot.entries.entry import Entry
from godot.entries.levels import LEVELS, parse_level
from godot.entries.times import iso, span
from godot.errors import EntryRejected
from godot.json.structure import shown

MAX_EXCLUDED: Final = 1_000
MAX_NOTE_CHARS: Final = 1_000


@attrs.frozen
class Clearing:
    """What to delete: the entries for which all that is given holds, except those of pinned traces.

    :param before: entries that happened earlier than this; ISO 8601 in UTC.
    :param level: entries of this level, and of those that are less severe.
    :param exclude: traces that stay.
    """

    before: str | None = None
    component: Components | None = None
    level: str | None = None
    exclude: tuple[str, ...] = ()

    @classmethod
    def parse(
        cls,
        *,
        retention_days: int,
        before_time: str | None = None,
        component: str | Sequence[str] | None = None,
        level: str | None = None,
        exclude_trace_id: str | Sequence[str] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> Clearing:
        """Check what was asked; without any filter, everything older than the retention goes.

        :raises EntryRejected: naming the argument and what is allowed.
        """
        instant = now()
        listed = [exclude_trace_id] if isinstance(exclude_trace_id, str) else list(exclude_trace_id or ())
        if len(listed) > MAX_EXCLUDED:
            raise EntryRejected(f"exclude_trace_id: at most {MAX_EXCLUDED:,}, not {len(listed):,}; pin them instead")
        before = None if before_time is None else moment("before_time", before_time, instant)
        if before is None and component is None and level is None:
            before = iso(instant - timedelta(days=retention_days))
        return cls(
            before,
            None if component is None else Components.parse(component),
            None if level is None else parse_level(level),
            tuple(identifier("exclude_trace_id", each) for each in listed),
        )

    @property
    def takes_whole_days(self) -> bool:
        """Whether everything before its end goes, except single traces."""
        return self.before is not None and self.component is None and self.level is None

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that go."""
        return LEVELS if self.level is None else LEVELS[LEVELS.index(self.level) :]

    def to_sql(self) -> tuple[str, dict[str, Any]]:
        """Word it for PostgreSQL: a condition on `logs`, pins included, and the values of its placeholders."""
        conditions = [
            "NOT EXISTS (SELECT FROM log_pins WHERE log_pins.trace_id = logs.trace_id"
            " AND (until IS NULL OR until > clock_timestamp()))"
        ]
        values: dict[str, Any] = {}
        if self.before is not None:
            conditions.append("logs.created_at < %(before)s::timestamptz")
            values["before"] = self.before
        if self.component is not None:
            condition, named = self.component.to_sql()
            conditions.append(condition)
            values |= named
        if self.level is not None:
            conditions.append("logs.level = ANY(%(levels)s::text[])")
            values["levels"] = list(self.levels)
        if self.exclude:
            conditions.append("(logs.trace_id IS NULL OR logs.trace_id <> ALL(%(exclude)s::uuid[]))")
            values["exclude"] = list(self.exclude)
        return " AND ".join(conditions), values

    def takes(self, entry: Entry) -> bool:
        """Whether an entry goes, unless its trace is pinned."""
        return (
            (self.before is None or entry.created_at < self.before)
            and (self.component is None or self.component.match(entry.component))
            and entry.level in self.levels
            and entry.trace_id not in self.exclude
        )

    def filters(self) -> dict[str, Any]:
        """Return it for the audit."""
        given = {
            "before_time": self.before,
            "component": None if self.component is None else [*self.component.names, *self.component.patterns],
            "level": self.level,
            "exclude_trace_id": list(self.exclude) or None,
        }
        return {name: value for name, value in given.items() if value is not None}


@attrs.frozen
class Pin:
    """A trace whose entries are kept.

    :param until: ISO 8601 in UTC; None: for ever.
    """

    trace_id: str
    note: str
    pinned_at: str
    until: str | None


def end_of_pin(text: str, now: datetime) -> str:
    """Read until when a trace is pinned: a moment to come, or a length of time from now.

    :raises EntryRejected: it is neither.
    """
    try:
        if (length := span(text)) is not None:
            return iso(now + length)
        until = moment("until", text, now)
    except (EntryRejected, OverflowError):
        raise EntryRejected(
            f"until: must be ISO 8601, such as 2026-12-24T00:00:00Z, or a length of time, such as 30d, "
            f"not {shown(text)}"
        ) from None
    if until <= iso(now):
        raise EntryRejected(f"until: must be to come; {until} is over")
    return until


def end_of_retention(now: datetime, retention_days: int) -> str:
    """Return the time before which entries go by themselves: the start of a UTC day, so that whole partitions can go.

    Entries are kept for `retention_days`, and then until the end of that UTC day.
    """
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return iso(today - timedelta(days=retention_days))
