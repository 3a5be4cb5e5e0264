"""The partitions of `logs`: which days get one, its name, and where it begins and ends.

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

    Yesterday's is among them because entries that Redis held over midnight arrive late.
    """
    return [Partition(today + timedelta(days=offset)) for offset in range(-1, ahead_days + 1)]


def on_demand(today: date, *, ahead_days: int, retention_days: int) -> tuple[datetime, datetime]:
    """Return the span (start, end) of the days that get a partition once they have an entry.

    Entries older than the retention are about to be deleted, and entries further ahead come from a wrong clock: both
    stay in the default partition.
    """
    return Partition(today - timedelta(days=retention_days)).start, Partition(today + timedelta(days=ahead_days)).end
