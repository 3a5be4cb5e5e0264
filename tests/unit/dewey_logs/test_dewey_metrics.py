"""What Dewey counts, and how it tells that its database is away."""

from __future__ import annotations

from typing import Any

from prometheus_client.exposition import generate_latest

from dewey_logs.follow import Followers
from dewey_logs.metrics import DeweyMetrics
from dewey_logs.tools import dewey_tools
from dewey_logs.tools.storing import Storing
from godot.mcp.toolbox import Toolbox
from godot.service.exposition import Registry
from tests.fakes import FakeStore

LOGS: list[dict[str, Any]] = [{"component": "relay", "level": "INFO", "message": "x", "id": "0" * 31 + "1"}]


class Fault(Exception):
    sqlstate = "57P01"


async def test_a_database_that_goes_and_comes_back_is_told_of_once_each() -> None:
    told: list[tuple[bool, str]] = []
    store = FakeStore()
    store.cause = Fault()
    metrics = DeweyMetrics(Registry(), lambda is_up, reason: told.append((is_up, reason)))
    storing = Storing(store, Followers(store), metrics.stored)
    tools = Toolbox([metrics.measured(tool) for tool in dewey_tools(store, storing=storing)])
    for away in (False, True, True, False, False):
        store.away = away
        answer = await tools.find("dewey_store_logs_batch").call({"logs": LOGS})
        assert answer.is_error is away
    assert (await tools.find("dewey_store_logs_batch").call({"logs": [{}]})).is_error
    assert told == [(False, "PostgreSQL: away"), (True, "")]
    assert metrics.state() == {"stored": 1, "duplicates": 2, "followers": 0, "database": "up"}
    text = generate_latest(metrics.registry).decode()
    assert 'dewey_database_errors_total{sqlstate_class="57"} 2.0' in text
    for outcome, count in (("ok", 3), ("unavailable", 2), ("refused", 1)):
        assert f'_count{{outcome="{outcome}",tool="dewey_store_logs_batch"}} {count}.0' in text
