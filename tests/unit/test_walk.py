"""The walk of one entry from its frame to the insert: how often its bytes are parsed, checked and written.

docs/architecture.md tells the stations.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import attrs
import orjson
import pytest
import trio
import trio.testing
from starlette.requests import Request

import godot.entries.entry
import godot.intake.accept
from dewey_logs.follow import Followers
from dewey_logs.inside import InsideStore
from dewey_logs.metrics import DeweyMetrics
from dewey_logs.store.batch import Batch
from dewey_logs.store.memory import MemoryStore
from dewey_logs.store.protocol import Stored
from dewey_logs.tools import dewey_tools
from dewey_logs.tools.storing import Storing
from godot.buffer.memory import MemoryBuffer
from godot.intake.accept import Door
from godot.intake.ndjson import ndjson_way
from godot.intake.tools import intake_tools
from godot.mcp.access import Gate
from godot.mcp.client import Client
from godot.mcp.memory import in_process
from godot.mcp.server import Server, serve
from godot.mcp.session import ServerInfo
from godot.mcp.toolbox import Toolbox
from godot.pipeline.batcher import Batcher
from godot.pipeline.channel import open_entry_channel
from godot.pipeline.dewey import RemoteStore, Store
from godot.pipeline.levels import Levels
from godot.pipeline.sender import Sender
from godot.pipeline.status import Status
from godot.service.exposition import Registry
from godot.service.site import Site

MARK: Final = "walks from its frame to the insert"
ENTRY: Final = {"component": "relay", "level": "INFO", "message": MARK, "data": {"method": "tools/call"}}


class Sink(MemoryStore):
    """Keeps the bytes of batches, and leaves it to the database to unpack them."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[bytes] = []

    async def store(self, batch: Batch) -> Stored:
        self.got.append(batch.json)
        return Stored(len(batch), 0)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what is done with the bytes of the entry, in any module."""
    counts: Counter[str] = Counter()

    def counting(what: str, work: Callable[..., Any], holds: Callable[[Any, Any], Any]) -> Callable[..., Any]:
        def count(*args: Any, **kwargs: Any) -> Any:
            result = work(*args, **kwargs)
            counts[what] += MARK in str(holds(args[0], result))
            return result

        return count

    for library in (orjson, json):
        monkeypatch.setattr(library, "loads", counting("parsed", library.loads, lambda given, _: given))
        monkeypatch.setattr(library, "dumps", counting("written", library.dumps, lambda _, result: result))
    admit = counting("checked", godot.entries.entry.admit, lambda given, _: given)
    monkeypatch.setattr(godot.entries.entry, "admit", admit)
    monkeypatch.setattr(godot.intake.accept, "admit", admit)
    return counts


@attrs.define
class Walk:
    """All the stations, over memory."""

    sink: Sink
    door: Door
    toolbox: Toolbox


@asynccontextmanager
async def stations(store_over: Callable[[Sink, trio.Nursery], Any]) -> AsyncIterator[Walk]:
    sink, buffer = Sink(), MemoryBuffer(1_000)
    status = Status(lambda _: None, buffer, max_size=1_000)
    inlet, outlet = open_entry_channel()
    wake, pushed = trio.open_memory_channel[None](1)
    batcher = Batcher(
        outlet, buffer, wake, batch_size=100, batch_timeout_s=0.1, on_counts=status.counted, on_failure=status.failed
    )
    door = Door(inlet, status, Levels())
    async with trio.open_nursery() as nursery:
        store: Store = await store_over(sink, nursery)

        @attrs.frozen
        class Dewey:
            async def store(self, entries: Sequence[bytes]) -> None:
                await store(entries)

            async def ask(self, *_: Any, **__: Any) -> Any:
                raise AssertionError

        sender = Sender(
            buffer,
            Dewey(),
            pushed,
            batch_size=100,
            on_counts=status.counted,
            on_failure=status.failed,
            on_delivery=status.delivered,
        )
        nursery.start_soon(batcher.run)
        nursery.start_soon(sender.run)
        yield Walk(sink, door, Toolbox(intake_tools(door)))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()


async def inside(sink: Sink, _: trio.Nursery) -> Store:
    return InsideStore(Storing(sink, Followers(sink)), DeweyMetrics(Registry()), 10.0, lambda _: None)


async def over_a_wire(sink: Sink, nursery: trio.Nursery) -> Store:
    server = Server(ServerInfo("dewey", "1", ""), Toolbox(dewey_tools(sink)), lambda *_: None)
    client = Client(in_process(partial(serve, server)), name="tests", version="1")
    await nursery.start(client.run)
    return RemoteStore(client, timeout_s=10.0)


async def by_mcp(walk: Walk) -> None:
    server = Server(ServerInfo("godot", "1", ""), walk.toolbox, lambda *_: None)
    client = Client(in_process(partial(serve, server)), name="tests", version="1")
    arguments = b'{"component":"relay","level":"INFO","message":"%b","data":{"method":"tools/call"}}' % MARK.encode()
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        assert not (await client.call("logger_log", arguments)).is_error
        nursery.cancel_scope.cancel()


async def by_ndjson(walk: Walk) -> None:
    async def nothing() -> tuple[int, dict[str, Any]]:
        return 200, {}

    async def receive() -> dict[str, Any]:
        line = b'{"component":"relay","level":"INFO","message":"%b","data":{"method":"tools/call"}}\n' % MARK.encode()
        return {"type": "http.request", "body": line, "more_body": False}

    site = Site("Godot", "", Gate(), nothing, Registry(), trio.lowlevel.checkpoint, lambda *_: None)
    scope = {"type": "http", "method": "POST", "path": "/v1/entries", "headers": [], "query_string": b""}
    answer = await ndjson_way(walk.door).answer(Request(scope, receive), site)
    assert answer.status_code == 200


@pytest.mark.parametrize("send", [by_mcp, by_ndjson])
async def test_in_one_process_an_entry_is_parsed_once_checked_once_and_serialised_once(
    send: Callable[[Walk], Any], counted: Counter[str], autojump_clock: trio.testing.MockClock
) -> None:
    """The second time that it is written compares its keys with those that were sent: some may have come twice."""
    async with stations(inside) as walk:
        await send(walk)
    assert counted == {"parsed": 1, "checked": 1, "written": 2}
    (got,) = [each for each in walk.sink.got if each != b"[]"]
    assert orjson.loads(got)[0]["message"] == MARK


async def test_over_a_wire_dewey_looks_once_more(counted: Counter[str], autojump_clock: trio.testing.MockClock) -> None:
    async with stations(over_a_wire) as walk:
        await by_mcp(walk)
    assert counted == {"parsed": 2, "checked": 2, "written": 4}
