"""Deletes old entries by itself (DEW-009).

Deleted entries are gone for ever, and a clock may be wrong. So age is counted from the slower of two clocks, ours and
the database's; and when more days than usual would go at once, an operator has an hour to put a clock right.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs
import trio

from dewey_logs.clearing import Clearing, end_of_retention
from dewey_logs.daily import run_daily
from dewey_logs.store.protocol import LogStore

DAYS_AT_ONCE: Final = 2
"""More days than this need a second look. One is usual, two come after a night without Dewey."""

SECOND_LOOK_S: Final = 3_600.0
"""Between the two looks, by trio's clock, which does not jump."""

BY: Final = "retention"


@attrs.frozen
class _Held:
    """What the first look found.

    :param before: entries that happened earlier would go.
    :param since: the time of that look, by trio's clock.
    """

    before: datetime
    since: float


async def run_retention(
    store: LogStore,
    retention_days: int,
    *,
    tell: Callable[[int, str], None],
    hold: Callable[[int, str], None],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Delete what is older than the retention: at the start, every hour, and when a UTC day begins.

    Runs until cancelled. When the store is away, it tries again a minute later. Several Deweys may do this at once.

    :param tell: called when entries went: how many, and the time before which they had happened.
    :param hold: called when too many days would go at once: how many, and before what time. They go at the second
        look, if that finds the same.
    """
    held: _Held | None = None

    async def let_go() -> None:
        nonlocal held
        clearing = Clearing(before=end_of_retention(min(now(), await store.now()), retention_days))
        days = await store.doomed_days(clearing)
        if days > DAYS_AT_ONCE:
            before = datetime.fromisoformat(str(clearing.before))
            if held is None or before > held.before + timedelta(days=1):
                held = _Held(before, trio.current_time())
                hold(days, str(clearing.before))
            if trio.current_time() - held.since < SECOND_LOOK_S:
                return
        held = None
        if days:
            tell(await store.clear(clearing, by=BY), str(clearing.before))

    await run_daily(let_go, now)
