"""Lets entries go by themselves when they are old (DEW-009)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import trio

from dewey_logs.clearing import Clearing, end_of_retention
from dewey_logs.store import LogStore
from godot.errors import StoreUnavailable

LOOK_S: Final = 60.0
"""How often the clock is looked at, which may jump: a change of the day is found within that time."""

EVERY: Final = timedelta(hours=1)

BY: Final = "retention"


async def run_retention(
    store: LogStore,
    retention_days: int,
    *,
    tell: Callable[[int, str], None],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Delete what is older than the retention: at the start, every hour, and when a UTC day begins.

    Runs until cancelled. When the store is away it is tried again a minute later. Several Deweys may do it at once.

    :param tell: gets how many entries went, and before when they happened; only when some did.
    """
    last: datetime | None = None
    while True:
        instant = now().astimezone(UTC)
        if last is None or abs(instant - last) >= EVERY or instant.date() != last.date():
            try:
                clearing = Clearing(before=end_of_retention(instant, retention_days))
                if await store.clear(clearing, by=BY, dry_run=True):
                    tell(await store.clear(clearing, by=BY), str(clearing.before))
                last = instant
            except StoreUnavailable:
                pass  # those who store notice, and tell
        await trio.sleep(LOOK_S)
