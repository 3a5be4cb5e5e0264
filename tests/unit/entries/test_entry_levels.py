"""Levels in their order, as they are written, and when a setting of one ends."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from godot.entries.levels import LEVELS, LevelSetting, levels_from, parse_level
from godot.errors import EntryRejected

HALF_PAST_EIGHT = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)


def test_a_level_is_read_in_any_case() -> None:
    assert parse_level("trace") == "TRACE"


def test_what_is_no_level_is_refused_with_the_one_that_was_probably_meant() -> None:
    with pytest.raises(EntryRejected, match=r"^level: must be one of ERROR, WARN, INFO, DEBUG, TRACE, .*ERROR"):
        parse_level("EROR")


def test_a_level_takes_the_more_severe_ones_along() -> None:
    assert levels_from("INFO") == ("ERROR", "WARN", "INFO")
    assert levels_from("TRACE") == LEVELS


def test_a_setting_ends_when_it_says_or_never() -> None:
    assert LevelSetting("WARN").ends == math.inf
    assert LevelSetting("WARN", "2026-11-20T08:30:00.000000Z").ends == HALF_PAST_EIGHT.timestamp()
