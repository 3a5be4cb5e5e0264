"""Dewey's MCP tools: how programs and agents see the log store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from dewey_logs.follow import Followers
from dewey_logs.store.protocol import LogStore
from dewey_logs.tools.finding import QUERY_TOOL, TAIL_TOOL, Finding
from dewey_logs.tools.keeping import CLEAR_TOOL, MAINTAIN_TOOL, PIN_TOOL, STATS_TOOL, Keeping
from dewey_logs.tools.levels import GET_LEVELS_TOOL, SET_LEVEL_TOOL, LevelKeeping
from dewey_logs.tools.storing import STORE_TOOL, Storing
from godot.mcp.toolbox import Definition, Tool
from godot.toolnames import (
    DEWEY_CLEAR,
    DEWEY_GET_LEVELS,
    DEWEY_MAINTAIN,
    DEWEY_PIN,
    DEWEY_QUERY,
    DEWEY_SET_LEVEL,
    DEWEY_STATS,
    DEWEY_STORE,
    DEWEY_TAIL,
    SET_LEVEL,
)

DEFINITIONS: Final[Mapping[str, Definition]] = {
    DEWEY_QUERY: QUERY_TOOL,
    DEWEY_TAIL: TAIL_TOOL,
    DEWEY_STATS: STATS_TOOL,
    DEWEY_SET_LEVEL: SET_LEVEL_TOOL,
    DEWEY_GET_LEVELS: GET_LEVELS_TOOL,
    DEWEY_CLEAR: CLEAR_TOOL,
    DEWEY_PIN: PIN_TOOL,
}
"""The tools that Godot offers on its own port too."""


def dewey_tools(
    store: LogStore,
    *,
    partitions_ahead: int = 7,
    retention_days: int = 7,
    partitioned: bool = True,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    storing: Storing | None = None,
) -> list[Tool]:
    """Return the tools that work on a store.

    :param partitions_ahead: days after today that always have a partition.
    :param retention_days: days before today that get one when they have entries.
    :param partitioned: False: none is made (`LOG_PARTITION_ENABLED`).
    :param now: what relative times count from.
    :param storing: shared with the Godot of the same process, which stores without a tool.
    """
    storing = storing or Storing(store, Followers(store))
    finding = Finding(store, storing.followers, now)
    levels = LevelKeeping(store, now)
    keeping = Keeping(
        store=store,
        partitions_ahead=partitions_ahead,
        retention_days=retention_days,
        partitioned=partitioned,
        now=now,
    )
    days = f"Here these are {partitions_ahead} days to come, and {retention_days} past days."
    known = f"Godot knows of it within 10 s, and at once when it is set there ({SET_LEVEL})."
    return [
        Tool.of(STORE_TOOL, DEWEY_STORE, storing.store_batch),
        Tool.of(QUERY_TOOL, DEWEY_QUERY, finding.query),
        Tool.of(TAIL_TOOL, DEWEY_TAIL, finding.tail, more=f"Find them with {DEWEY_QUERY}."),
        Tool.of(MAINTAIN_TOOL, DEWEY_MAINTAIN, keeping.maintain, more=days),
        Tool.of(SET_LEVEL_TOOL, DEWEY_SET_LEVEL, levels.set_level, more=known),
        Tool.of(GET_LEVELS_TOOL, DEWEY_GET_LEVELS, levels.get_levels),
        Tool.of(CLEAR_TOOL, DEWEY_CLEAR, keeping.clear, more=f"The retention is {retention_days} days."),
        Tool.of(PIN_TOOL, DEWEY_PIN, keeping.pin),
        Tool.of(STATS_TOOL, DEWEY_STATS, keeping.stats),
    ]
