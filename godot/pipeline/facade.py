"""The tools of Godot's port that do not take entries in: Dewey's, passed on, and those about the pipeline itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

import attrs
import trio

from godot.buffer.protocol import Buffer, LevelNotes
from godot.errors import DeweyUnavailable, EntryRejected
from godot.mcp.toolbox import Answer, Definition, Runner, Tool, caller
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

TAILS_EACH: Final = 100
"""Calls of `logger_tail` of one connection: half of those that Dewey has places for."""

CLEAR_S: Final = 3_600.0
"""Deleting ten million entries one by one takes a quarter of an hour."""

_WAIT_MAX_S: Final = 60.0
"""Cap on our own wait, whatever was asked, so that a dead connection is noticed."""


@attrs.frozen
class NoArguments:
    """For tools that take none."""


STATUS_TOOL: Final = Definition(
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
    role="read",
    read_only=True,
)


def facade_tools(
    dewey: Dewey,
    status: Status,
    buffer: Buffer,
    levels: Levels,
    *,
    definitions: Mapping[str, Definition],
) -> list[Tool]:
    """Return the tools that find entries, and those that look after the recorder.

    :param definitions: of Dewey's tools, by their names; seven tools here have the same ones.
    """
    facade = _Facade(dewey, status, buffer, levels, definitions)
    at_once = (
        "It counts at once, here and for connected clients that asked to be told, and within 10 s at other Godots."
    )
    return [
        facade.tool(QUERY, DEWEY_QUERY),
        facade.tool(TAIL, DEWEY_TAIL, facade.tail, more=f"Find them with {QUERY}."),
        facade.tool(STATS, DEWEY_STATS, more=f"What is still on its way is not in it; {STATUS} tells that."),
        Tool.of(STATUS_TOOL, STATUS, facade.show_status, aliases=[deployed(STATUS)]),
        facade.tool(SET_LEVEL, DEWEY_SET_LEVEL, facade.set_level, more=at_once),
        facade.tool(GET_LEVEL, DEWEY_GET_LEVELS, facade.get_levels, more="It answers while Dewey is away, too."),
        facade.tool(CLEAR, DEWEY_CLEAR, partial(facade.pass_on, DEWEY_CLEAR, wait_s=CLEAR_S, signed=True)),
        facade.tool(PIN, DEWEY_PIN, partial(facade.pass_on, DEWEY_PIN, signed=True)),
        *dead_tools(buffer),
    ]


@attrs.frozen
class _Facade:
    """What runs when a client calls one of these tools.

    :param notes: where the levels are written down.
    :param tails: calls of `logger_tail` that wait, by caller.
    """

    dewey: Dewey
    status: Status
    notes: LevelNotes
    levels: Levels
    definitions: Mapping[str, Definition]
    tails: Counter[str] = attrs.Factory(Counter)

    def tool(self, name: str, of_dewey: str, run: Runner | None = None, *, more: str = "") -> Tool:
        """Offer a tool of Dewey's under a name of Godot's.

        :param run: None: the call is passed on as it is.
        """
        run = run or partial(self.pass_on, of_dewey)
        return Tool.of(self.definitions[of_dewey], name, run, more=more, aliases=[deployed(name)])

    async def pass_on(self, tool: str, arguments: Any, *, wait_s: float = 0.0, signed: bool = False) -> Answer:
        """Pass a call on to Dewey.

        :param wait_s: how long the tool may take, beyond what a question may.
        :param signed: say where the call came from, which Dewey cannot know; what the client says of that is dropped.
        """
        given = {name: value for name, value in attrs.asdict(arguments, recurse=False).items() if value is not None}
        if signed:
            given["for_peer"] = caller.get()
        return await self.dewey.ask(tool, given, wait_s=wait_s)

    async def tail(self, arguments: Any) -> Answer:
        """Pass a call on that waits at Dewey."""
        who = caller.get()
        if self.tails[who] >= TAILS_EACH:
            raise EntryRejected(
                f"{TAILS_EACH} calls of {TAIL} wait on this connection already, which is the most for one"
            )
        asked_s: float | None = arguments.wait_s
        if asked_s is None:
            asked_s = attrs.fields_dict(type(arguments))["wait_s"].default or 0.0
        self.tails[who] += 1
        self.status.followers += 1
        try:
            wait_s = min(max(asked_s, 0.0), _WAIT_MAX_S)
            return await self.pass_on(DEWEY_TAIL, arguments, wait_s=wait_s, signed=True)
        finally:
            self.status.followers -= 1
            self.tails[who] -= 1
            if not self.tails[who]:
                del self.tails[who]

    async def set_level(self, arguments: Any) -> Answer:
        """Have Dewey set a level, and let it count here at once."""
        answer = await self.pass_on(DEWEY_SET_LEVEL, arguments, signed=True)
        if not answer.is_error:
            with suppress(DeweyUnavailable):  # maintenance asks again
                await self.levels.refresh(self.dewey, self.notes)
        return answer

    async def get_levels(self, arguments: Any) -> Answer:
        """Show the levels that count here now."""
        await trio.lowlevel.checkpoint()
        listed = {
            component: attrs.asdict(setting)
            for component, setting in self.levels.settings().items()
            if arguments.component in (None, component)
        }
        return Answer.of({"levels": listed})

    async def show_status(self, _: NoArguments) -> Answer:
        """Show the state of the recorder."""
        return Answer.of(await self.status.snapshot())
