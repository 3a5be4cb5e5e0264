"""The tools of Godot's port that do not take entries in: Dewey's, passed on, and those about the pipeline itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import attrs
import trio

from godot.buffer.protocol import Buffer, LevelNotes
from godot.errors import DeweyUnavailable, EntryRejected
from godot.mcp.toolbox import Answer, Tool, caller
from godot.pipeline.dead import dead_tools
from godot.pipeline.dewey import Dewey
from godot.pipeline.levels import Levels
from godot.pipeline.status import Status
from godot.toolnames import (
    CLEAR,
    DEAD,
    DEWEY_CLEAR,
    DEWEY_GET_LEVELS,
    DEWEY_PIN,
    DEWEY_QUERY,
    DEWEY_SET_LEVEL,
    DEWEY_STATS,
    DEWEY_TAIL,
    GET_LEVEL,
    PIN,
    QUERY,
    SET_LEVEL,
    STATS,
    STATUS,
    TAIL,
    deployed,
)


@attrs.frozen
class NoArguments:
    """For tools that take none."""


def facade_tools(
    dewey: Dewey,
    status: Status,
    buffer: Buffer,
    levels: Levels,
    *,
    dewey_arguments: Mapping[str, type[Any]],
) -> list[Tool]:
    """Return the tools by which entries are found again, and by which the recorder is looked after.

    :param dewey_arguments: what Dewey's tools take, by their names; these here take the same.
    """
    return [
        Tool(
            name=QUERY,
            title="Find entries",
            description=(
                "Find log entries: all of one request with trace_id; or by component, minimum level, time and "
                "text, in any combination. Newest first unless order says otherwise. A long result comes in "
                "pages: call again with cursor set to next_cursor."
            ),
            arguments=dewey_arguments[DEWEY_QUERY],
            run=_facade(dewey, DEWEY_QUERY),
            role="read",
            read_only=True,
            aliases=[deployed(QUERY)],
        ),
        Tool(
            name=TAIL,
            title="Follow entries",
            description=(
                "Wait for log entries, and get them in the order in which they are stored: nothing is left out "
                "and nothing comes twice. Answers {entries, cursor, missed, shortened} as soon as there is an "
                "entry, or after wait_s with none; call again with cursor, and the same filters, to go on. missed "
                f"is not 0 when the cursor was so old that entries were left out: find them with {QUERY}."
            ),
            arguments=dewey_arguments[DEWEY_TAIL],
            run=_tail(dewey, status, float(attrs.fields_dict(dewey_arguments[DEWEY_TAIL])["wait_s"].default or 0.0)),
            role="read",
            read_only=True,
            waits=True,
            aliases=[deployed(TAIL)],
        ),
        Tool(
            name=STATS,
            title="Count the entries",
            description=(
                "Tell how much is stored: total, by_component, by_level, the times of the oldest and the newest "
                "entry, size_bytes in the database. Exact, and fast however much it is. What is still on its way "
                f"is not in it; {STATUS} tells that."
            ),
            arguments=dewey_arguments[DEWEY_STATS],
            run=_facade(dewey, DEWEY_STATS),
            role="read",
            read_only=True,
            idempotent=True,
            aliases=[deployed(STATS)],
        ),
        Tool(
            name=STATUS,
            title="State of the recorder",
            description=(
                "Tell how the recorder itself is: entries received, stored, queued (queued_bytes), in_flight, "
                "dropped (the queue was full, the oldest went; dropped_for_bytes of them for their bytes; vanished "
                f"of them were taken out of Redis by others), dead (could not be stored, see {DEAD}; "
                "dead_forgotten of them are not kept any more), refused (not accepted), unconfirmed (accepted, "
                "and their callers were told that they are not on disk in time), whether redis and dewey are up, "
                "down or unknown, and whether what Redis acknowledges is durable (null: not looked at yet), if not "
                "why (not_durable). The totals hold over restarts; "
                "received = stored + queued + in_flight + dropped + dead."
            ),
            arguments=NoArguments,
            run=_status(status),
            role="read",
            read_only=True,
            aliases=[deployed(STATUS)],
        ),
        Tool(
            name=SET_LEVEL,
            title="Set a level",
            description=(
                "Set from which level on the entries of a component are stored, for a time with for_s: entries "
                "below it are not, and their callers are told. It counts at once, here and for connected "
                "clients that asked to be told, and within 10 s at other Godots. Answers {component, level, until, "
                "previous}."
            ),
            arguments=dewey_arguments[DEWEY_SET_LEVEL],
            run=_set_level(dewey, levels, buffer),
            role="admin",
            idempotent=True,
            aliases=[deployed(SET_LEVEL)],
        ),
        Tool(
            name=GET_LEVEL,
            title="Show the levels",
            description=(
                "Show which levels count now, also while Dewey is away: {levels: {component: {level, until, "
                "later}}}, * for the components that have none of their own. until is null for ever, and later "
                "what counts after it, null for everything."
            ),
            arguments=dewey_arguments[DEWEY_GET_LEVELS],
            run=_get_levels(levels),
            role="read",
            read_only=True,
            idempotent=True,
            aliases=[deployed(GET_LEVEL)],
        ),
        Tool(
            name=CLEAR,
            title="Delete entries",
            description=(
                "DELETE stored entries for ever, but never those of a pinned trace. Without any filter it deletes "
                "what is older than the retention, as happens by itself. Filters combine. Use dry_run first: it "
                "says how many there are. Answers {deleted, dry_run}."
            ),
            arguments=dewey_arguments[DEWEY_CLEAR],
            run=_facade(dewey, DEWEY_CLEAR, wait_s=CLEAR_S, signed=True),
            role="admin",
            destructive=True,
            idempotent=True,
            aliases=[deployed(CLEAR)],
        ),
        Tool(
            name=PIN,
            title="Keep a trace",
            description=(
                "Pin a trace: its entries, also those that come yet, survive retention and clearing until the pin "
                "ends or is removed. Pinning again changes note and end. Without trace_id it only lists. Answers "
                "{pins: [{trace_id, note, pinned_at, until}]}; until is null for ever."
            ),
            arguments=dewey_arguments[DEWEY_PIN],
            run=_facade(dewey, DEWEY_PIN, signed=True),
            role="admin",
            idempotent=True,
            aliases=[deployed(PIN)],
        ),
        *dead_tools(buffer),
    ]


def _facade(
    dewey: Dewey, tool: str, *, wait_s: float = 0.0, signed: bool = False
) -> Callable[[Any], Awaitable[Answer]]:
    """Return what passes a call on to Dewey.

    :param wait_s: how long the tool may take, beyond what a question may.
    :param signed: with where the call came from, which Dewey could not know; whatever the client says there.
    """

    async def ask(arguments: Any) -> Answer:
        given = _given(arguments)
        if signed:
            given["for_peer"] = caller.get()
        return await dewey.ask(tool, given, wait_s=wait_s)

    return ask


def _set_level(dewey: Dewey, levels: Levels, notes: LevelNotes) -> Callable[[Any], Awaitable[Answer]]:
    async def set_level(arguments: Any) -> Answer:
        answer = await dewey.ask(DEWEY_SET_LEVEL, _given(arguments) | {"for_peer": caller.get()})
        if not answer.is_error:
            with suppress(DeweyUnavailable):  # maintenance asks again
                await levels.refresh(dewey, notes)
        return answer

    return set_level


def _get_levels(levels: Levels) -> Callable[[Any], Awaitable[Answer]]:
    async def get_levels(arguments: Any) -> Answer:
        await trio.lowlevel.checkpoint()
        listed = {
            component: attrs.asdict(setting)
            for component, setting in levels.settings().items()
            if arguments.component in (None, component)
        }
        return Answer.of({"levels": listed})

    return get_levels


def _tail(dewey: Dewey, status: Status, default_wait_s: float) -> Callable[[Any], Awaitable[Answer]]:
    """Return what passes a call on to Dewey that waits there.

    :param default_wait_s: how long Dewey waits when nothing is said.
    """
    waiting: Counter[str] = Counter()

    async def tail(arguments: Any) -> Answer:
        who = caller.get()
        if waiting[who] >= TAILS_EACH:
            raise EntryRejected(
                f"{TAILS_EACH} calls of {TAIL} wait on this connection already, which is the most for one"
            )
        asked_s = default_wait_s if arguments.wait_s is None else arguments.wait_s
        waiting[who] += 1
        status.followers += 1
        try:
            given = _given(arguments) | {"for_peer": who}
            return await dewey.ask(DEWEY_TAIL, given, wait_s=min(max(asked_s, 0.0), _WAIT_MAX_S))
        finally:
            status.followers -= 1
            waiting[who] -= 1
            if not waiting[who]:
                del waiting[who]

    return tail


TAILS_EACH: Final = 100
"""Calls of `logger_tail` of one connection: half of those that Dewey has places for."""

CLEAR_S: Final = 3_600.0
"""Deleting ten million entries one by one takes a quarter of an hour."""

_WAIT_MAX_S: Final = 60.0
"""Cap on our own wait, whatever was asked, so that a dead connection is noticed."""


def _given(arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in attrs.asdict(arguments, recurse=False).items() if value is not None}


def _status(status: Status) -> Callable[[NoArguments], Awaitable[Answer]]:
    async def answer(_: NoArguments) -> Answer:
        return Answer.of(await status.snapshot())

    return answer
