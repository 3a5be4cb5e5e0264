"""Dewey's MCP tools beside storing and finding: how much there is, what goes, what stays (DEW-009, DEW-010)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs

from dewey_logs.clearing import MAX_NOTE_CHARS, Clearing, end_of_pin
from dewey_logs.filters import identifier, storable
from dewey_logs.query import TRACE_ID_SHOWN
from dewey_logs.store.protocol import LogStore
from godot.entries.entry import MAX_COMPONENT_CHARS
from godot.entries.levels import LEVELS, parse_level
from godot.entries.times import iso
from godot.errors import EntryRejected
from godot.json.structure import argument
from godot.mcp.toolbox import INSIDE, Answer, Tool, caller
from godot.toolnames import (
    DEWEY_CLEAR,
    DEWEY_GET_LEVELS,
    DEWEY_MAINTAIN,
    DEWEY_PIN,
    DEWEY_SET_LEVEL,
    DEWEY_STATS,
    SET_LEVEL,
)

MAX_COMPONENTS: Final = 1_000
"""An answer must stay under 1 MiB, whatever components call themselves."""


MAX_WORD_CHARS: Final = 100
"""Of an id, a level, a time."""

MAX_FOR_S: Final = 366 * 86_400

MAX_LEVELS: Final = 10_000
"""Components with a level of their own; an answer with all of them is under 1 MiB."""

MAX_PINS_SHOWN: Final = 500

MAX_BY_CHARS: Final = 255


@attrs.frozen
class StatsArguments:
    """Arguments of `dewey_get_log_stats`: none."""


_BY: Final = argument(
    f"Who asks, in at most {MAX_BY_CHARS} characters, for the note that is kept. Where the call came from is kept too.",
    default=None,
)
FOR_PEER: Final = argument(
    "Where the call came from, when it is passed on: Godot sets it, always. Leave it out.", default=None
)


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
    by: str | None = _BY
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
    by: str | None = _BY
    for_peer: str | None = FOR_PEER


@attrs.frozen
class SetLevelArguments:
    """Arguments of `dewey_set_log_level`."""

    component: str = argument(
        "Whose entries: the exact name of a component, or * for all that have no level of their own.",
        max_chars=MAX_COMPONENT_CHARS,
        examples=["relay", "*"],
    )
    level: str | None = argument(
        f"The least severe level that is stored, null for all. The levels are, most severe first, {', '.join(LEVELS)}.",
        default=None,
        max_chars=MAX_WORD_CHARS,
        examples=["INFO"],
    )
    for_s: float | None = argument(
        "For so many seconds; then it is as it was before. For ever, without.",
        default=None,
        examples=[1800],
        minimum=1,
        maximum=MAX_FOR_S,
    )
    by: str | None = _BY
    for_peer: str | None = FOR_PEER


@attrs.frozen
class GetLevelsArguments:
    """Arguments of `dewey_get_log_levels`."""

    component: str | None = argument(
        "Only of this component.", default=None, max_chars=MAX_COMPONENT_CHARS, examples=["relay"]
    )


def where_from(for_peer: str | None) -> str:
    """Return where a call came from; whoever passes one on is named too, unless it is the Godot around this Dewey."""
    here = caller.get()
    if for_peer is None:
        return here
    peer = _short("for_peer", for_peer)
    return peer if here == INSIDE else f"{peer} by way of {here}"


def _said(by: str | None) -> str | None:
    return None if by is None else _short("by", by)


def _short(name: str, text: str) -> str:
    if len(text) > MAX_BY_CHARS:
        raise EntryRejected(f"{name}: at most {MAX_BY_CHARS} characters, not {len(text):,}")
    return storable(name, text)


def keeping_tools(
    store: LogStore,
    *,
    partitions_ahead: int = 7,
    retention_days: int = 7,
    partitioned: bool = True,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[Tool]:
    """Return the tools that look after what a store has.

    :param partitions_ahead: days after today that always have a partition.
    :param retention_days: days before today that get a partition when they have entries; older than that is what goes
        when nothing is said.
    :param partitioned: False: none is made (`LOG_PARTITION_ENABLED`).
    :param now: what relative times count from.
    """

    async def maintain(_: MaintainArguments) -> Answer:
        result = await store.maintain(
            ahead_days=partitions_ahead, retention_days=retention_days, partitioned=partitioned
        )
        return Answer.of({"created": list(result.created), "moved": result.moved})

    async def clear(arguments: ClearArguments) -> Answer:
        instant = min(now(), await store.now())  # a clock that is ahead deletes what is not old
        clearing = Clearing.parse(
            retention_days=retention_days,
            before_time=arguments.before_time,
            component=arguments.component,
            level=arguments.level,
            exclude_trace_id=arguments.exclude_trace_id,
            now=lambda: instant,
        )
        deleted = await store.clear(
            clearing, by=where_from(arguments.for_peer), said_by=_said(arguments.by), dry_run=arguments.dry_run
        )
        return Answer.of({"deleted": deleted, "dry_run": arguments.dry_run})

    async def pin(arguments: PinArguments) -> Answer:
        if arguments.trace_id is not None:
            trace_id = identifier("trace_id", arguments.trace_id)
            if arguments.remove:
                await store.unpin(trace_id)
            else:
                note = storable("note", arguments.note or "")
                if len(note) > MAX_NOTE_CHARS:
                    raise EntryRejected(f"note: at most {MAX_NOTE_CHARS:,} characters, not {len(note):,}")
                until = None if arguments.until is None else end_of_pin(arguments.until, now())
                by, said_by = where_from(arguments.for_peer), _said(arguments.by)
                await store.pin(trace_id, note=note, until=until, by=by, said_by=said_by)
        elif arguments.remove or arguments.note or arguments.until:
            raise EntryRejected("trace_id: is missing: which trace?")
        return Answer.of({"pins": [attrs.asdict(each) for each in (await store.pins())[-MAX_PINS_SHOWN:]]})

    async def stats(_: StatsArguments) -> Answer:
        found = await store.stats()
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

    async def set_level(arguments: SetLevelArguments) -> Answer:
        component = storable("component", arguments.component)
        if not 1 <= len(component) <= MAX_COMPONENT_CHARS:
            raise EntryRejected(f"component: from 1 to {MAX_COMPONENT_CHARS} characters, not {len(component)}")
        level = None if arguments.level is None else parse_level(arguments.level)
        if arguments.for_s is not None and not 1 <= arguments.for_s <= MAX_FOR_S:
            raise EntryRejected(f"for_s: from 1 to {MAX_FOR_S:,} seconds, not {arguments.for_s:g}")
        until = None if arguments.for_s is None else iso(now() + timedelta(seconds=arguments.for_s))
        known = await store.levels()
        if component not in known and len(known) >= MAX_LEVELS:
            raise EntryRejected(f"{MAX_LEVELS:,} components have a level of their own already; use * for the others")
        previous = await store.set_level(
            component, level, until=until, by=where_from(arguments.for_peer), said_by=_said(arguments.by)
        )
        return Answer.of({"component": component, "level": level, "until": until, "previous": previous})

    async def get_levels(arguments: GetLevelsArguments) -> Answer:
        found = await store.levels()
        listed = {
            component: attrs.asdict(each)
            for component, each in found.items()
            if arguments.component in (None, component)
        }
        return Answer.of({"levels": listed})

    return [
        Tool(
            name=DEWEY_MAINTAIN,
            title="Prepare the days to come",
            description=(
                f"Make the table's partitions from yesterday to {partitions_ahead} days ahead (UTC), and those "
                f"of the last {retention_days} days that have entries waiting in the default partition, and "
                "move these there. Godot calls it by itself; call it after a restore, or when the default "
                "partition grows. Calling it again is harmless. Answers {created, moved}: names of the new "
                "partitions, and how many entries moved."
            ),
            arguments=MaintainArguments,
            run=maintain,
            role="write",
            idempotent=True,
        ),
        Tool(
            name=DEWEY_SET_LEVEL,
            title="Set a level",
            description=(
                "Set from which level on the entries of a component are stored. Godot knows of it within 10 s, and at "
                f"once when it is set there ({SET_LEVEL}). Answers {{component, level, until, previous}}."
            ),
            arguments=SetLevelArguments,
            run=set_level,
            role="admin",
            idempotent=True,
        ),
        Tool(
            name=DEWEY_GET_LEVELS,
            title="Show the levels",
            description=(
                "Show which levels are set: {levels: {component: {level, until, later}}}, * for the components that "
                "have none of their own. level is null when all are stored; until is null for ever, and later what "
                "counts after it."
            ),
            arguments=GetLevelsArguments,
            run=get_levels,
            role="read",
            read_only=True,
            idempotent=True,
        ),
        Tool(
            name=DEWEY_CLEAR,
            title="Delete log entries",
            description=(
                "DELETE entries for ever, but never those of a pinned trace. Without any filter it deletes what is "
                f"older than the retention ({retention_days} days), as happens by itself. Filters combine. Use dry_run "
                "first: it says how many there are. Whole days go at once; what is picked out of a day is deleted "
                "bit by bit, 100,000 entries in some seconds. A note of who cleared what, and how many entries that "
                "were, is kept in the table log_clears. Answers {deleted, dry_run}."
            ),
            arguments=ClearArguments,
            run=clear,
            role="admin",
            destructive=True,
            idempotent=True,
        ),
        Tool(
            name=DEWEY_PIN,
            title="Keep a trace",
            description=(
                "Pin a trace: its entries, also those that come yet, survive retention and clearing until the pin ends "
                "or is removed. Pinning again changes note and end. Without trace_id it only lists. Answers {pins: "
                f"[{{trace_id, note, pinned_at, until}}]}}, the newest {MAX_PINS_SHOWN:,} of them; until is null for "
                "ever."
            ),
            arguments=PinArguments,
            run=pin,
            role="admin",
            idempotent=True,
        ),
        Tool(
            name=DEWEY_STATS,
            title="Count the log entries",
            description=(
                "Tell how much is stored, exactly as of now and at once, however much it is: {total, by_component, "
                "by_level, oldest, newest, size_bytes}. by_component begins with the component that has the most "
                f"entries; beyond {MAX_COMPONENTS:,} components, further_components says how many are left out. oldest "
                "and newest are times of entries (created_at, UTC; null when there is none), size_bytes is what the "
                "table takes with its indexes."
            ),
            arguments=StatsArguments,
            run=stats,
            role="read",
            read_only=True,
            idempotent=True,
        ),
    ]


@attrs.frozen
class MaintainArguments:
    """Arguments of `dewey_maintain_partitions`: none."""
