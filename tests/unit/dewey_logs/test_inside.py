"""Dewey inside of Godot's process: batches come over no wire, and what may go wrong is told as over one."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

from dewey_logs.follow import Followers
from dewey_logs.inside import InsideStore
from dewey_logs.metrics import DeweyMetrics
from dewey_logs.query import Query
from dewey_logs.tools.storing import Storing
from godot.errors import BatchRefused, DeweyFailed, DeweyUnavailable, StoreBusy, StoreFailed, StoreUnavailable
from godot.service.exposition import Registry
from tests.fakes import FakeStore, raw_entry

TIMEOUT_S = 10.0


@attrs.define
class Bench:
    """An inside Dewey over a store in memory."""

    store: FakeStore = attrs.Factory(FakeStore)
    registry: Registry = attrs.Factory(Registry)
    bugs: list[str] = attrs.Factory(list)
    inside: InsideStore = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        metrics = DeweyMetrics(self.registry)
        storing = Storing(self.store, Followers(self.store), metrics.stored)
        self.inside = InsideStore(storing, metrics, TIMEOUT_S, self.bugs.append)


async def test_what_godot_made_is_stored_once_and_counted(autojump_clock: trio.testing.MockClock) -> None:
    """REL-004, OBS-001."""
    bench = Bench()
    batch = [raw_entry("one"), raw_entry("two")]
    await bench.inside(batch)
    await bench.inside([*batch, raw_entry("three")])
    await bench.inside([])
    found = await bench.store.query(Query(order="oldest"))
    assert [each.message for each in found.entries] == ["one", "two", "three"]
    assert bench.registry.get_sample_value("dewey_entries_stored_total") == 3
    assert bench.registry.get_sample_value("dewey_entries_duplicate_total") == 2
    labels = {"outcome": "ok", "tool": "dewey_store_logs_batch"}
    assert bench.registry.get_sample_value("dewey_tool_duration_seconds_count", labels) == 3


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (StoreUnavailable("PostgreSQL: away"), DeweyUnavailable),
        (StoreBusy("PostgreSQL: locked"), DeweyUnavailable),
        (StoreFailed("PostgreSQL: out of memory"), DeweyFailed),
        (BatchRefused([(0, "too much")]), BatchRefused),
        (KeyError("a bug"), DeweyFailed),
    ],
)
async def test_what_went_wrong_is_told_as_over_a_wire(fault: Exception, told: type[Exception]) -> None:
    """REL-002: a world that is away suspects no entry, a failure does, and a bug ends nothing."""

    def fail() -> None:
        raise fault

    bench = Bench()
    bench.store.first = fail
    with pytest.raises(told) as raised:
        await bench.inside([raw_entry("one")])
    assert type(raised.value) is told
    assert bench.bugs == (["KeyError('a bug')"] if isinstance(fault, KeyError) else [])


async def test_a_store_that_does_not_answer_is_given_up_in_time(autojump_clock: trio.testing.MockClock) -> None:
    """REL-002."""
    bench = Bench()
    bench.store.takes_s = 1000.0
    with pytest.raises(DeweyFailed, match="not stored within 10 s"):
        await bench.inside([raw_entry("one")])
    assert trio.current_time() == TIMEOUT_S
