"""Maintenance asks Dewey at once and at every interval, whatever Dewey said before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import trio
import trio.testing

from godot.buffer.memory import MemoryBuffer
from godot.errors import DeweyUnavailable, StoreBusy, StoreUnavailable
from godot.mcp.toolbox import Answer
from godot.pipeline.levels import Levels
from godot.pipeline.maintenance import INTERVAL_S, run_maintenance
from godot.toolnames import DEWEY_GET_LEVELS, DEWEY_MAINTAIN


class Asked:
    """A Dewey that gives the answers it was given, then says that all is well."""

    def __init__(self, *answers: Answer | DeweyUnavailable) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[float, str, Mapping[str, Any]]] = []

    async def store(self, entries: Sequence[bytes]) -> None:
        raise AssertionError("maintenance stores nothing")

    async def ask(self, tool: str, arguments: Mapping[str, Any], *, wait_s: float = 0.0) -> Answer:
        if tool == DEWEY_GET_LEVELS:
            return Answer.of({"levels": {}})
        self.asked.append((trio.current_time(), tool, arguments))
        answer = self.answers.pop(0) if self.answers else Answer.of({"created": []})
        if isinstance(answer, DeweyUnavailable):
            raise answer
        return answer


async def maintain_for(duration_s: float, dewey: Asked) -> list[str]:
    """Return what maintenance reported in that time."""
    reported: list[str] = []
    with trio.move_on_after(duration_s):
        await run_maintenance(
            dewey,
            Levels(),
            MemoryBuffer(1),
            on_failure=lambda exc: reported.append(str(exc)),
            on_success=lambda: reported.append("well"),
        )
    return reported


async def test_asks_at_once_and_at_every_interval(autojump_clock: trio.testing.MockClock) -> None:
    """DEW-005: partitions are made ahead of time by a task of Godot's."""
    dewey = Asked()
    assert await maintain_for(3 * INTERVAL_S - 1, dewey) == ["well"] * 3
    assert dewey.asked == [(0, DEWEY_MAINTAIN, {}), (10, DEWEY_MAINTAIN, {}), (20, DEWEY_MAINTAIN, {})]


async def test_reports_a_dewey_that_is_away_and_asks_again_at_the_next_interval(
    autojump_clock: trio.testing.MockClock,
) -> None:
    dewey = Asked(DeweyUnavailable("Dewey: cannot connect"))
    assert await maintain_for(INTERVAL_S + 1, dewey) == ["Dewey: cannot connect", "well"]
    assert [when for when, _, _ in dewey.asked] == [0, 10]


async def test_an_answer_that_is_an_error_is_a_failure_too(autojump_clock: trio.testing.MockClock) -> None:
    dewey = Asked(Answer.error(StoreUnavailable("PostgreSQL: away")))
    assert await maintain_for(1, dewey) == ["Dewey: PostgreSQL: away"]


async def test_a_reader_who_keeps_the_table_busy_is_not_dewey_being_down_and_is_left_alone_ever_longer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    busy = Answer.error(StoreBusy("PostgreSQL: canceling statement due to lock timeout"))
    dewey = Asked(busy, busy, busy)
    assert set(await maintain_for(300, dewey)) == {"well"}
    assert [when for when, _, _ in dewey.asked][:5] == [0, 20, 60, 140, 150]
