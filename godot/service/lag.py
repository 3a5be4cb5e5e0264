"""Measures how late the event loop is: while one task runs, no other does, and no client is answered (LIM-001).

A heartbeat on the loop measures its own lateness. While it is missing, a thread looks at what runs, so that the line
about a long lag can name it. Nothing is recorded for a call.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import trio
from prometheus_client import CollectorRegistry, Histogram

BEAT_S: Final = 0.05
LONG_S: Final = 1.0
"""A lag of this length, or longer, is worth a line."""

POLL_S: Final = 0.25
"""How often the thread looks."""

MEANING: Final = "How much later than it should the event loop came to a task; all clients wait so long."

LAGS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Buckets. A histogram and no gauge of the worst: it includes all between two scrapes, and several may scrape it."""

_OURS: Final = Path(__file__).parents[2]


class Watchdog:
    """Measures the lag of the loop that it runs in.

    :param name: of the program: the first word of the metric.
    :param tell: writes a status line; called with the event and its fields.
    """

    def __init__(self, registry: CollectorRegistry, name: str, tell: Callable[..., None]) -> None:
        self._lag_s = Histogram(
            f"{name}_event_loop_lag_seconds",
            MEANING,
            buckets=LAGS,
            registry=registry,
        )
        self._tell = tell
        self.beat = time.monotonic()
        """The time of the last heartbeat."""
        self.seen = ""
        """The task that the thread has seen running since the last beat."""
        self._ended = threading.Event()

    async def run(self) -> None:
        """Beat and measure. Runs until cancelled."""
        self.beat = time.monotonic()
        watcher = threading.Thread(target=self._watch, args=[threading.get_ident()], name="watchdog", daemon=True)
        watcher.start()
        try:
            while True:
                await trio.sleep(BEAT_S)
                now = time.monotonic()
                lag, self.beat = max(0.0, now - self.beat - BEAT_S), now
                self._lag_s.observe(lag)
                if lag >= LONG_S:
                    self._tell("loop_lag", seconds=f"{lag:.1f}", call=self.seen or "unknown")
                self.seen = ""
        finally:
            self._ended.set()

    def _watch(self, loop: int) -> None:
        while not self._ended.wait(POLL_S):
            if time.monotonic() - self.beat > LONG_S / 2:
                self.seen = what_runs(sys._current_frames().get(loop))


def what_runs(frame: FrameType | None) -> str:
    """Name the task of trio that a thread runs, and the innermost place in our code.

    :param frame: the innermost of the thread.
    """
    place = ""
    while frame is not None:
        code = frame.f_code
        file = Path(code.co_filename)
        if not place and file.is_relative_to(_OURS):
            place = f"{file.relative_to(_OURS)}:{frame.f_lineno} {code.co_name}"
        if code.co_name == "unrolled_run":
            task: Any = frame.f_locals.get("task")
            return f"{getattr(task, 'name', 'unknown')}, in {place or 'a library'}"
        frame = frame.f_back
    return place or "unknown"
