"""A supervised task is started again while it fails, ever later, and not after it has returned."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from godot.errors import BufferUnavailable, ConfigError
from godot.service.supervise import STEADY_S, supervise


class Failing:
    """Fails as often as it is told to, each time after having run for a while, then returns."""

    def __init__(self, *errors: Exception, runs_for_s: float = 0.0) -> None:
        self.errors = list(errors)
        self.runs_for_s = runs_for_s
        self.started: list[float] = []

    async def run(self) -> None:
        self.started.append(trio.current_time())
        await trio.sleep(self.runs_for_s)
        if self.errors:
            raise self.errors.pop(0)


def exactly(delay: float) -> float:
    return delay


async def test_starts_again_after_one_two_and_four_seconds_then_returns_when_the_task_does(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-004: what talks to the outside goes on when the outside is back."""
    task = Failing(*[BufferUnavailable("Redis: away")] * 4)
    lines: list[str] = []
    await supervise("sender", task.run, report=lines.append, jitter=exactly)
    assert task.started == [0, 1, 3, 7, 15]
    assert lines == [
        f"sender failed and starts again in {pause}.0 s: BufferUnavailable('Redis: away')" for pause in (1, 2, 4, 8)
    ]


async def test_a_bug_is_reported_and_survived_too(autojump_clock: trio.testing.MockClock) -> None:
    lines: list[str] = []
    await supervise("sender", Failing(KeyError("oops")).run, report=lines.append, jitter=exactly)
    assert lines == ["sender failed and starts again in 1.0 s: KeyError('oops')"]


async def test_never_waits_longer_than_thirty_seconds(autojump_clock: trio.testing.MockClock) -> None:
    task = Failing(*[ValueError()] * 9)
    await supervise("sender", task.run, report=lambda _: None, jitter=exactly)
    pauses = [later - earlier for earlier, later in zip(task.started, task.started[1:], strict=False)]
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30, 30]


async def test_a_task_that_ran_well_for_a_minute_starts_again_as_after_its_first_failure(
    autojump_clock: trio.testing.MockClock,
) -> None:
    task = Failing(*[ValueError()] * 3, runs_for_s=STEADY_S)
    await supervise("sender", task.run, report=lambda _: None, jitter=exactly)
    assert task.started == [0, 61, 122, 183]


async def test_a_task_that_ran_for_less_than_a_minute_does_not(autojump_clock: trio.testing.MockClock) -> None:
    task = Failing(*[ValueError()] * 3, runs_for_s=STEADY_S - 1)
    await supervise("sender", task.run, report=lambda _: None, jitter=exactly)
    assert task.started == [0, 60, 121, 184]


async def test_a_fault_of_the_operators_ends_it_because_trying_again_does_not_mend_that(
    autojump_clock: trio.testing.MockClock,
) -> None:
    task = Failing(ConfigError("REDIS_URL: no"))
    with pytest.raises(ConfigError):
        await supervise("sender", task.run, report=lambda _: None)
    assert task.started == [0]


async def test_cancelled_it_ends_at_once_and_reports_nothing(autojump_clock: trio.testing.MockClock) -> None:
    lines: list[str] = []
    with trio.move_on_after(5):
        await supervise("sender", trio.sleep_forever, report=lines.append)
    assert trio.current_time() == 5
    assert lines == []
