"""The tools of Godot's port: taking entries in, and answering when they are queued or when they are on disk."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from godot.entries.entry import MAX_BATCH
from godot.json.text import dumps, loads
from godot.mcp.memory import MemoryTransport, memory_transports
from godot.mcp.server import Server, serve
from godot.mcp.session import ServerInfo
from godot.mcp.toolbox import trace
from godot.pipeline.batcher import Batcher
from godot.pipeline.channel import PATIENCE_S
from godot.settings import Ack
from tests.fakes import FakeBuffer, Table

ENTRY = {"component": "gates", "level": "INFO", "message": "hello"}
TRACE_ID = "0af76519-16cd-43dd-8448-eb211c80319c"
OF_ITS_OWN = "01a1fb67-5bd0-716c-b208-6b6eb13e7800"


class Bench(Table):
    """The tools over a channel, a batcher and a buffer, without delivery."""

    async def note(self, answers: list[tuple[float, str]], **arguments: Any) -> None:
        """Log an entry; note when it was answered, and how."""
        answer = await self.call("logger_log", **ENTRY, **arguments)
        answers.append((trio.current_time(), answer["status"]))


@asynccontextmanager
async def bench(
    ack: Ack = "queued", entry_max_bytes: float = math.inf, buffer: FakeBuffer | None = None
) -> AsyncIterator[Bench]:
    it = Bench(buffer or FakeBuffer(), ack=ack, max_entries=200, entry_max_bytes=entry_max_bytes)
    wake, _woken = trio.open_memory_channel[None](1)
    batcher = Batcher(
        it.outlet,
        it.buffer,
        wake,
        batch_size=100,
        batch_timeout_s=0.1,
        on_counts=it.status.counted,
        on_failure=it.status.failed,
        jitter=lambda delay: delay,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(batcher.run)
        yield it
        nursery.cancel_scope.cancel()


async def test_a_component_that_cannot_be_stored_is_counted_and_filtered_by_the_name_that_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """OBS-001, DEW-011: counted by the other one it made every scrape fail; a level set for what is seen missed it."""
    entry = {**ENTRY, "component": "gates\ud800\x00", "message": "\ud800"}
    warning = "characters that PostgreSQL cannot store were replaced: NUL by ␀, a lone surrogate by �"
    async with bench() as it:
        assert (await it.call("logger_log", **entry))["warnings"] == [warning]
        assert (await it.call("logger_log_batch", logs=[entry]))["warnings"] == [f"entry 0: {warning}"]
        await trio.sleep(1)
        assert it.accepted == [("gates�␀", "INFO")] * 2
        assert {loads(raw)["component"] for raw in it.buffer.queue} == {"gates�␀"}

        await it.call("logger_set_level", component="gates�␀", level="ERROR")
        assert (await it.call("logger_log", **entry))["status"] == "filtered"
        assert (await it.call("logger_log_batch", logs=[entry]))["filtered"] == 1


async def test_queued_is_answered_at_once_and_written_after_100_ms(autojump_clock: trio.testing.MockClock) -> None:
    async with bench() as it:
        answer = await it.call("logger_log", **ENTRY)
        assert (trio.current_time(), answer["status"], answer["warnings"]) == (0, "queued", [])
        await trio.sleep(1)
        assert it.buffer.sizes == [(0.1, 1)]


async def test_durable_is_answered_when_it_is_written_which_it_is_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with bench() as it:
        it.buffer.takes_s = 0.03
        answer = await it.call("logger_log", **ENTRY, ack="durable", id=OF_ITS_OWN)
        assert answer == {"status": "durable", "id": OF_ITS_OWN, "warnings": []}
        assert it.buffer.sizes == [(0.03, 1)]
        assert trio.current_time() == 0.03


async def test_what_waits_is_written_with_a_durable_entry(autojump_clock: trio.testing.MockClock) -> None:
    async with bench() as it:
        await it.call("logger_log", **ENTRY)
        await trio.sleep(0.0625)
        await it.call("logger_log", **ENTRY, ack="durable")
        assert it.buffer.sizes == [(0.0625, 2)]


async def test_durable_callers_share_the_next_write_while_one_is_under_way(
    autojump_clock: trio.testing.MockClock,
) -> None:
    answers: list[tuple[float, str]] = []
    async with bench() as it:
        it.buffer.takes_s = 0.5
        async with trio.open_nursery() as callers:
            callers.start_soon(partial(it.note, answers, ack="durable"))
            await trio.sleep(0.125)
            for _ in range(20):
                callers.start_soon(partial(it.note, answers, ack="durable"))
        assert it.buffer.sizes == [(0.5, 1), (1.0, 20)]
        assert answers == [(0.5, "durable")] + [(1.0, "durable")] * 20


async def test_a_durable_batch_is_answered_when_all_of_it_is_written(autojump_clock: trio.testing.MockClock) -> None:
    async with bench() as it:
        it.buffer.takes_s = 0.125
        logs = [{**ENTRY, "message": str(number)} for number in range(250)] + [{}]
        answer = await it.call("logger_log_batch", logs=logs, ack="durable")
        assert (answer["accepted"], len(answer["rejected"])) == (250, 1)
        assert sum(size for _, size in it.buffer.sizes) == 250
        assert trio.current_time() == it.buffer.sizes[-1][0]


@pytest.mark.parametrize("when", ["always", "from now on"])
async def test_durable_is_not_answered_where_redis_may_lose_it_and_the_answer_says_why(
    when: str, autojump_clock: trio.testing.MockClock
) -> None:
    """REL-001: for one entry and for a batch; what was asked for as queued is answered as ever."""
    async with bench() as it:
        if when == "from now on":
            assert (await it.call("logger_log", **ENTRY, ack="durable"))["status"] == "durable"
        it.buffer.weak = "Redis keeps nothing; set appendonly yes"
        warning = "not durable: Redis keeps nothing; set appendonly yes"
        answer = await it.call("logger_log", **ENTRY, ack="durable", id=OF_ITS_OWN)
        assert answer == {"status": "queued", "id": OF_ITS_OWN, "warnings": [warning]}
        answer = await it.call("logger_log_batch", logs=[ENTRY] * 150, ack="durable")
        assert (answer["status"], answer["accepted"], answer["warnings"]) == ("queued", 150, [warning])
        assert (await it.call("logger_log", **ENTRY))["warnings"] == []
        assert (await it.call("logger_log_batch", logs=[ENTRY]))["warnings"] == []
        it.buffer.weak = None
        assert (await it.call("logger_log", **ENTRY, ack="durable"))["status"] == "durable"
        assert (await it.call("logger_log_batch", logs=[ENTRY], ack="durable"))["status"] == "durable"


async def test_a_batch_of_which_one_write_went_to_a_redis_that_may_lose_it_is_not_durable(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-001: a failover in the middle."""
    async with bench() as it:
        it.buffer.takes_s, it.buffer.weak = 0.1, "a server without AOF"
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def fail_over() -> None:
                await trio.sleep(0.15)
                it.buffer.weak = None

            answer = await it.call("logger_log_batch", logs=[ENTRY] * 150, ack="durable")
        assert len(it.buffer.sizes) > 1
        assert (answer["status"], answer["warnings"]) == ("queued", ["not durable: a server without AOF"])


