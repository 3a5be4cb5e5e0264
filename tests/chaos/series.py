"""What the processes of a part of the system hold while a run goes on: memory, file descriptors, threads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Final

import attrs

WARM_UP_SHARE: Final = 0.25
"""Of the time; what was taken in it (caches, a connection's first buffers) is no growth."""

SLOPE_MAX: Final = 0.5
"""MiB a minute that memory may grow: what a pool breathes over 15 minutes."""

SLOPE_SAMPLES: Final = 100
"""Between each two of so many the slope is taken."""

SPARE: Final = 1.25
"""So much more of descriptors and threads may be there in the last quarter than in the first: clients come and go."""

MIB: Final = 1024 * 1024


@attrs.frozen
class Sample:
    """What the processes of a part hold together.

    :param memory: resident bytes, without shared memory.
    """

    at: float
    memory: int
    descriptors: int
    threads: int
    processes: int


@attrs.define(eq=False)
class Series:
    """The samples of one part of the system."""

    name: str
    samples: list[Sample] = attrs.Factory(list)

    def take(self, at: float, pids: Sequence[int]) -> None:
        """Take a sample, unless a process ends while it is looked at."""
        with suppress(OSError, KeyError):  # one that is dead and not yet waited for has no memory
            status = [_status(pid) for pid in pids]
            self.samples.append(
                Sample(
                    at,
                    sum(each["RssAnon"] + each["RssFile"] for each in status) * 1024,
                    sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
                    sum(each["Threads"] for each in status),
                    len(pids),
                )
            )

    def steady(self) -> list[Sample]:
        """Return the samples after the warm-up."""
        began, ended = self.samples[0].at, self.samples[-1].at
        return [sample for sample in self.samples if sample.at >= began + WARM_UP_SHARE * (ended - began)]

    def slope(self) -> float:
        """Return the bytes a second by which memory grew after the warm-up."""
        return _slope(self.steady())

    def problems(self) -> Iterator[str]:
        """Yield a line for each thing that grew. What grows does so in both halves; a step, such as another
        connection of a pool, is in one of them.
        """
        steady = self.steady()
        half, quarter = len(steady) // 2, len(steady) // 4
        if min(_slope(steady[:half]), _slope(steady[half:])) * 60 > SLOPE_MAX * MIB:
            yield f"the memory of {self.name} grows"
        for what in ("descriptors", "threads"):
            first, last = (
                median(getattr(each, what) for each in some) for some in (steady[:quarter], steady[-quarter:])
            )
            if last > SPARE * first:
                yield f"{self.name} has more {what} at the end: {last:g}, not {first:g}"

    def peak(self) -> str:
        """Return a line about its memory."""
        if not self.samples:
            return f"{self.name}: never seen"
        most = max(sample.memory for sample in self.samples) / MIB
        middle = median(sample.memory for sample in self.samples) / MIB
        quarter = len(self.samples) // 4 + 1
        quarters = [self.samples[start : start + quarter] for start in range(0, len(self.samples), quarter)]
        # A program that is killed now and then has no trend; but one that grows has higher peaks.
        peaks = ", ".join(f"{max(sample.memory for sample in each) / MIB:.0f}" for each in quarters)
        return f"{self.name}: peak {most:.0f} MiB, median {middle:.0f}; the peaks of each quarter {peaks}"

    def over(self, most_mib: float) -> Iterator[str]:
        """Yield a line if it ever held more than that."""
        if max((sample.memory for sample in self.samples), default=0) > most_mib * MIB:
            yield f"memory of {self.peak()}; at most {most_mib:.0f} are allowed"

    def row(self) -> str:
        """Return a line of the table."""
        steady = self.steady()
        return (
            f"{self.name:<10}{steady[0].memory / MIB:>9.1f}{steady[-1].memory / MIB:>9.1f}"
            f"{max(sample.memory for sample in self.samples) / MIB:>9.1f}{self.slope() * 3600 / MIB:>+13.2f}"
            f"{_range(sample.descriptors for sample in steady):>13}{_range(sample.threads for sample in steady):>9}"
            f"{_range(sample.processes for sample in steady):>11}"
        )


HEADER: Final = (
    f"{'':<10}{'MiB then':>9}{'now':>9}{'peak':>9}{'MiB an hour':>13}{'descriptors':>13}{'threads':>9}{'processes':>11}"
)


def _slope(samples: Sequence[Sample]) -> float:
    """Return the median of the slopes between any two samples (Theil and Sen): a peak does not make a trend."""
    some = samples[:: max(1, len(samples) // SLOPE_SAMPLES)]
    slopes = [(late.memory - early.memory) / (late.at - early.at) for early, late in combinations(some, 2)]
    return median(slopes) if slopes else 0.0


def _status(pid: int) -> dict[str, int]:
    with Path(f"/proc/{pid}/status").open() as file:
        words = [line.split() for line in file]
    return {each[0].rstrip(":"): int(each[1]) for each in words if len(each) > 1 and each[1].isdigit()}


def _range(numbers: Iterator[int]) -> str:
    seen = sorted(numbers)
    return str(seen[0]) if seen[0] == seen[-1] else f"{seen[0]}-{seen[-1]}"
