"""The whole pipeline on the virtual clock: a real WebSocket client over memory, and no socket anywhere."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from dewey_logs.tools import DEFINITIONS
from godot.buffer.protocol import Counts
from godot.daemon import LAST_WORD_S, run_pipeline
from godot.json.text import dumps, loads
from godot.mcp.access import Gate
from godot.service.signals import Lifecycle
from godot.settings import GodotSettings
from godot.stations import Dependencies
from godot.toolnames import DEWEY_MAINTAIN
from tests.fakes import FakeBuffer, FakeDewey, numbers


class MemoryListener(trio.abc.Listener[trio.SocketStream]):
    """A port that exists in memory only."""

    def __init__(self) -> None:
        self._arrive, self._arrived = trio.open_memory_channel[trio.SocketStream](10)

    async def accept(self) -> trio.SocketStream:
        return await self._arrived.receive()

    async def aclose(self) -> None:
        self._arrived.close()

    def connect(self) -> trio.SocketStream:
        client, server = trio.testing.memory_stream_pair()
        server.socket = SimpleNamespace(getpeername=lambda: ("memory", 0))  # type: ignore[attr-defined]
        self._arrive.send_nowait(cast("trio.SocketStream", server))
        return cast("trio.SocketStream", client)


@attrs.define
class Bench:
    """A pipeline with everything that it stands on in memory."""

    buffer: FakeBuffer = attrs.Factory(FakeBuffer)
    dewey: FakeDewey = attrs.Factory(FakeDewey)
    listener: MemoryListener = attrs.Factory(MemoryListener)
    lines: list[str] = attrs.Factory(list)
    life: Lifecycle = attrs.Factory(Lifecycle)
    code: int | None = None
    ended_at: float | None = None
    ended: trio.Event = attrs.Factory(trio.Event)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        listeners = cast("list[trio.SocketListener]", [self.listener])
        dependencies = Dependencies(self.buffer, self.dewey, listeners, Gate(), DEFINITIONS, self.lines.append)
        self.code = await run_pipeline(GodotSettings(), dependencies, self.life, task_status.started)
        self.ended_at = trio.current_time()
        self.ended.set()

    @property
    def said(self) -> list[dict[str, str]]:
        return [dict(part.split("=", 1) for part in shlex.split(line)) for line in self.lines]

    async def stored(self) -> list[str]:
        """The messages that Dewey has, oldest first."""
        self.dewey.up = True
        answer = await self.dewey.ask("dewey_query_logs", {"order": "oldest", "limit": 1000})
        return [entry["message"] for entry in loads(answer.json)["entries"]]


@asynccontextmanager
async def connected(bench: Bench) -> AsyncIterator[WebSocketConnection]:
    async with trio.open_nursery() as nursery:
        yield await wrap_client_stream(nursery, bench.listener.connect(), "127.0.0.1", "/", subprotocols=["mcp"])
        nursery.cancel_scope.cancel()


async def ask(connection: WebSocketConnection, tool: str, arguments: object) -> Any:
    """Call a tool as deployed clients do (GOD-000); return what it said."""
    params = {"name": tool, "arguments": arguments}
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    await connection.send_message(dumps(request).decode())
    result = loads(await connection.get_message())["result"]
    text = result["content"][0]["text"]
    return text if result["isError"] else loads(text)


async def log(connection: WebSocketConnection, *messages: str) -> None:
    for message in messages:
        said = await ask(connection, "logger_log", {"component": "relay", "level": "INFO", "message": message})
        assert said["status"] == "queued"


async def test_an_entry_goes_all_the_way_and_is_found_again(autojump_clock: trio.testing.MockClock) -> None:
    """GOD-000, GOD-002, GOD-003: within 100 ms it is stored."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.run)
        assert bench.life.ready.is_set()
        async with connected(bench) as client:
            await log(client, "hello")
            await trio.sleep(0.1)
            await trio.testing.wait_all_tasks_blocked()
            found = await ask(client, "logger_query", {"component": "relay"})
            assert [entry["message"] for entry in found["entries"]] == ["hello"]
            status = await ask(client, "logger_status", {})
            assert (status["received"], status["stored"], status["redis"], status["dewey"]) == (1, 1, "up", "up")
        bench.life.stop.set()


