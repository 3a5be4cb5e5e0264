"""The partitions of `logs`: which days there are to be, what each is called, where it begins and ends.

Pure date arithmetic. A day is a UTC day, whatever the time zones of the server and of this process.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

import attrs


@attrs.frozen(order=True)
class Partition:
    """One day's partition."""

    day: date

    @property
    def name(self) -> str:
        """Name of the table, such as `logs_2026_11_20`."""
        return f"logs_{self.day:%Y_%m_%d}"

    @property
    def start(self) -> datetime:
        """First instant of the day."""
        return datetime.combine(self.day, time(), UTC)

    @property
    def end(self) -> datetime:
        """First instant of the next day."""
        return self.start + timedelta(days=1)


def standing(today: date, *, ahead_days: int) -> list[Partition]:
    """Return the partitions that always stand ready, from yesterday's to that of so many days ahead.

    Yesterday's too, because what Redis held over midnight arrives late.
    """
    return [Partition(today + timedelta(days=offset)) for offset in range(-1, ahead_days + 1)]


def on_demand(today: date, *, ahead_days: int, retention_days: int) -> tuple[datetime, datetime]:
    """Return the span (start, end) of the days that get a partition as soon as they have an entry.

    What is older than the retention is about to be deleted, what lies further ahead is the mistake of
    somebody's clock: both stay in the default partition.
    """
    return Partition(today - timedelta(days=retention_days)).start, Partition(today + timedelta(days=ahead_days)).end
