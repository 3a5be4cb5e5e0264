"""Dewey's MCP tools: the log store, as a program or an agent sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from dewey_logs.follow import Followers
from dewey_logs.store.protocol import LogStore
from dewey_logs.tools.finding import QueryArguments, TailArguments, finding_tools
from dewey_logs.tools.keeping import (
    ClearArguments,
    GetLevelsArguments,
    PinArguments,
    SetLevelArguments,
    StatsArguments,
    keeping_tools,
)
from dewey_logs.tools.storing import Storing, storing_tools
from godot.mcp.toolbox import Tool
from godot.toolnames import (
    DEWEY_CLEAR,
    DEWEY_GET_LEVELS,
    DEWEY_PIN,
    DEWEY_QUERY,
    DEWEY_SET_LEVEL,
    DEWEY_STATS,
    DEWEY_TAIL,
)

ARGUMENTS: Final[Mapping[str, type[Any]]] = {
    DEWEY_QUERY: QueryArguments,
    DEWEY_STATS: StatsArguments,
    DEWEY_TAIL: TailArguments,
    DEWEY_CLEAR: ClearArguments,
    DEWEY_PIN: PinArguments,
    DEWEY_SET_LEVEL: SetLevelArguments,
    DEWEY_GET_LEVELS: GetLevelsArguments,
}
"""What the tools take that Godot offers on its own port too."""


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
    :param storing: shared with who stores in the same process without a tool.
    """
    storing = storing or Storing(store, Followers(store))
    return [
        *storing_tools(storing),
        *finding_tools(store, storing.followers, now=now),
        *keeping_tools(
            store,
            partitions_ahead=partitions_ahead,
            retention_days=retention_days,
            partitioned=partitioned,
            now=now,
        ),
    ]
