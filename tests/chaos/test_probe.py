"""What the bystander calls a silence, and what it excuses."""

from __future__ import annotations

import pytest

from tests.chaos.probe import Record, Result

SILENCE_S = 5.0


def record(*results: tuple[Result, float]) -> Record:
    """Take results, each with the end of the last disturbance as it was known then."""
    record = Record(SILENCE_S)
    for result, disturbed in results:
        record.take(result, disturbed)
    return record


def yes(at: float) -> Result:
    return Result(at, at + 0.1, answered=True, acknowledged=True)


def no(at: float) -> Result:
    return Result(at, at + 1.0, answered=True, acknowledged=False)


def nothing(at: float) -> Result:
    return Result(at, at + SILENCE_S, answered=False, acknowledged=False)


def test_answers_in_time_are_no_problem() -> None:
    assert list(record((yes(1), 0.0), (no(2), 0.0), (yes(3), 0.0)).problems()) == []


def test_a_call_that_is_not_answered_is_a_problem() -> None:
    (problem,) = record((yes(1), 0.0), (yes(2), 0.0), (nothing(3), 0.0)).problems()
    assert problem.startswith("the bystander was not answered 1 times")


def test_a_time_in_which_all_is_refused_is_a_silence() -> None:
    refused = [(no(at), 0.0) for at in (3, 4, 5, 6, 7, 8)]
    (problem,) = record((yes(1), 0.0), (yes(2), 0.0), *refused, (yes(9), 0.0)).problems()
    assert problem.startswith("the bystander heard nothing for 7.0 s")


@pytest.mark.parametrize(
    ("at", "disturbed"),
    [(3, 8.0), (3, 4.0), (4, 3.5)],
    ids=["the fault goes on", "the fault is over", "nothing was acknowledged since"],
)
def test_a_fault_excuses(at: float, disturbed: float) -> None:
    known = record((yes(1), 0.0), (yes(2), 0.0), (nothing(at), disturbed), (yes(20), disturbed), (yes(21), disturbed))
    assert list(known.problems()) == []
    assert known.unanswered == 0
    assert known.slowest_recovery_s == 20.1 - disturbed


def test_after_the_first_acknowledgement_a_fault_excuses_no_more() -> None:
    known = record((yes(1), 0.0), (nothing(2), 3.0), (yes(8), 3.0), (nothing(9), 3.0), (yes(15), 3.0))
    assert known.unanswered == 1


def test_a_fault_excuses_not_for_ever() -> None:
    (problem,) = record((yes(1), 0.0), (yes(2), 0.0), *((nothing(at), 3.0) for at in range(4, 80, 5))).problems()
    assert problem.endswith("s after a fault had ended")
