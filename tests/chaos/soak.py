"""The soak: `python -m tests.chaos.soak --minutes 20 --rate 2000`.

A steady load without faults, and what each process holds meanwhile: memory, file descriptors, threads. Exit code 1
when an entry was lost or doubled, the load was not reached, or, in ten minutes or more, something grew.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Final

import attrs
import click
import trio

from tests.acceptance.programs import Workplace, until, workplace
from tests.chaos.__main__ import keep
from tests.chaos.clients import Load
from tests.chaos.ledger import Ledger, Verdict
from tests.chaos.run import ACK_S, DRY_S, is_dry
from tests.chaos.system import System, running_system

SAMPLE_S: Final = 2.0
PROGRESS_S: Final = 30.0

WARM_UP_SHARE: Final = 0.25
"""Of the time; what was taken in it (caches, a connection's first buffers) is no growth."""

SLOPE_MAX: Final = 0.5
"""MiB a minute that memory may grow: what a pool breathes over 15 minutes."""

JUDGED_S: Final = 600.0
"""A shorter run shows slopes and judges none: it is all warm-up."""

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


@attrs.define(eq=False)
class Report:
    """What came of it."""

    entries: int
    seconds: float
    verdict: Verdict
    series: Sequence[Series]
    refusals: Counter[str]
    problems: list[str]

    def lines(self) -> Iterator[str]:
        """Yield the report."""
        rate = self.entries / self.seconds
        yield f"entries   {self.entries} acknowledged in {self.seconds:.0f} s, {rate:.0f} a second"
        yield f"stored    {self.verdict.stored}, lost {len(self.verdict.lost)}, doubled {len(self.verdict.doubled)}"
        for reason, times in self.refusals.most_common():
            yield f"refused   {times} calls: {reason}…"
        yield f"memory after the first {WARM_UP_SHARE:.0%} of the time; shared memory is not in it"
        yield HEADER
        for series in self.series:
            yield series.row()
        for problem in self.problems:
            yield f"PROBLEM   {problem}"


async def run_soak(place: Workplace, minutes: float, rate: float, tell: Callable[[str], None]) -> Report:
    """Log at a steady rate, look at every process meanwhile, and compare what is stored."""
    ledger = Ledger()
    rng = random.Random(1)
    async with running_system(place, rng) as system:
        series = [Series(name) for name in ("godot", "dewey", "redis", "postgres")]
        load = Load(rate, ledger, system.client_urls, lambda _: None)
        began = trio.current_time()
        async with trio.open_nursery() as watchers:
            watchers.start_soon(_sample, system, series)
            watchers.start_soon(_tell_progress, tell, ledger, series)
            async with trio.open_nursery() as clients:
                clients.start_soon(load.run, rng)
                await trio.sleep(minutes * 60)
                seconds = trio.current_time() - began
                load.pause()
                await until(lambda: load.idle, ACK_S)
                load.stop()
            watchers.cancel_scope.cancel()
        await until(partial(is_dry, system), DRY_S)
        verdict = await trio.to_thread.run_sync(ledger.compare, system.postgres.url)
    problems = [*verdict.problems(), *load.surprises, *system.problems(), *system.notes]
    entries = ledger.entries
    if entries < 0.95 * rate * minutes * 60:
        problems.append(f"the load was not reached: {entries / seconds:.0f} entries a second, not {rate:.0f}")
    if seconds >= JUDGED_S:
        problems += [problem for each in series for problem in each.problems()]
    return Report(entries, seconds, verdict, series, load.refusals, problems)


async def _sample(system: System, series: Sequence[Series]) -> None:
    while True:
        for each in series:
            each.take(trio.current_time(), system.pids(each.name))
        await trio.sleep(SAMPLE_S)


async def _tell_progress(tell: Callable[[str], None], ledger: Ledger, series: Sequence[Series]) -> None:
    while True:
        await trio.sleep(PROGRESS_S)
        memory = ", ".join(f"{each.name} {each.samples[-1].memory / MIB:.1f} MiB" for each in series if each.samples)
        tell(f"{ledger.entries} entries; {memory}")


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


@click.command()
@click.option("--minutes", type=float, default=20, show_default=True)
@click.option("--rate", type=float, default=2000, show_default=True, help="Entries a second.")
def main(minutes: float, rate: float) -> None:
    """Log at a steady rate, and show what each process holds meanwhile."""
    with workplace() as place:
        report: Report = trio.run(run_soak, place, minutes, rate, click.echo)
        if report.problems:
            click.echo(f"what the programs said is in {keep(place)}")
    for line in report.lines():
        click.echo(line)
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
