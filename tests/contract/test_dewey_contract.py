"""The contract of `Dewey`, kept by its twins; the remote one over memory channels and over a WebSocket."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from dewey_logs.tools import dewey_tools
from godot.entries.entry import MAX_BATCH
from godot.errors import BatchRefused, DeweyUnavailable
from godot.json.text import loads
from godot.mcp.client import Client
from godot.mcp.memory import in_process, memory_transports
from godot.mcp.server import Server, serve
from godot.mcp.session import ServerInfo
from godot.mcp.toolbox import Answer, Toolbox
from godot.mcp.transport import Connect, Transport, Unreachable
from godot.mcp.websocket.dial import Address, over_websocket
from godot.mcp.websocket.listen import serve_websocket
from godot.pipeline.dewey import Dewey, RemoteDewey, RemoteStore
from godot.service.ports import open_listeners
from godot.toolnames import DEWEY_QUERY, DEWEY_STORE
from tests.fakes import FakeDewey, FakeStore, raw_entry
from tests.programs import bounded

TIMEOUT_S = 2.0


@attrs.define
class Bench:
    """A Dewey, the store behind it, and the switch of the connection between."""

    dewey: Dewey
    store: FakeStore
    switch: Callable[[bool], Awaitable[None]]

    async def messages(self) -> list[str]:
        """What is stored, oldest first."""
        answer = await self.dewey.ask(DEWEY_QUERY, {"order": "oldest", "limit": 1000})
        return [entry["message"] for entry in loads(answer.json)["entries"]]


@asynccontextmanager
async def direct() -> AsyncIterator[Bench]:
    store = FakeStore()
    dewey = FakeDewey(store)

    async def switch(up: bool) -> None:
        dewey.up = up

    yield Bench(dewey, store, switch)


def _server(store: FakeStore) -> Server:
    return Server(ServerInfo("dewey", "1", ""), Toolbox(dewey_tools(store)), lambda *_: None)


@asynccontextmanager
async def _remote(
    connect: Connect, store: FakeStore, switch: Callable[[bool], Awaitable[None]]
) -> AsyncIterator[Bench]:
    client = Client(connect, name="tests", version="1")
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        yield Bench(
            RemoteDewey(RemoteStore(client, timeout_s=TIMEOUT_S), client, client, client, timeout_s=TIMEOUT_S),
            store,
            switch,
        )
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def over_memory() -> AsyncIterator[Bench]:
    store = FakeStore()
    up = True
    live: set[trio.CancelScope] = set()

    async def serve_while_up(transport: Transport) -> None:
        with trio.CancelScope() as scope:
            live.add(scope)
            await serve(_server(store), transport)

    to_server = in_process(serve_while_up)

    @asynccontextmanager
    async def connect() -> AsyncIterator[Transport]:
        if not up:
            raise Unreachable("Dewey", "it is down")
        async with to_server() as transport:
            yield transport

    async def switch(to: bool) -> None:
        nonlocal up
        up = to
        if not up:
            for scope in live:
                scope.cancel()
            live.clear()
            await trio.testing.wait_all_tasks_blocked()

    async with _remote(connect, store, switch) as bench:
        yield bench


@asynccontextmanager
async def over_tcp() -> AsyncIterator[Bench]:
    store = FakeStore()
    async with trio.open_nursery() as nursery:
        listeners = await open_listeners("127.0.0.1", 0)
        port = listeners[0].socket.getsockname()[1]
        running = trio.CancelScope()
        ended = trio.Event()

        async def listen(
            listeners: list[trio.SocketListener],
            *,
            task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
        ) -> None:
            nonlocal running, ended
            ended = trio.Event()
            with trio.CancelScope() as running:
                await serve_websocket(_server(store), listeners, task_status=task_status)
            ended.set()

        async def switch(up: bool) -> None:
            if up:
                await nursery.start(listen, await open_listeners("127.0.0.1", port))
            else:
                running.cancel()
                await ended.wait()

        await nursery.start(listen, listeners)
        connect = over_websocket(Address.parse(f"ws://127.0.0.1:{port}"), max_message_bytes=64 * 1024 * 1024)
        async with _remote(connect, store, switch) as bench:
            yield bench
        nursery.cancel_scope.cancel()


TWINS = [direct, over_memory, over_tcp]
REMOTE = [over_memory, over_tcp]
Open = Callable[[], AbstractAsyncContextManager[Bench]]


@pytest.mark.parametrize("twin", TWINS)
@bounded
async def test_stores_a_batch_in_its_order(twin: Open) -> None:
    """GOD-003."""
    async with twin() as bench:
        await bench.dewey.store([raw_entry(str(number)) for number in range(100)])
        assert await bench.messages() == [str(number) for number in range(100)]


@pytest.mark.parametrize("twin", TWINS)
@bounded
async def test_stores_nothing_twice(twin: Open) -> None:
    """DEW-004: storing the same batch again stores nothing twice."""
    async with twin() as bench:
        batch = [raw_entry("a"), raw_entry("b", id="0af76519-16cd-43dd-8448-eb211c80319c"), raw_entry("c")]
        await bench.dewey.store(batch)
        await bench.dewey.store(batch)
        await bench.dewey.store([batch[1], raw_entry("d")])
        assert sorted(await bench.messages()) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("twin", TWINS)
@bounded
async def test_takes_the_largest_batch_there_is(twin: Open) -> None:
    """DEW-001: 1,000 entries, here of 2 KB each."""
    async with twin() as bench:
        await bench.dewey.store([raw_entry(str(number), data={"frame": "x" * 2000}) for number in range(MAX_BATCH)])
        assert len(await bench.messages()) > 50  # one page


@pytest.mark.parametrize("twin", TWINS)
@bounded
async def test_what_is_in_an_entry_arrives_as_it_was_sent(twin: Open) -> None:
    """DEW-002."""
    data = {"big": 2**70, "deep": [[[{"ü": None}]]], "text": "\\u0000 ✓ \u2028", "float": 0.1}
    async with twin() as bench:
        raw = raw_entry("m", data=data, trace_id="0af76519-16cd-43dd-8448-eb211c80319c")
        await bench.dewey.store([raw])
        (found,) = loads((await bench.dewey.ask(DEWEY_QUERY, {})).json)["entries"]
        assert {name: found[name] for name in loads(raw)} == loads(raw)


@pytest.mark.parametrize("twin", TWINS)
@bounded
async def test_a_batch_with_faults_is_refused_by_their_indexes_and_nothing_of_it_is_stored(twin: Open) -> None:
    """DEW-003, DEW-004."""
    async with twin() as bench:
        batch = [raw_entry("good"), b'{"component":"a","message":"b"}', raw_entry("good too"), b"[]"]
        with pytest.raises(BatchRefused) as refused:
            await bench.dewey.store(batch)
        assert refused.value.faults == (
            (1, "level: required, but missing"),
            (3, "must be an object, not an array"),
        )
        assert await bench.messages() == []


@pytest.mark.parametrize("twin", TWINS)
@bounded
async def test_every_fault_of_a_batch_is_named(twin: Open) -> None:
    """DEW-003: also a thousand of them."""
    async with twin() as bench:
        with pytest.raises(BatchRefused) as refused:
            await bench.dewey.store([b"7"] * MAX_BATCH)
        assert [index for index, _ in refused.value.faults] == list(range(MAX_BATCH))


@pytest.mark.parametrize("twin", TWINS)
@bounded
async def test_a_database_that_is_away_makes_dewey_unavailable_and_not_the_batch_refused(twin: Open) -> None:
    """REL-002."""
    async with twin() as bench:
        bench.store.away = True
        with pytest.raises(DeweyUnavailable, match="PostgreSQL: away"):
            await bench.dewey.store([raw_entry("a")])
        with pytest.raises(DeweyUnavailable):
            await bench.dewey.store([])  # the probe
        bench.store.away = False
        await bench.dewey.store([])
        await bench.dewey.store([raw_entry("a")])
        assert await bench.messages() == ["a"]


@pytest.mark.parametrize("twin", TWINS)
@bounded
async def test_dewey_down_is_unavailable_and_works_again_when_it_is_back(twin: Open) -> None:
    """REL-002, REL-004."""
    async with twin() as bench:
        await bench.dewey.store([raw_entry("before")])
        await bench.switch(False)
        for _ in range(3):
            with pytest.raises(DeweyUnavailable, match=r"^Dewey: "):
                await bench.dewey.store([raw_entry("meanwhile")])
            with pytest.raises(DeweyUnavailable):
                await bench.dewey.ask(DEWEY_QUERY, {})
        await bench.switch(True)
        await bench.dewey.store([raw_entry("after")])
        assert await bench.messages() == ["before", "after"]


@pytest.mark.parametrize("twin", TWINS)
@bounded
async def test_an_answer_that_is_an_error_is_passed_on_to_whoever_asked(twin: Open) -> None:
    async with twin() as bench:
        answer = await bench.dewey.ask(DEWEY_QUERY, {"level": "LOUD"})
        assert answer.is_error
        assert answer.json.startswith("level: must be one of ERROR, WARN, INFO, DEBUG, TRACE")
        assert answer.value == {"error": answer.json, "kind": "rejected"}
        answer = await bench.dewey.ask(DEWEY_STORE, {"logs": [{}], "log": []})
        assert answer.is_error


@pytest.mark.parametrize("twin", TWINS)
@bounded
async def test_an_answer_is_the_text_that_dewey_wrote(twin: Open) -> None:
    async with twin() as bench:
        answer = await bench.dewey.ask(DEWEY_QUERY, {})
        assert loads(answer.json) == {"entries": [], "count": 0, "next_cursor": None, "shortened": 0}
        assert answer == Answer(answer.json)


@pytest.mark.parametrize("twin", REMOTE)
@bounded
async def test_a_network_that_swallows_everything_is_unavailable_after_the_timeout_and_the_next_call_works(
    twin: Open,
) -> None:
    """REL-002."""
    async with twin() as bench:
        bench.store.takes_s = math.inf
        started = trio.current_time()
        with pytest.raises(DeweyUnavailable, match=r"^Dewey: no answer to dewey_store_logs_batch within 2 s$"):
            await bench.dewey.store([raw_entry("a")])
        assert trio.current_time() - started >= TIMEOUT_S
        bench.store.takes_s = 0
        await bench.dewey.store([raw_entry("a")])
        assert await bench.messages() == ["a"]


async def test_the_timeout_is_exact_and_bounds_the_opening_of_the_connection_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-002."""

    @asynccontextmanager
    async def nowhere() -> AsyncIterator[Transport]:
        await trio.Event().wait()
        yield memory_transports()[0]

    client = Client(nowhere, name="tests", version="1")
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        with pytest.raises(DeweyUnavailable, match="no answer to dewey_store_logs_batch within 15 s"):
            await RemoteStore(client, timeout_s=15.0)([])
        assert trio.current_time() == 15
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("twin", REMOTE)
@bounded
async def test_a_call_given_up_does_not_disturb_the_others(twin: Open) -> None:
    async with twin() as bench:
        bench.store.takes_s = math.inf
        with trio.move_on_after(0.05) as given_up:
            await bench.dewey.ask(DEWEY_QUERY, {})
        assert given_up.cancelled_caught
        bench.store.takes_s = 0
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(bench.dewey.store, [raw_entry(str(number))])
        assert sorted(await bench.messages()) == ["0", "1", "2", "3", "4"]
