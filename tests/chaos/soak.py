"""The soak: `python -m tests.chaos.soak --minutes 20 --rate 2000`.

A steady load without faults, and what each process holds meanwhile: memory, file descriptors, threads. Exit code 1
when an entry was lost or doubled, the load was not reached, or, in ten minutes or more, something grew.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import attrs
import click
import trio

from tests.chaos.__main__ import keep
from tests.chaos.clients import Load
from tests.chaos.ledger import Ledger, Verdict
from tests.chaos.run import ACK_S, DRY_S, is_dry
from tests.chaos.series import HEADER, MIB, WARM_UP_SHARE, Series
from tests.chaos.system import System, running_system
from tests.programs import Workplace, until, workplace

SAMPLE_S: Final = 2.0
PROGRESS_S: Final = 30.0

JUDGED_S: Final = 600.0
"""A shorter run shows slopes and judges none: it is all warm-up."""


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
