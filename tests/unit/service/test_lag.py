"""The watchdog: what it measures, and what it says of a loop that stood still."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

import pytest
import trio
from prometheus_client import CollectorRegistry

from godot.service import lag
from godot.service.lag import Watchdog, what_runs


class Lines:
    """Keeps the lines, and tells when there is one."""

    def __init__(self) -> None:
        self.said: list[dict[str, object]] = []
        self.some = trio.Event()

    def tell(self, event: str, **fields: object) -> None:
        self.said.append({"event": event, **fields})
        self.some.set()


def stand_still(sampled: Callable[[], bool]) -> None:
    while not sampled():
        threading.Event().wait(0.01)


async def test_nobody_knew_what_the_daemon_was_doing_when_it_answered_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """LIM-001: a line names the task that kept the loop, and where it was."""
    monkeypatch.setattr(lag, "LONG_S", 0.2)
    monkeypatch.setattr(lag, "POLL_S", 0.01)
    registry, lines = CollectorRegistry(), Lines()
    watchdog = Watchdog(registry, "godot", lines.tell)

    async def hostile() -> None:
        began = watchdog.beat
        stand_still(lambda: time.monotonic() - began > 0.4 and bool(watchdog.seen))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watchdog.run)
            await trio.sleep(2 * lag.BEAT_S)
            nursery.start_soon(hostile, name="logger_query 17")
            await lines.some.wait()
            nursery.cancel_scope.cancel()
    (line,) = lines.said
    assert line["event"] == "loop_lag"
    assert float(str(line["seconds"])) >= 0.2
    assert str(line["call"]).startswith("logger_query 17, in tests/unit/service/test_lag.py:")
    late = registry.get_sample_value("godot_event_loop_lag_seconds_count")
    early = registry.get_sample_value("godot_event_loop_lag_seconds_bucket", {"le": "0.1"})
    assert late is not None
    assert early is not None
    assert late > early


async def test_a_task_of_trio_is_named_from_its_frame_and_a_thread_without_one_by_its_place() -> None:
    await trio.lowlevel.checkpoint()
    assert what_runs(sys._getframe()).endswith(
        "test_a_task_of_trio_is_named_from_its_frame_and_a_thread_without_one_by_its_place"
    )
    seen = await trio.to_thread.run_sync(lambda: what_runs(sys._getframe()))
    assert seen.startswith("tests/unit/service/test_lag.py:")
    assert what_runs(None) == "unknown"
