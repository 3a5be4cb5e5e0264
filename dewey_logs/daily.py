"""Does what a store needs every day: at the start, and soon after a UTC day begins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import trio

from godot.errors import StoreUnavailable

LOOK_S: Final = 60.0
"""How often to look at the clock. It may jump; a new day is noticed within this time."""

EVERY: Final = timedelta(hours=1)


async def run_daily(work: Callable[[], Awaitable[None]], now: Callable[[], datetime]) -> None:
    """Do some work at the start, every hour, and when a UTC day begins. Runs until cancelled.

    When the store is away or busy, the work is tried again a minute later.
    """
    last: datetime | None = None
    while True:
        instant = now().astimezone(UTC)
        if last is None or abs(instant - last) >= EVERY or instant.date() != last.date():
            try:
                await work()
                last = instant
            except StoreUnavailable:
                pass  # storing meets the same trouble, and reports it
        await trio.sleep(LOOK_S)
