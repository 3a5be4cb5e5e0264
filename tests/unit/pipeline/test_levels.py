"""Levels: what is below them is not taken in, whoever is away, and everybody is told (DEW-011)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import trio
import trio.testing

from godot.errors import DeweyUnavailable
from godot.json.text import dumps, loads
from godot.mcp.memory import in_process
from godot.mcp.server import Server, Watched, serve
from godot.mcp.session import ServerInfo
from godot.pipeline.levels import CAPABILITY, Levels
from tests.fakes import FakeDewey, Table

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Bench:
    """Godot's tools over Dewey's, on one clock that a test sets."""

    def __init__(self) -> None:
        self.late = 0.0
        self.levels = Levels(self.now)
        self.dewey = FakeDewey(now=self.moment)
        self.table = Table(dewey=self.dewey, levels=self.levels)
        self.buffer, self.outlet, self.toolbox = self.table.buffer, self.table.outlet, self.table.toolbox
        self.call = self.table.call

    def now(self) -> float:
        return NOON.timestamp() + self.late

    def moment(self) -> datetime:
        return datetime.fromtimestamp(self.now(), UTC)

    async def taken(self, level: str, component: str = "relay") -> bool:
        """Log an entry; whether it is stored."""
        answer = await self.call("logger_log", component=component, level=level, message="x", ack="queued")
        assert answer["status"] in ("queued", "filtered")
        return bool(answer["status"] == "queued")


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_what_is_below_the_level_is_not_stored_and_the_reply_says_so(bench: Bench) -> None:
    done = await bench.call("logger_set_level", component="relay", level="info")
    assert done == {"component": "relay", "level": "INFO", "until": None, "previous": None}
    answer = await bench.call("logger_log", component="relay", level="debug", message="x")
    assert (answer["status"], answer["level"], answer["warnings"]) == ("filtered", "INFO", [])
    assert [await bench.taken(level) for level in ("ERROR", "INFO", "TRACE")] == [True, True, False]
    assert await bench.taken("TRACE", "gates")
    logs = [
        {"component": name, "level": level, "message": "x"}
        for name in ("relay", "gates")
        for level in ("WARN", "DEBUG")
    ]
    batch = await bench.call("logger_log_batch", logs=[*logs, {"component": "relay"}])
    assert (batch["accepted"], batch["filtered"], [each["index"] for each in batch["rejected"]]) == (3, 1, [4])
    assert bench.outlet.waiting == 6
    assert (await bench.call("logger_status"))["filtered"] == 3


async def test_a_star_stands_for_those_that_have_none_of_their_own(bench: Bench) -> None:
    await bench.call("logger_set_level", component="*", level="WARN")
    await bench.call("logger_set_level", component="relay", level="TRACE")
    assert await bench.taken("TRACE", "relay")
    assert not await bench.taken("INFO", "gates")
    assert await bench.call("logger_get_level", component="*") == {
        "levels": {"*": {"level": "WARN", "until": None, "later": None}}
    }


async def test_a_level_for_a_time_goes_back_by_itself(bench: Bench) -> None:
    await bench.call("logger_set_level", component="relay", level="WARN")
    done = await bench.call("logger_set_level", component="relay", level="TRACE", for_s=1800)
    assert (done["until"], done["previous"]) == ("2026-11-20T12:30:00.000000Z", "WARN")
    assert (await bench.call("logger_get_level"))["levels"]["relay"]["later"] == "WARN"
    bench.late = 1799
    assert await bench.taken("TRACE")
    bench.late = 1800
    assert not await bench.taken("TRACE")
    assert (await bench.call("logger_get_level"))["levels"] == {
        "relay": {"level": "WARN", "until": None, "later": None}
    }
    bench.late = 0  # the clock may be set back, too
    await bench.levels.refresh(bench.dewey, bench.buffer)
    assert await bench.taken("TRACE")


async def test_levels_are_known_while_dewey_is_away_and_after_a_restart(bench: Bench) -> None:
    await bench.call("logger_set_level", component="relay", level="WARN", for_s=60)
    bench.dewey.up = False
    assert not await bench.taken("INFO")
    restarted = Levels(bench.now)
    await restarted.recall(bench.buffer)
    assert restarted.settings() == bench.levels.settings()
    assert not restarted.filter().lets_through("relay", "INFO")
    with pytest.raises(DeweyUnavailable):
        await restarted.refresh(bench.dewey, bench.buffer)
    assert not restarted.filter().lets_through("relay", "INFO")
    bench.late = 60
    assert restarted.filter().lets_through("relay", "INFO")


async def test_without_redis_levels_count_and_are_noted_when_it_is_back(bench: Bench) -> None:
    bench.buffer.away = True
    await bench.call("logger_set_level", component="relay", level="WARN")
    assert not await bench.taken("INFO")
    ignorant = Levels(bench.now)
    await ignorant.recall(bench.buffer)
    assert ignorant.filter().lets_through("relay", "INFO")
    bench.buffer.away = False
    assert await bench.buffer.noted_levels() is None
    await bench.levels.refresh(bench.dewey, bench.buffer)
    await ignorant.recall(bench.buffer)
    assert not ignorant.filter().lets_through("relay", "INFO")


@pytest.mark.parametrize(
    "noted",
    [
        b"junk",
        b"[1]",
        b'{"relay":{"odd":1}}',
        b'{"relay":5}',
        b'{"relay":{"level":"LOUD"}}',
        b'{"relay":{"level":"INFO","until":"junk"}}',
    ],
)
async def test_a_note_of_levels_that_cannot_be_read_keeps_nothing_from_starting(bench: Bench, noted: bytes) -> None:
    """DEW-011: anybody can write to Redis."""
    await bench.buffer.note_levels(noted)
    restarted = Levels(bench.now)
    await restarted.recall(bench.buffer)
    assert restarted.filter().lets_through("relay", "TRACE")


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"component": "", "level": "INFO"}, "component"),
        ({"component": "x" * 256, "level": "INFO"}, "component"),
        ({"component": "x", "level": "LOUD"}, "level"),
        ({"component": "x", "level": "INFO", "for_s": 0}, "for_s"),
        ({"component": "x", "level": "INFO", "for_s": 1e9}, "for_s"),
        ({"level": "INFO"}, "component"),
    ],
)
async def test_a_wrong_level_is_refused(bench: Bench, wrong: dict[str, Any], problem: str) -> None:
    answer = await bench.toolbox.find("logger_set_level").call(wrong)
    assert answer.is_error
    assert problem in answer.json
    assert (await bench.call("logger_get_level"))["levels"] == {}


async def test_connected_clients_that_asked_are_told_at_once(bench: Bench) -> None:
    await bench.call("logger_set_level", component="relay", level="INFO")
    watched = Watched(CAPABILITY, lambda: {"levels": bench.levels.current()}, bench.levels.changed)
    server = Server(ServerInfo("godot", "0", ""), bench.toolbox, lambda *_: None, watched=watched)

    async def initialize(transport: Any, **experimental: Any) -> Any:
        params = {"protocolVersion": "2025-06-18", "capabilities": {"experimental": experimental}, "clientInfo": {}}
        await transport.send(dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}).decode())
        return loads(await transport.receive())["result"]["capabilities"]

    connect = in_process(lambda transport: serve(server, transport))
    with trio.fail_after(5):
        async with connect() as asking, connect() as silent:
            told = await initialize(asking, **{CAPABILITY: {}})
            assert told["experimental"] == {CAPABILITY: {"levels": {"relay": "INFO"}}}
            assert await initialize(silent, other={}) == {"tools": {}}
            await bench.call("logger_set_level", component="gates", level="WARN")
            notice = loads(await asking.receive())
            assert notice == {
                "jsonrpc": "2.0",
                "method": "notifications/godot/levels",
                "params": {"levels": {"relay": "INFO", "gates": "WARN"}},
            }
            await bench.call("logger_set_level", component="gates", level="WARN")
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(0.01) as nothing:
                await silent.receive()
            assert nothing.cancelled_caught
