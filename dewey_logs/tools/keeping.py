"""Dewey's tools that look after what is stored: how much there is, what goes, what stays (DEW-009, DEW-010)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

import attrs

from dewey_logs.clearing import MAX_NOTE_CHARS, Clearing, end_of_pin
from dewey_logs.filters import MAX_WORD_CHARS, identifier, storable
from dewey_logs.query import TRACE_ID_SHOWN
from dewey_logs.store.protocol import LogStore
from dewey_logs.tools.callers import BY, FOR_PEER, given_name, where_from
from godot.entries.entry import MAX_COMPONENT_CHARS
from godot.entries.levels import LEVELS
from godot.errors import EntryRejected
from godot.json.structure import argument
from godot.mcp.toolbox import Answer, Definition

MAX_COMPONENTS: Final = 1_000
"""An answer must stay under 1 MiB, however long the names of components are."""


MAX_PINS_SHOWN: Final = 500


@attrs.frozen
class StatsArguments:
    """Arguments of `dewey_get_log_stats`: none."""


@attrs.frozen
class ClearArguments:
    """Arguments of `dewey_clear_logs`; all may be left out or null, and all that are given must hold."""

    before_time: str | None = argument(
        "Entries that happened before this time: ISO 8601, UTC when it has no offset; or relative to now, with s, m, "
        "h, d or w.",
        default=None,
        max_chars=MAX_WORD_CHARS,
        examples=["2026-11-20T00:00:00Z", "-7d"],
    )
    component: str | list[str] | None = argument(
        "Entries of this component, or of one of these: exact names, or patterns in which * stands for anything.",
        default=None,
        max_chars=MAX_COMPONENT_CHARS,
        examples=["relay", "gates*"],
    )
    level: str | None = argument(
        "Entries of this level and of those that are less severe: DEBUG deletes DEBUG and TRACE. The levels are, most "
        f"severe first, {', '.join(LEVELS)}.",
        default=None,
        max_chars=MAX_WORD_CHARS,
        examples=["DEBUG"],
    )
    exclude_trace_id: str | list[str] | None = argument(
        "But not entries of this trace, or of these.", default=None, max_chars=MAX_WORD_CHARS, examples=[TRACE_ID_SHOWN]
    )
    dry_run: bool = argument("true: delete nothing, only count.", default=False)
    by: str | None = BY
    for_peer: str | None = FOR_PEER


@attrs.frozen
class PinArguments:
    """Arguments of `dewey_pin_trace`; without any, it only lists."""

    trace_id: str | None = argument(
        "The trace: a UUID.", default=None, max_chars=MAX_WORD_CHARS, examples=[TRACE_ID_SHOWN]
    )
    note: str | None = argument(
        "Why, for a reader.", default=None, max_chars=MAX_NOTE_CHARS, examples=["the outage of Friday"]
    )
    until: str | None = argument(
        "Until when: ISO 8601, or a length of time from now, with s, m, h, d or w. For ever, without.",
        default=None,
        max_chars=MAX_WORD_CHARS,
        examples=["30d", "2026-12-24T00:00:00Z"],
    )
    remove: bool = argument("true: let it go again.", default=False)
    by: str | None = BY
    for_peer: str | None = FOR_PEER


@attrs.frozen
class MaintainArguments:
    """Arguments of `dewey_maintain_partitions`: none."""


MAINTAIN_TOOL: Final = Definition(
    title="Prepare the days to come",
    description=(
        "Make the table's partitions of yesterday, today and the days to come (UTC), and those of past days that have "
        "entries waiting in the default partition, and move these there. Godot calls it by itself; call it after a "
        "restore, or when the default partition grows. Calling it again is harmless. Answers {created, moved}: names "
        "of the new partitions, and how many entries moved."
    ),
    arguments=MaintainArguments,
    role="write",
    idempotent=True,
)

CLEAR_TOOL: Final = Definition(
    title="Delete log entries",
    description=(
        "DELETE entries for ever, but never those of a pinned trace. Without any filter it deletes what is older than "
        "the retention, as happens by itself. Filters combine. Use dry_run first: it says how many there are. Whole "
        "days go at once; what is picked out of a day is deleted bit by bit, 100,000 entries in some seconds. A note "
        "of who cleared what, and how many entries that were, is kept in the table log_clears. Answers {deleted, "
        "dry_run}."
    ),
    arguments=ClearArguments,
    role="admin",
    destructive=True,
    idempotent=True,
)

PIN_TOOL: Final = Definition(
    title="Keep a trace",
    description=(
        "Pin a trace: its entries, present and future, survive retention and clearing until the pin ends or is "
        "removed. Pinning again changes note and end. Without trace_id it only lists. Answers {pins: [{trace_id, note, "
        f"pinned_at, until}}]}}, the newest {MAX_PINS_SHOWN:,} of them; until is null for ever."
    ),
    arguments=PinArguments,
    role="admin",
    idempotent=True,
)

STATS_TOOL: Final = Definition(
    title="Count the log entries",
    description=(
        "Tell how much is stored: {total, by_component, by_level, oldest, newest, size_bytes}. The numbers are exact, "
        "and come at once however much it is. by_component begins with the component that has the most entries; beyond "
        f"{MAX_COMPONENTS:,} components, further_components says how many are left out. oldest and newest are times of "
        "entries (created_at, UTC; null when there is none), size_bytes is what the table takes with its indexes."
    ),
    arguments=StatsArguments,
    role="read",
    read_only=True,
    idempotent=True,
)


@attrs.frozen(kw_only=True)
class Keeping:
    """Looks after a store.

    :param partitions_ahead: days after today that always have a partition.
    :param retention_days: days before today that get a partition when they have entries; without a filter, older
        entries are cleared.
    :param partitioned: False: no partition is made (`LOG_PARTITION_ENABLED`).
    :param now: what relative times count from.
    """

    store: LogStore
    partitions_ahead: int
    retention_days: int
    partitioned: bool
    now: Callable[[], datetime]

    async def maintain(self, _: MaintainArguments) -> Answer:
        """Make missing partitions."""
        result = await self.store.maintain(
            ahead_days=self.partitions_ahead, retention_days=self.retention_days, partitioned=self.partitioned
        )
        return Answer.of({"created": list(result.created), "moved": result.moved})

    async def clear(self, arguments: ClearArguments) -> Answer:
        """Delete entries, or only count them."""
        instant = min(self.now(), await self.store.now())  # a clock that is ahead would delete young entries
        clearing = Clearing.parse(
            retention_days=self.retention_days,
            before_time=arguments.before_time,
            component=arguments.component,
            level=arguments.level,
            exclude_trace_id=arguments.exclude_trace_id,
            now=lambda: instant,
        )
        deleted = await self.store.clear(
            clearing, by=where_from(arguments.for_peer), said_by=given_name(arguments.by), dry_run=arguments.dry_run
        )
        return Answer.of({"deleted": deleted, "dry_run": arguments.dry_run})

    async def pin(self, arguments: PinArguments) -> Answer:
        """Pin a trace, let it go again, or only list the pins."""
        if arguments.trace_id is not None:
            trace_id = identifier("trace_id", arguments.trace_id)
            if arguments.remove:
                await self.store.unpin(trace_id)
            else:
                note = storable("note", arguments.note or "")
                if len(note) > MAX_NOTE_CHARS:
                    raise EntryRejected(f"note: at most {MAX_NOTE_CHARS:,} characters, not {len(note):,}")
                until = None if arguments.until is None else end_of_pin(arguments.until, self.now())
                by, name = where_from(arguments.for_peer), given_name(arguments.by)
                await self.store.pin(trace_id, note=note, until=until, by=by, said_by=name)
        elif arguments.remove or arguments.note or arguments.until:
            raise EntryRejected("trace_id: is missing: which trace?")
        return Answer.of({"pins": [attrs.asdict(each) for each in (await self.store.pins())[-MAX_PINS_SHOWN:]]})

    async def stats(self, _: StatsArguments) -> Answer:
        """Count the entries."""
        found = await self.store.stats()
        listed = sorted(found.by_component.items(), key=lambda each: (-each[1], each[0]))
        value = {
            "total": found.total,
            "by_component": dict(listed[:MAX_COMPONENTS]),
            "by_level": {level: found.by_level.get(level, 0) for level in LEVELS},
            "oldest": found.oldest,
            "newest": found.newest,
            "size_bytes": found.size_bytes,
        }
        if len(listed) > MAX_COMPONENTS:
            value["further_components"] = len(listed) - MAX_COMPONENTS
        return Answer.of(value)
