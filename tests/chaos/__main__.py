"""The long run: `python -m tests.chaos --seconds 1200 --seed 1`.

Exit code 1 when anything was lost, stored twice, or is otherwise not as promised.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import attrs
import click
import trio

from tests.chaos.hostile.crew import Crowd
from tests.chaos.run import Plan, Report, run_chaos
from tests.programs import Workplace, workplace


@click.command()
@click.option("--seconds", type=click.FloatRange(min=20), default=1200, show_default=True)
@click.option("--seed", type=int, help="The seed of a run to be done again; a new one by default.")
@click.option("--rate", type=float, default=800, show_default=True, help="Entries a second.")
@click.option("--daemons", type=click.IntRange(1, 9), default=1, show_default=True, help="Godots on one Redis.")
@click.option("--hostile/--no-hostile", default=True, show_default=True, help="Clients that mean no good, too.")
@click.option("--only", multiple=True, help="How the names of hostile kinds begin that come; all by default.")
@click.option("--kept", is_flag=True, help="Keep what the programs said also when all is well.")
@click.option("--faults/--no-faults", default=True, show_default=True, help="Kill, stop and cut.")
def main(
    seconds: float,
    seed: int | None,
    rate: float,
    daemons: int,
    hostile: bool,
    only: tuple[str, ...],
    faults: bool,
    kept: bool,
) -> None:
    """Kill, stop and cut off every part of Godot under load, and compare what is stored with what was promised."""
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    crowd = Crowd(only=only) if hostile else None
    plan = Plan.of_seconds(seconds, seed=seed, rate=rate, daemons=daemons, crowd=crowd)
    if not faults:
        plan = attrs.evolve(plan, faults=0)
    tell = partial(click.echo)
    tell(f"seed {seed}: {plan}")
    with workplace() as place:
        try:
            report: Report = trio.run(run_chaos, place, plan, tell)
        except BaseException:
            tell(f"seed {seed}: what the programs said is in {keep(place)}")
            raise
        if report.problems or kept:
            tell(f"what the programs said is in {keep(place)}")
    for line in report.lines():
        tell(line)
    sys.exit(1 if report.problems else 0)


def keep(place: Workplace) -> Path:
    """Copy what the programs and servers said to where it stays, and return where."""
    kept = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    for path in (*place.path.glob("*.out"), *place.path.glob("*.err"), *place.path.glob("*/*.log")):
        shutil.copy(path, kept)
    return kept


if __name__ == "__main__":
    main()
