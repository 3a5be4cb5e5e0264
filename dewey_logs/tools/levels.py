"""Dewey's tools for levels: from which severity on the entries of a component are stored (DEW-011)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import attrs

from dewey_logs.filters import MAX_WORD_CHARS, storable
from dewey_logs.store.protocol import LogStore
from dewey_logs.tools.callers import BY, FOR_PEER, given_name, where_from
from godot.entries.entry import MAX_COMPONENT_CHARS
from godot.entries.levels import LEVELS, parse_level
from godot.entries.times import iso
from godot.errors import EntryRejected
from godot.json.structure import argument
from godot.mcp.toolbox import Answer, Definition

MAX_FOR_S: Final = 366 * 86_400

MAX_LEVELS: Final = 10_000
"""Components with a level of their own. An answer with all of them is under 1 MiB."""


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
    by: str | None = BY
    for_peer: str | None = FOR_PEER


@attrs.frozen
class GetLevelsArguments:
    """Arguments of `dewey_get_log_levels`."""

    component: str | None = argument(
        "Only of this component.", default=None, max_chars=MAX_COMPONENT_CHARS, examples=["relay"]
    )


SET_LEVEL_TOOL: Final = Definition(
    title="Set a level",
    description=(
        "Set from which level on the entries of a component are stored, for a time with for_s: entries below it are "
        "not, and their callers are told. Answers {component, level, until, previous}."
    ),
    arguments=SetLevelArguments,
    role="admin",
    idempotent=True,
)

GET_LEVELS_TOOL: Final = Definition(
    title="Show the levels",
    description=(
        "Show which levels are set: {levels: {component: {level, until, later}}}, * for the components that have none "
        "of their own. level is null when all are stored; until is null for ever, and later what counts after it."
    ),
    arguments=GetLevelsArguments,
    role="read",
    read_only=True,
    idempotent=True,
)


@attrs.frozen
class LevelKeeping:
    """Keeps the levels in a store.

    :param now: what `for_s` counts from.
    """

    store: LogStore
    now: Callable[[], datetime]

    async def set_level(self, arguments: SetLevelArguments) -> Answer:
        """Set a level, or forget it."""
        component = storable("component", arguments.component)
        if not 1 <= len(component) <= MAX_COMPONENT_CHARS:
            raise EntryRejected(f"component: from 1 to {MAX_COMPONENT_CHARS} characters, not {len(component)}")
        level = None if arguments.level is None else parse_level(arguments.level)
        if arguments.for_s is not None and not 1 <= arguments.for_s <= MAX_FOR_S:
            raise EntryRejected(f"for_s: from 1 to {MAX_FOR_S:,} seconds, not {arguments.for_s:g}")
        until = None if arguments.for_s is None else iso(self.now() + timedelta(seconds=arguments.for_s))
        known = await self.store.levels()
        if component not in known and len(known) >= MAX_LEVELS:
            raise EntryRejected(f"{MAX_LEVELS:,} components have a level of their own already; use * for the others")
        previous = await self.store.set_level(
            component, level, until=until, by=where_from(arguments.for_peer), said_by=given_name(arguments.by)
        )
        return Answer.of({"component": component, "level": level, "until": until, "previous": previous})

    async def get_levels(self, arguments: GetLevelsArguments) -> Answer:
        """Show the levels."""
        found = await self.store.levels()
        listed = {
            component: attrs.asdict(each)
            for component, each in found.items()
            if arguments.component in (None, component)
        }
        return Answer.of({"levels": listed})
