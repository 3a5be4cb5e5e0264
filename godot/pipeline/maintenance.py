"""Has Dewey keep its partitions, and asks for the levels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final

import trio

from godot.buffer.protocol import LevelNotes
from godot.errors import DeweyUnavailable
from godot.pipeline.dewey import Dewey
from godot.pipeline.levels import Levels
from godot.service.backoff import delays
from godot.toolnames import DEWEY_MAINTAIN

INTERVAL_S: Final = 10.0
"""Partitions are made a week ahead. The interval is short for entries of a day that has no partition: they are moved
soon after they came."""

BUSY_FIRST_S: Final = 20.0
BUSY_LONGEST_S: Final = 600.0
"""Maintenance needs `logs` for itself for a moment. It waits for those who read, and all others wait behind it. So it
waits longer after each refusal: partitions are there for a week, and a long report or a backup has to end first."""


async def run_maintenance(
    dewey: Dewey,
    levels: Levels,
    notes: LevelNotes,
    *,
    on_failure: Callable[[DeweyUnavailable], None],
    on_success: Callable[[], None],
) -> None:
    """Ask Dewey to maintain its partitions (DEW-005), and for the levels (DEW-011), now and at every interval.

    Runs until cancelled.
    """
    busy = _busy()
    not_before = -math.inf
    while True:
        try:
            if trio.current_time() >= not_before:
                answer = await dewey.ask(DEWEY_MAINTAIN, {})
                if not answer.is_error:
                    busy = _busy()
                elif (answer.value or {}).get("kind") == "busy":
                    not_before = trio.current_time() + next(busy)
                else:
                    raise DeweyUnavailable(f"Dewey: {answer.json}")
            await levels.refresh(dewey, notes)
        except DeweyUnavailable as exc:
            on_failure(exc)
        else:
            on_success()
        await trio.sleep(INTERVAL_S)


def _busy() -> Iterator[float]:
    return delays(BUSY_FIRST_S, longest=BUSY_LONGEST_S, jitter=lambda delay: delay)
