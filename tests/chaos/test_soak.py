"""When the soak says that something grew: by a trend, not by a step or a peak."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chaos.series import MIB, Sample, Series

MINUTES = 20


def series(memory: Callable[[float], float], descriptors: Callable[[float], float] = lambda _: 30) -> Series:
    """Make the samples of a run, of functions of the minutes that have gone by."""
    samples = [
        Sample(2.0 * n, int(memory(n / 30) * MIB), int(descriptors(n / 30)), threads=4, processes=1)
        for n in range(30 * MINUTES)
    ]
    return Series("godot", samples)


@pytest.mark.parametrize(
    "memory",
    [
        lambda minute: 60.0,
        lambda minute: 60.0 + 8 * (minute > 13),
        lambda minute: 60.0 + 40 * (13 < minute < 14),
        lambda minute: 60.0 + 20 * min(1, minute / 4),
        lambda minute: 60.0 + 3 * (minute * 5 % 2),
    ],
    ids=["flat", "a step", "a peak", "the warm-up", "to and fro"],
)
def test_what_does_not_go_on_is_no_growth(memory: Callable[[float], float]) -> None:
    assert list(series(memory).problems()) == []


def test_a_leak_is_found() -> None:
    """PERF-10.3: 1 MiB a minute is 1.4 GiB a day."""
    (problem,) = series(lambda minute: 60 + minute + 3 * (minute * 5 % 2)).problems()
    assert problem == "the memory of godot grows"


def test_descriptors_that_are_never_closed_are_found() -> None:
    (problem,) = series(lambda _: 60, lambda minute: 30 + minute).problems()
    assert problem.startswith("godot has more descriptors at the end")
