"""What Dewey counts, and how it tells that its database is away."""

from __future__ import annotations

from typing import Any

from prometheus_client.exposition import generate_latest

from dewey_logs.follow import Followers
from dewey_logs.metrics import DeweyMetrics
from dewey_logs.store.batch import Batch
from dewey_logs.store.memory import MemoryStore
from dewey_logs.store.protocol import Stored
from dewey_logs.tools import dewey_tools
from dewey_logs.tools.storing import Storing
from godot.errors import StoreUnavailable
from godot.mcp.toolbox import Toolbox
from godot.service.exposition import Registry

LOGS: list[dict[str, Any]] = [{"component": "relay", "level": "INFO", "message": "x", "id": "0" * 31 + "1"}]


class Fault(Exception):
    sqlstate = "57P01"


class Store(MemoryStore):
    """Can be away."""

    away = False

    async def store(self, batch: Batch) -> Stored:
        if self.away:
            raise StoreUnavailable("PostgreSQL: terminating connection") from Fault()
        return await super().store(batch)


async def test_a_database_that_goes_and_comes_back_is_told_of_once_each() -> None:
    told: list[tuple[bool, str]] = []
    store = Store()
    metrics = DeweyMetrics(Registry(), lambda is_up, reason: told.append((is_up, reason)))
    storing = Storing(store, Followers(store), metrics.stored)
    tools = Toolbox([metrics.measured(tool) for tool in dewey_tools(store, storing=storing)])
    for away in (False, True, True, False, False):
        store.away = away
        answer = await tools.find("dewey_store_logs_batch").call({"logs": LOGS})
        assert answer.is_error is away
    assert (await tools.find("dewey_store_logs_batch").call({"logs": [{}]})).is_error
    assert told == [(False, "PostgreSQL: terminating connection"), (True, "")]
    assert metrics.state() == {"stored": 1, "duplicates": 2, "followers": 0, "database": "up"}
    text = generate_latest(metrics.registry).decode()
    assert 'dewey_database_errors_total{sqlstate_class="57"} 2.0' in text
    for outcome, count in (("ok", 3), ("unavailable", 2), ("refused", 1)):
        assert f'_count{{outcome="{outcome}",tool="dewey_store_logs_batch"}} {count}.0' in text