async def test_a_stop_with_everything_delivered_takes_no_time(autojump_clock: trio.testing.MockClock) -> None:
    """REL-005."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.run)
        await trio.sleep(20)
        bench.life.stop.set()
    assert (bench.code, bench.ended_at) == (0, 20)
    assert [line["event"] for line in bench.said] == ["draining", "stopped"]
    assert (bench.said[-1]["drained"], bench.said[-1]["lost"]) == ("true", "0")


async def test_a_stop_delivers_what_was_accepted_the_moment_before_and_returns_as_soon_as_it_has(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-005: the channel is flushed, the buffer delivered, and nothing is waited for."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.run)
        async with connected(bench) as client:
            await trio.sleep(20)
            await log(client, *numbers(250))
            bench.life.stop.set()
            await bench.ended.wait()
    assert (bench.code, bench.ended_at) == (0, 20)
    assert await bench.buffer.counts() == Counts(received=250, stored=250)
    assert await bench.stored() == numbers(250)


async def test_a_stop_says_goodbye_with_1001(autojump_clock: trio.testing.MockClock) -> None:
    """REL-005."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.run)
        async with connected(bench) as client:
            await log(client, "hello")
            bench.life.stop.set()
            with pytest.raises(ConnectionClosed) as closed:
                await client.get_message()
            assert closed.value.reason is not None
            assert closed.value.reason.code == 1001


async def test_with_dewey_down_a_stop_ends_after_exactly_eight_seconds_and_leaves_everything_in_the_buffer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-005, REL-002: inside of `docker stop`'s 10 s; the rest stays in Redis."""
    bench = Bench()
    bench.dewey.up = False
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.run)
        async with connected(bench) as client:
            await trio.sleep(20)
            await log(client, *numbers(250))
            bench.life.stop.set()
            await bench.ended.wait()
    assert (bench.code, bench.ended_at) == (0, 28.0)
    counts = await bench.buffer.counts()
    assert (counts.received, counts.queued + counts.in_flight) == (250, 250)
    assert (bench.said[-1]["event"], bench.said[-1]["drained"], bench.said[-1]["lost"]) == ("stopped", "false", "0")


@pytest.mark.parametrize("silent", [False, True], ids=["away", "silent"])
async def test_with_nothing_queued_a_stop_does_not_wait_for_dewey_and_what_is_missing_is_told_at_the_next_start(
    silent: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """REL-005: the entry that tells of a hole once made it wait for the whole drain, and say drained=false."""
    first = Bench(buffer=FakeBuffer(max_size=10))
    first.dewey.up, first.dewey.silent = silent, silent
    async with trio.open_nursery() as nursery:
        await nursery.start(first.run)
        async with connected(first) as client:
            await log(client, *numbers(25))
            await trio.sleep(200)
            await first.buffer.hand_back()  # also what is just being tried
            first.buffer.queue.clear()
            await trio.sleep(100)
            first.life.stop.set()
            await first.ended.wait()
    assert first.ended_at is not None
    assert 300 <= first.ended_at <= 300 + LAST_WORD_S
    last = first.said[-1]
    said = [last[name] for name in ("event", "drained", "lost", "queued", "in_flight")]
    assert said == ["stopped", "true", "0", "0", "0"]
    second = Bench(buffer=first.buffer)
    async with trio.open_nursery() as nursery:
        await nursery.start(second.run)
        await trio.sleep(1)
        second.life.stop.set()
    assert [message for message in await second.stored() if "entries are missing" in message] != []


async def test_a_daemon_that_starts_while_dewey_is_away_does_not_say_that_it_is_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """MAINT-001: its first line said maintenance_failed with dewey=up, and durable=false."""
    bench = Bench()
    bench.dewey.up = False
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.run)
        async with connected(bench) as client:
            status = await ask(client, "logger_status", {})
            assert (status["redis"], status["durable"], status["dewey"]) == ("up", True, "unknown")
            await trio.sleep(1)
            assert (await ask(client, "logger_status", {}))["dewey"] == "down"
        bench.life.stop.set()
    before = [line for line in bench.said if line["event"] == "maintenance_failed"]
    assert [(line["dewey"], line["durable"]) for line in before] == [("unknown", "true")]


