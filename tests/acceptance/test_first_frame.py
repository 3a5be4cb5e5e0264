"""The first frame of a deployed client, and logging and finding with nothing but JSON on a WebSocket."""

from __future__ import annotations

import json
import time
from statistics import median
from typing import Any
from uuid import uuid4

import pytest
import trio

from tests.programs import (
    ENOUGH,
    CallFault,
    Program,
    Workplace,
    answer,
    connect,
    dial,
    frame,
    select,
    stored_messages,
    until,
)

FIRST_FRAME = (
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"logger_log","arguments":'
    '{"component":"gates","level":"INFO","message":"hello","data":null,"trace_id":null}}}'
)
"""What deployed clients send: no initialize, no subprotocol."""

SLOWER = 10
"""How many times as long as an echo of the same frame the median answer may take."""


@pytest.fixture(scope="module")
def godot(shared_place: Workplace) -> Program:
    program = shared_place.up()
    trio.run(program.ready)
    return program


async def took(url: str, tries: int = 11) -> tuple[float, list[Any]]:
    """Send the first frame on connections of its own; return the median time, and what was answered."""
    times, responses = [], []
    for _ in range(tries):
        async with connect(url) as peer:
            begun = time.perf_counter()
            await peer.send(FIRST_FRAME)
            responses.append(await peer.receive())
            times.append(time.perf_counter() - begun)
    return median(times), responses


async def test_the_first_frame_is_answered_at_once_and_its_entry_is_found_as_soon_as_it_is_stored(
    godot: Program, place: Workplace
) -> None:
    """GOD-000: a bare tools/call, one short connection for each entry."""
    with trio.fail_after(ENOUGH):
        echo = place.start("python", "-m", "tests.bench.echo")
        echoed, _ = await took((await until(lambda: echo.out))[0])
        answered, responses = await took(godot.mcp)
        assert {(each["jsonrpc"], each["id"]) for each in responses} == {("2.0", 1)}
        said = [answer(each) for each in responses]
        assert [(each["status"], each["warnings"]) for each in said] == [("queued", [])] * len(said)
        assert answered <= SLOWER * echoed

        async with connect(godot.mcp) as peer:
            await peer.status_with(queued=0, in_flight=0, stored=len(said))
            entries = (await peer.call("logger_query", component="gates"))["entries"]
        assert {each["id"] for each in entries} == {each["id"] for each in said}
        expected = {"component": "gates", "level": "INFO", "message": "hello", "data": None, "trace_id": None}
        assert [{name: each[name] for name in expected} for each in entries] == [expected] * len(said)
        assert all(0 <= each["age"] < ENOUGH for each in entries), "DEW-008"


async def test_logs_and_finds_with_raw_json_and_no_websocket_library(godot: Program) -> None:
    """What a reader pastes into websocat: several calls on one connection, answered in their order."""
    trace_id = str(uuid4())
    with trio.fail_after(ENOUGH):
        async with dial(godot.mcp) as raw:
            await raw.upgrade()
            for text in ("pasted one", "pasted two"):
                call = frame("logger_log", component="raw", level="warn", message=text, trace_id=trace_id)
                await raw.send(call.encode())
            for _ in range(2):
                opcode, payload = await raw.receive()
                assert opcode == 1, "a text frame"
                assert answer(json.loads(payload))["status"] == "queued"
            entries: list[dict[str, object]] = []
            while len(entries) < 2:
                await raw.send(frame("logger_query", trace_id=trace_id, order="oldest").encode())
                entries = answer(json.loads((await raw.receive())[1]))["entries"]
        assert [(each["message"], each["level"]) for each in entries] == [
            ("pasted one", "WARN"),
            ("pasted two", "WARN"),
        ]


async def test_an_older_name_of_logger_log_is_understood(godot: Program) -> None:
    with trio.fail_after(ENOUGH):
        async with connect(godot.mcp) as peer:
            answered = await peer.call("godot_logger_log", component="older", level="INFO", message="by its alias")
            assert answered["status"] == "queued"
            assert (await peer.found(component="older"))["id"] == answered["id"]


async def test_the_answer_names_the_entry_and_the_same_id_twice_is_stored_once(godot: Program) -> None:
    """MCP-003: with and without a time of its own."""
    with trio.fail_after(ENOUGH):
        async with connect(godot.mcp) as peer:
            ids = {str(uuid4()): {}, str(uuid4()): {"created_at": "2026-11-20T08:30:00+01:00"}}
            for entry_id, more in ids.items():
                for _ in range(2):
                    assert (await peer.log("again", component="twice", id=entry_id, **more))["id"] == entry_id
            await peer.log("last", component="twice")
            await peer.found(component="twice", search="last")
            found = (await peer.call("logger_query", component="twice", search="again"))["entries"]
            assert sorted(entry["id"] for entry in found) == sorted(ids)
            assert "2026-11-20T07:30:00.000000Z" in {entry["created_at"] for entry in found}


async def test_a_batch_of_1000_is_taken_in_one_call_and_1001_are_refused(
    shared_place: Workplace, godot: Program
) -> None:
    """DEW-001's limit holds at Godot's port too: nothing of what is over it is taken."""
    with trio.fail_after(ENOUGH):
        async with connect(godot.mcp) as peer:
            messages = [f"entry {number}" for number in range(1_000)]
            await peer.log_batch(messages, component="thousand")

            logs = [{"component": "over", "level": "INFO", "message": message} for message in [*messages, "too many"]]
            with pytest.raises(CallFault, match="at most 1,000"):
                await peer.call("logger_log_batch", logs=logs)

            await peer.log("behind", component="over")
            await peer.found(component="over", search="behind")
        database = shared_place.endpoints()["database"]
        assert stored_messages(database, "thousand") == messages
        assert stored_messages(database, "over") == ["behind"]


async def test_a_mixed_batch_is_rejected_by_index_and_its_good_entries_are_stored(
    shared_place: Workplace, godot: Program
) -> None:
    """DEW-003, at the listener: each entry is judged for itself."""
    good = {"component": "mixed", "level": "INFO", "message": "good"}
    logs = [
        good | {"message": "first"},
        good | {"level": "LOUD"},
        "no object",
        good | {"message": "second", "trace_id": "no uuid"},
        {"component": "mixed", "level": "INFO"},
        good | {"component": 7, "colour": "red"},
        good | {"created_at": "yesterday"},
        good | {"message": "third"},
    ]
    with trio.fail_after(ENOUGH):
        async with connect(godot.mcp) as peer:
            answered = await peer.call("logger_log_batch", logs=logs)
            assert (answered["accepted"], answered["filtered"]) == (3, 0)
            faults = {each["index"]: each["error"] for each in answered["rejected"]}
            assert sorted(faults) == [1, 2, 4, 5, 6]
            assert "ERROR, WARN, INFO, DEBUG, TRACE" in faults[1]
            assert "must be an object" in faults[2]
            assert faults[4] == "message: required, but missing"
            assert "component: must be a string, not a number" in faults[5]
            assert "'colour'" in faults[5]
            assert "created_at: must be ISO 8601" in faults[6]
            (warning,) = answered["warnings"]
            assert warning.startswith("entry 3: trace_id: not a UUID")

            await peer.found(component="mixed", search="third")
        database = shared_place.endpoints()["database"]
        assert stored_messages(database, "mixed") == ["first", "second", "third"]
        kept = select(database, "SELECT data FROM logs WHERE component = 'mixed' AND message = 'second'")
        assert kept == [({"_godot": {"trace_id": "no uuid"}},)]
