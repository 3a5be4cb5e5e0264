"""A short storm: each kind of fault and of hostile client once and more, in a minute."""

from __future__ import annotations

import trio

from tests.chaos.hostile.crew import Crowd
from tests.chaos.run import Plan, run_chaos
from tests.programs import Workplace

LONGEST_S = 400.0
"""It takes 70 s; a machine may be busy, and a calm may have to wait for the sender's longest pause, 30 s."""

PLAN = Plan(
    seed=4,
    storms=1,
    storm_s=52.0,
    calm_s=6.0,
    faults=26,
    rate=300,
    longest_hole_s=5.0,
    crowd=Crowd.small(),
    silence_s=20.0,
)


async def test_what_was_acknowledged_is_stored_once_and_in_order_whatever_dies_and_whenever(place: Workplace) -> None:
    """REL-001, REL-002, REL-004, REL-005, and LIM-001: hostile clients are among the others. To do it again: the seed
    is in the plan that is shown.
    """
    said: list[str] = []
    with trio.fail_after(LONGEST_S):
        report = await run_chaos(place, PLAN, said.append)
    assert not report.problems, "\n".join([str(PLAN), *report.lines(), *said])
    assert report.faults.total() >= 20
    assert report.ledger.entries > 1_000
    assert report.crew is not None
    assert not [kind for kind, outcomes in report.crew.outcomes.items() if not outcomes.total()]
