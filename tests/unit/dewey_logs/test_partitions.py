"""Tests of the partitions' arithmetic."""

from __future__ import annotations

from datetime import UTC, date, datetime

from dewey_logs.store.partitions import Partition, on_demand, standing

TODAY = date(2026, 11, 20)


def test_a_partition_is_named_after_its_day() -> None:
    assert Partition(TODAY).name == "logs_2026_11_20"
    assert Partition(date(987, 1, 2)).name.startswith("logs_")


def test_a_partition_covers_its_utc_day_and_not_the_next_midnight() -> None:
    partition = Partition(date(2026, 12, 31))
    assert partition.start == datetime(2026, 12, 31, tzinfo=UTC)
    assert partition.end == datetime(2027, 1, 1, tzinfo=UTC)


def test_partitions_stand_from_yesterday_to_so_many_days_ahead() -> None:
    """DEW-005."""
    assert [each.day for each in standing(TODAY, ahead_days=2)] == [
        date(2026, 11, 19),
        date(2026, 11, 20),
        date(2026, 11, 21),
        date(2026, 11, 22),
    ]


def test_other_days_get_one_on_demand_within_the_retention() -> None:
    """DEW-005."""
    assert on_demand(TODAY, ahead_days=7, retention_days=7) == (
        datetime(2026, 11, 13, tzinfo=UTC),
        datetime(2026, 11, 28, tzinfo=UTC),
    )


def test_partitions_sort_by_day() -> None:
    later, earlier = Partition(TODAY), Partition(date(2025, 12, 1))
    assert sorted([later, earlier]) == [earlier, later]
