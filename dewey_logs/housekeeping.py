"""Dewey's MCP tools beside storing and finding: how much there is."""

from __future__ import annotations

from typing import Final

import attrs

from dewey_logs.store import LogStore
from godot.entries import LEVELS
from godot.mcp.tools import Answer, Tool

MAX_COMPONENTS: Final = 1_000
"""An answer must stay under 1 MiB, whatever components call themselves."""


@attrs.frozen
class StatsArguments:
    """Arguments of `dewey_get_log_stats`: none."""


def housekeeping_tools(store: LogStore) -> list[Tool]:
    """Return the tools that look after what a store has."""

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

    return [
        Tool(
            name="dewey_get_log_stats",
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