async def test_what_one_daemon_left_in_the_buffer_the_next_one_delivers_in_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-004, REL-005: stored exactly once."""
    first = Bench()
    first.dewey.up = False
    async with trio.open_nursery() as nursery:
        await nursery.start(first.run)
        async with connected(first) as client:
            await log(client, *numbers(250))
            first.life.stop.set()
            await first.ended.wait()
    second = Bench(buffer=first.buffer)
    async with trio.open_nursery() as nursery:
        await nursery.start(second.run)
        second.life.stop.set()
    assert await second.stored() == numbers(250)
    assert await second.buffer.counts() == Counts(received=250, stored=250)


async def test_with_dewey_back_within_the_drain_it_ends_when_everything_is_delivered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-005."""
    bench = Bench()
    bench.dewey.up = False
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.run)
        async with connected(bench) as client:
            await log(client, *numbers(250))
            bench.life.stop.set()
            await trio.sleep(2)
            bench.dewey.up = True
    assert bench.code == 0
    assert bench.ended_at is not None
    assert 2 <= bench.ended_at < 8
    assert await bench.stored() == numbers(250)


async def test_with_redis_away_a_stop_ends_after_exactly_eight_seconds_and_says_how_many_are_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-005: entries that were answered `queued` and could not be written make the exit code 1."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.run)
        async with connected(bench) as client:
            await trio.sleep(20)
            bench.buffer.away = True
            await log(client, *numbers(250))
            bench.life.stop.set()
            await bench.ended.wait()
    assert (bench.code, bench.ended_at) == (1, 28.0)
    last = bench.said[-1]
    assert (last["event"], last["drained"], last["lost"], last["redis"]) == ("stopped", "false", "250", "down")
    assert "redis_down" in [line["event"] for line in bench.said]


async def test_with_redis_back_within_the_drain_nothing_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    """REL-004, REL-005."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.run)
        async with connected(bench) as client:
            bench.buffer.away = True
            await log(client, *numbers(250))
            bench.life.stop.set()
            await trio.sleep(3)
            bench.buffer.away = False
    assert bench.code == 0
    assert await bench.stored() == numbers(250)


async def test_redis_and_dewey_come_and_go_and_every_accepted_entry_is_stored_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-004."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.run)
        async with connected(bench) as client:
            for number in range(300):
                bench.buffer.away = number % 100 >= 80
                bench.dewey.up = number % 70 < 40
                await log(client, str(number))
                await trio.sleep(0.125)
            bench.buffer.away, bench.dewey.up = False, True
            await trio.sleep(60)
            bench.life.stop.set()
    assert bench.code == 0
    assert await bench.stored() == numbers(300)
    assert await bench.buffer.counts() == Counts(received=300, stored=300)
    events = {line["event"] for line in bench.said}
    assert {"redis_down", "redis_back", "dewey_down", "dewey_back"} <= events


async def test_a_bug_in_maintenance_is_reported_and_does_not_end_the_daemon(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """DEW-005: what talks to the outside is started again."""
    bench = Bench()
    bench.dewey.bugs[DEWEY_MAINTAIN] = 2
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.run)
        await trio.sleep(15)
        bench.life.stop.set()
    assert bench.code == 0
    assert bench.dewey.asked.count(DEWEY_MAINTAIN) >= 3
    restarts = [line["reason"] for line in bench.said if line["event"] == "restart"]
    assert len(restarts) == 2
    assert all(reason.startswith("maintenance failed and starts again in ") for reason in restarts)


async def test_a_status_line_comes_every_minute(autojump_clock: trio.testing.MockClock) -> None:
    """MAINT-001, MAINT-002."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.run)
        await trio.sleep(150)
        bench.life.stop.set()
    assert [line["event"] for line in bench.said] == ["status", "status", "draining", "stopped"]
    assert await bench.stored() == []