async def test_a_durable_batch_of_which_nothing_is_accepted_waits_for_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with bench() as it:
        answer = await it.answer("logger_log_batch", logs=[{}], ack="durable")
        assert (loads(answer.json)["accepted"], trio.current_time()) == (0, 0)


@pytest.mark.parametrize(
    ("logs", "is_error"),
    [
        ([{}], True),
        ([{}, {"component": "a", "level": "LOUD", "message": "m"}, 7], True),
        ([{}] * MAX_BATCH, True),
        ([{}, ENTRY], False),
        ([ENTRY], False),
        ([], False),
    ],
)
@pytest.mark.parametrize("ack", ["queued", "durable"])
async def test_a_batch_of_which_every_entry_was_refused_is_an_error_with_the_reasons_by_index(
    logs: list[Any], ack: str, is_error: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with bench() as it:
        answer = await it.answer("logger_log_batch", logs=logs, ack=ack)
        told = loads(answer.json)
        assert (answer.is_error, answer.kind) == (is_error, None)
        assert [each["index"] for each in told["rejected"]] == [at for at, each in enumerate(logs) if each != ENTRY]
        assert answer.value in (told, None)  # None: too large to travel twice


async def test_a_batch_of_which_every_entry_was_below_its_level_is_no_error(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with bench() as it:
        await it.call("logger_set_level", component=ENTRY["component"], level="ERROR")
        told = await it.call("logger_log_batch", logs=[ENTRY | {"level": "DEBUG"}])
        assert (told["accepted"], told["filtered"]) == (0, 1)


OTHER = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.mark.parametrize("tool", ["logger_log", "logger_log_batch"])
@pytest.mark.parametrize(
    ("given", "stored"),
    [({}, TRACE_ID), ({"trace_id": None}, TRACE_ID), ({"trace_id": OTHER}, OTHER), ({"trace_id": "none"}, None)],
)
async def test_an_entry_gets_the_trace_of_its_call_where_it_brings_none(
    tool: str, given: dict[str, Any], stored: str | None, autojump_clock: trio.testing.MockClock
) -> None:
    """COR-002."""
    async with bench() as it:
        trace.set(TRACE_ID)
        logs = [ENTRY | given, ENTRY | given]
        for arguments in [{"logs": logs}] if tool == "logger_log_batch" else logs:
            await it.call(tool, **arguments, ack="durable")
        assert [loads(raw)["trace_id"] for raw in (await it.buffer.take(10)).entries] == [stored, stored]


@pytest.mark.parametrize("tool", ["logger_log", "logger_log_batch"])
async def test_durable_is_refused_after_1_s_while_redis_is_away_and_says_what_to_do(
    tool: str, autojump_clock: trio.testing.MockClock
) -> None:
    """REL-004: nothing is acknowledged that is not on disk."""
    async with bench() as it:
        it.buffer.away = True
        fields = {**ENTRY, "id": OF_ITS_OWN}
        answer = await it.answer(tool, ack="durable", **(fields if tool == "logger_log" else {"logs": [fields]}))
        assert trio.current_time() == PATIENCE_S
        assert answer.is_error
        assert answer.value is not None
        assert answer.value["kind"] == "unavailable"
        assert "again, with ids" in answer.json or f"again with id {OF_ITS_OWN}" in answer.json
        assert (it.status.unconfirmed, it.status.refused) == (1, 0), "the operator sees that a caller was turned away"
        it.buffer.away = False
        await trio.sleep(5)
        assert [loads(raw)["id"] for raw in it.buffer.queue] == [OF_ITS_OWN], "it was kept all the same"


async def test_a_durable_batch_for_which_there_is_no_room_either_is_refused_after_the_same_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-004: the second is not counted twice."""
    async with bench() as it:
        it.buffer.away = True
        answer = await it.answer("logger_log_batch", ack="durable", logs=[ENTRY] * 400)
        assert trio.current_time() == PATIENCE_S
        assert answer.is_error
        assert "not on disk within 1 s" in answer.json
        assert it.status.unconfirmed + it.status.refused == 400
        assert it.status.unconfirmed > 0 < it.status.refused


async def test_an_entry_larger_than_the_queue_is_refused_at_the_door_and_the_setting_is_named() -> None:
    """GOD-005: its caller once got an id for it, and all that waited was thrown away."""
    async with bench(entry_max_bytes=2_000) as it:
        large = {**ENTRY, "message": "y" * 2_500}
        answer = await it.answer("logger_log", **large)
        assert answer.is_error
        assert "an entry may have 2,000 bytes as JSON here, this one has 2,6" in answer.json
        assert "GODOT_MAX_QUEUE_BYTES" in answer.json
        answer = await it.answer("logger_log_batch", logs=[ENTRY, large, ENTRY], ack="durable")
        assert answer.value is not None
        assert answer.value["accepted"] == 2
        assert [each["index"] for each in answer.value["rejected"]] == [1]
        assert (it.status.refused, len(it.buffer.queue)) == (0, 2)


async def test_the_default_is_that_of_the_deployment(autojump_clock: trio.testing.MockClock) -> None:
    async with bench("durable") as it:
        assert (await it.call("logger_log", **ENTRY))["status"] == "durable"
        assert (await it.call("logger_log", **ENTRY, ack=None))["status"] == "durable"
        assert (await it.call("logger_log", **ENTRY, ack="queued"))["status"] == "queued"
        assert "ack: must be one of queued, durable" in (await it.answer("logger_log", **ENTRY, ack="maybe")).json


async def test_a_full_channel_refuses_the_rest_of_a_batch_after_1_s_in_all(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with bench() as it:
        it.buffer.away = True
        answer = await it.call("logger_log_batch", logs=[ENTRY] * MAX_BATCH)
        assert trio.current_time() == PATIENCE_S
        # 200 wait in the channel, 100 in the batch that cannot be written.
        assert answer["accepted"] == 300
        assert [fault["index"] for fault in answer["rejected"]] == list(range(300, MAX_BATCH))
        assert it.status.refused == MAX_BATCH - 300


async def test_a_durable_call_holds_up_nothing_behind_it_and_keeps_its_place(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def frame(number: int, message: str, ack: str) -> str:
        arguments = {**ENTRY, "message": message, "ack": ack}
        params = {"name": "logger_log", "arguments": arguments}
        return dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}).decode()

    async def answered(client: MemoryTransport) -> tuple[int, float]:
        return loads(await client.receive())["id"], trio.current_time()

    async with bench() as it, trio.open_nursery() as nursery:
        it.buffer.takes_s = 0.5
        client, other = memory_transports(10)
        server = Server(ServerInfo("godot", "1", ""), it.toolbox, lambda event, peer, reason: None)
        nursery.start_soon(serve, server, other)
        await client.send(frame(1, "first", "durable"))
        await client.send(frame(2, "second", "queued"))
        assert [await answered(client), await answered(client)] == [(2, 0), (1, 0.5)]
        await trio.sleep(5)
        assert [loads(raw)["message"] for raw in it.buffer.queue] == ["first", "second"]
        await client.aclose()


def test_every_tool_and_every_argument_says_what_it_is_for() -> None:
    for tool in Table().toolbox.listing():
        assert tool["title"], tool["name"]
        assert len(tool["description"]) > 60, tool["name"]
        assert set(tool["annotations"]) >= {"readOnlyHint", "destructiveHint", "idempotentHint"}
        for name, schema in tool["inputSchema"]["properties"].items():
            assert schema["description"], f"{tool['name']}.{name}"


@pytest.mark.parametrize(
    "buffer", [FakeBuffer(max_size=10), FakeBuffer(100, max_bytes=2_000)], ids=["entries", "bytes"]
)
async def test_durable_is_not_said_of_what_its_own_push_dropped(
    autojump_clock: trio.testing.MockClock, buffer: FakeBuffer
) -> None:
    """REL-003: the queue holds fewer than come at once."""
    async with bench("durable", buffer=buffer) as it:
        for _ in range(2):  # whether or not others waited there
            answer = await it.answer("logger_log_batch", logs=[ENTRY] * 50)
            kept = len(buffer.queue)
            assert 0 < kept < 50
            assert (answer.is_error, answer.kind) == (True, "unavailable")
            assert f"{50 - kept} of 50 dropped: the queue is full" in answer.json
        # An entry that makes others go is there itself.
        assert (await it.call("logger_log", **ENTRY))["status"] == "durable"
        answer = await it.call("logger_log_batch", logs=[ENTRY] * (kept - 1))
        assert answer["status"] == "durable"
