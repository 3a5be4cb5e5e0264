"""Moments and lengths of time, as texts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godot.entries.times import iso, iso_ns, span

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def test_a_moment_is_written_in_utc_whatever_its_offset() -> None:
    moment = datetime(2026, 11, 20, 8, 30, tzinfo=timezone(timedelta(hours=1)))
    assert iso(moment) == "2026-11-20T07:30:00.000000Z"
    assert iso(moment, "milliseconds") == "2026-11-20T07:30:00.000Z"


@given(st.integers(0, 4_000_000_000_000_000))
def test_nanoseconds_are_written_as_the_moment_is(microseconds: int) -> None:
    assert iso_ns(microseconds * 1_000 + 999) == iso(EPOCH + timedelta(microseconds=microseconds))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("2h", timedelta(hours=2)),
        ("7d", timedelta(days=7)),
        ("1w", timedelta(weeks=1)),
    ],
)
def test_a_length_of_time_is_a_number_and_a_letter(text: str, meant: timedelta) -> None:
    assert span(text) == meant


@pytest.mark.parametrize("text", ["", "30", "m", "-30m", "30 m", "1.5h", "1h30m", "1y", "999999999w", "9999999999s"])
def test_what_is_no_length_of_time_is_none(text: str) -> None:
    assert span(text) is None
