"""Lets entries go by themselves when they are old (DEW-009).

What goes is gone for ever, and a clock may be wrong: so it counts from the slower of two clocks, ours and the
database's, and when more days than usual would go at once, an operator has an hour to put a clock right.
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
"""So many days go without a second look: one is usual, two after a night without Dewey."""

SECOND_LOOK_S: Final = 3_600.0
"""By trio's clock, which does not jump."""

BY: Final = "retention"


@attrs.frozen
class _Held:
    """What would have gone at the first look."""

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

    Runs until cancelled. When the store is away it is tried again a minute later. Several Deweys may do it at once.

    :param tell: gets how many entries went, and before when they happened; only when some did.
    :param hold: gets how many days would go, and before when; they go at a second look, if that finds the same.
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
