"""Has Dewey keep its partitions, and asks for the levels; which also tells whether Dewey is there at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from godot.buffer import Notes
from godot.dewey import MAINTAIN, Dewey
from godot.errors import DeweyUnavailable
from godot.levels import Levels

INTERVAL_S: Final = 10.0
"""Partitions are made a week ahead; this short an interval keeps the status true and moves entries of a day
without partition soon after they came."""


async def run_maintenance(
    dewey: Dewey,
    levels: Levels,
    notes: Notes,
    *,
    on_failure: Callable[[DeweyUnavailable], None],
    on_success: Callable[[], None],
) -> None:
    """Ask Dewey to maintain its partitions (DEW-005), and for the levels (DEW-011), now and at every interval.

    Runs until cancelled.
    """
    while True:
        try:
            answer = await dewey.ask(MAINTAIN, {})
            if answer.is_error:
                raise DeweyUnavailable(f"Dewey: {answer.json}")
            await levels.refresh(dewey, notes)
        except DeweyUnavailable as exc:
            on_failure(exc)
        else:
            on_success()
        await trio.sleep(INTERVAL_S)
