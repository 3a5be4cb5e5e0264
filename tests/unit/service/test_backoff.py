"""How long is waited before the next try: doubling, bounded, never together with others."""

from __future__ import annotations

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from godot.service.backoff import MAX_DELAY_S, delays, jittered


def exactly(delay: float) -> float:
    return delay


def test_each_delay_is_twice_the_one_before_up_to_thirty_seconds() -> None:
    """REL-002: Dewey is probed with a delay growing to 30 s."""
    assert list(islice(delays(1.0, jitter=exactly), 8)) == [1, 2, 4, 8, 16, 30, 30, 30]


def test_the_longest_delay_can_be_chosen() -> None:
    assert list(islice(delays(0.5, longest=2.0, jitter=exactly), 5)) == [0.5, 1, 2, 2, 2]


def test_a_first_delay_beyond_the_longest_is_cut_to_it() -> None:
    assert list(islice(delays(45.0, jitter=exactly), 2)) == [MAX_DELAY_S, MAX_DELAY_S]


def test_the_jitter_is_applied_to_every_delay_and_does_not_add_up() -> None:
    assert list(islice(delays(1.0, jitter=lambda delay: delay / 2), 7)) == [0.5, 1, 2, 4, 8, 15, 15]


@given(st.floats(min_value=0.001, max_value=30.0))
def test_jitter_shortens_by_at_most_a_half_and_never_lengthens(delay: float) -> None:
    assert delay / 2 <= jittered(delay) <= delay


def test_two_that_failed_together_do_not_return_together() -> None:
    """REL-002: the backoff has jitter unless a test takes it away."""
    assert len({next(delays(1.0)) for _ in range(20)}) > 1
