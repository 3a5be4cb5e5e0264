"""What comes in broken, against the running daemon: frames, calls, entries, and what is in the buffer.

No input ends the daemon, and no entry stops the ones behind it: every test ends with a good call.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

import pytest
import trio
from trio_websocket import ConnectionClosed

from tests.programs import (
    ENOUGH,
    CallFault,
    Peer,
    Program,
    Workplace,
    answer,
    close_code,
    connect,
    dial,
    frame,
    select,
)

NUL = "\N{SYMBOL FOR NULL}"
LONE = "\N{REPLACEMENT CHARACTER}"

_numbers = count(1)


@pytest.fixture(scope="module")
def godot(shared_place: Workplace) -> Program:
    program = shared_place.up()
    trio.run(program.ready)
    return program


@pytest.fixture
def database(shared_place: Workplace, godot: Program) -> str:
    dsn: str = shared_place.endpoints()["database"]
    return dsn


@asynccontextmanager
async def peer_of(godot: Program) -> AsyncIterator[Peer]:
    """Connect; what follows must leave this very connection and the pipeline behind it working."""
    with trio.fail_after(ENOUGH):
        async with connect(godot.mcp) as peer:
            yield peer
            await still_stored(peer)
        assert not godot.ended
        assert godot.events("bug", "restart") == []
        assert godot.err == []


async def still_stored(peer: Peer) -> None:
    """Log an entry, and find it."""
    component = f"behind {next(_numbers)}"
    await peer.log("a good one behind", component=component)
    await peer.found(component=component)
    await peer.status_with(queued=0, in_flight=0)


async def test_what_is_no_call_gets_the_error_of_json_rpc_and_the_connection_lives(godot: Program) -> None:
    call = json.loads(frame("logger_log", component="gates", level="INFO", message="never"))
    broken: list[tuple[str | bytes, int, Any]] = [
        ("", -32700, None),
        ("hello", -32700, None),
        ('{"jsonrpc":"2.0","id":1,', -32700, None),
        ('{"jsonrpc":"2.0","id":1,"method":"ping"} {}', -32700, None),
        ('{"n":NaN}', -32700, None),
        ("[" * 100_000, -32700, None),
        (b"\xff\xfe", -32700, None),
        ("null", -32600, None),
        ("7", -32600, None),
        ('"logger_log"', -32600, None),
        ("[]", -32600, None),
        (json.dumps([call]), -32600, None),
        ("{}", -32600, None),
        (json.dumps(call | {"jsonrpc": "1.0"}), -32600, None),
        (json.dumps({name: call[name] for name in call if name != "jsonrpc"}), -32600, None),
        (json.dumps(call | {"method": 5}), -32600, None),
        (json.dumps(call | {"id": None}), -32600, None),
        (json.dumps(call | {"id": [1]}), -32600, None),
        (json.dumps(call | {"id": True}), -32600, None),
        (json.dumps(call | {"id": 1.5}), -32600, None),
        (json.dumps(call | {"id": 7, "method": "logger_log"}), -32601, 7),
        (json.dumps(call | {"id": "x", "method": "tools/cal"}), -32601, "x"),
        (json.dumps(call | {"id": 8, "params": [1]}), -32602, 8),
        (json.dumps(call | {"id": 9, "params": {}}), -32602, 9),
        (json.dumps(call | {"id": 10, "params": {"name": 5, "arguments": {}}}), -32602, 10),
        (json.dumps(call | {"id": 11, "params": {"name": "logger_lgo", "arguments": {}}}), -32602, 11),
        (json.dumps(call | {"id": 12, "params": {"name": "logger_log", "arguments": [1]}}), -32602, 12),
    ]
    async with peer_of(godot) as peer:
        before = await peer.status()
        for said, code, request_id in broken:
            response = await peer.ask(said)
            assert set(response) == {"jsonrpc", "id", "error"}, said[:80]
            assert (response["error"]["code"], response["id"]) == (code, request_id), (said[:80], response)
            assert response["error"]["message"], said[:80]
            if code == -32602 and request_id == 11:
                assert "did you mean 'logger_log'?" in response["error"]["message"]
        # What asks for nothing is not answered: the next answer is that of the next call.
        for silent in ('{"jsonrpc":"2.0","method":"nonsense"}', '{"jsonrpc":"2.0","id":1,"result":{}}'):
            await peer.send(silent)
        assert (await peer.status())["received"] == before["received"]


async def test_a_field_that_is_missing_or_wrong_is_named_with_what_is_allowed(godot: Program) -> None:
    good = {"component": "gates", "level": "INFO", "message": "never stored"}
    faults: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["component: required", "level: required", "message: required"]),
        ({"component": "gates", "level": "INFO"}, ["message: required, but missing"]),
        (good | {"component": 5}, ["component: must be a string, not a number"]),
        (good | {"component": ""}, ["component: must not be empty"]),
        (good | {"component": "x" * 256}, ["component: at most 255 characters, not 256"]),
        (good | {"component": None, "message": ["x"]}, ["component: must be a string, not null", "message: "]),
        (good | {"level": 30}, ["level: must be a string"]),
        (good | {"level": "WARNING"}, ["level: must be one of ERROR, WARN, INFO, DEBUG, TRACE", "'WARN'"]),
        (good | {"message": {"text": "x"}}, ["message: must be a string, not an object"]),
        (good | {"data": [1, 2]}, ["data: must be an object, not an array"]),
        (good | {"data": "text"}, ["data: must be an object, not a string"]),
        (good | {"created_at": 1_700_000_000}, ["created_at: "]),
        (good | {"created_at": "yesterday"}, ["created_at: must be ISO 8601"]),
        (good | {"created_at": "10000-01-01T00:00:00Z"}, ["created_at: must be ISO 8601"]),
        (good | {"id": "seven"}, ["id: must be a UUID"]),
        (good | {"id": 7}, ["id: must be a string, not a number"]),
        (good | {"mesage": "x"}, ["'mesage'", "did you mean 'message'?"]),
    ]
    async with peer_of(godot) as peer:
        before = await peer.status()
        for arguments, words in faults:
            response = await peer.ask(frame("logger_log", **arguments))
            with pytest.raises(CallFault) as caught:
                answer(response)
            assert [word for word in words if word not in str(caught.value)] == [], (arguments, str(caught.value))
        assert (await peer.status())["received"] == before["received"]


async def test_a_level_in_lower_case_is_accepted(godot: Program) -> None:
    async with peer_of(godot) as peer:
        for level in ("error", "Warn", "info", "debug", "trace"):
            answered = await peer.call("logger_log", component="lower", level=level, message=f"as {level}")
            assert answered["warnings"] == []
            assert (await peer.found(component="lower", search=level))["level"] == level.upper()


async def test_a_trace_id_that_is_no_uuid_is_left_out_and_kept_in_data(godot: Program) -> None:
    async with peer_of(godot) as peer:
        for number, wrong in enumerate(("req-17", "", 12345, "0af76519-16cd-43dd-8448", {"id": 1})):
            component = f"trace {number}"
            answered = await peer.log("x", component=component, trace_id=wrong, data={"a": 1})
            (warning,) = answered["warnings"]
            assert warning.startswith("trace_id: not a UUID")
            entry = await peer.found(component=component)
            assert entry["trace_id"] is None
            assert entry["data"] == {"a": 1, "_godot": {"trace_id": wrong}}

        # W3C's form of the same thing is one.
        assert (await peer.log("x", component="w3c", trace_id="0AF7651916CD43DD8448EB211C80319C"))["warnings"] == []
        assert (await peer.found(component="w3c"))["trace_id"] == "0af76519-16cd-43dd-8448-eb211c80319c"


async def test_nul_and_lone_surrogates_are_replaced_visibly(godot: Program, database: str) -> None:
    async with peer_of(godot) as peer:
        answered = await peer.log(
            "a\0b\ud800c", component="nul\0\udfff", data={"key\0": ["v\0", {"\ud801": "\udc01 x"}], "pair": "😀"}
        )
        (warning,) = answered["warnings"]
        assert "NUL" in warning
        component = f"nul{NUL}{LONE}"
        entry = await peer.found(component=component)
        assert entry["message"] == f"a{NUL}b{LONE}c"
        assert entry["data"] == {f"key{NUL}": [f"v{NUL}", {LONE: f"{LONE} x"}], "pair": "😀"}
        assert select(database, "SELECT count(*) FROM logs WHERE component = %s", component) == [(1,)]


async def test_a_message_of_2_mb_is_stored_whole_and_does_not_break_a_client_that_queries(
    godot: Program, database: str
) -> None:
    """The index sees a prefix; the answer is shortened to what a client with a limit of 1 MiB a frame takes."""
    message = "needle " + "word " * 400_000 + "end"
    async with peer_of(godot) as peer:
        assert (await peer.log(message, component="large"))["warnings"] == []
        entry = await peer.found(component="large", search="needle")
        found = await peer.call("logger_query", component="large")
        assert (found["count"], found["shortened"]) == (1, 1)
        assert entry["shortened"] == {"message": len(message)}
        assert message.startswith(entry["message"].removesuffix("…"))
        ((stored,),) = select(database, "SELECT message FROM logs WHERE component = 'large'")
        assert stored == message


async def test_data_of_5_mb_is_stored_whole(godot: Program, database: str) -> None:
    async with peer_of(godot) as peer:
        assert (await peer.log("x", component="blob", data={"blob": "x" * 5_000_000, "n": 1}))["warnings"] == []
        entry = await peer.found(component="blob")
        assert entry["shortened"] == {"data": 5_000_000 + len('{"n": 1, "blob": ""}')}
        assert select(database, "SELECT length(data->>'blob'), data->'n' FROM logs WHERE component = 'blob'") == [
            (5_000_000, 1)
        ]


async def test_times_far_outside_of_every_partition_are_stored(godot: Program, database: str) -> None:
    """DEW-005: in the default partition."""
    times = ["1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "3000-06-01T12:00:00+02:00", "9999-12-31T23:59:59"]
    async with peer_of(godot) as peer:
        for time in times:
            assert (await peer.log(time, component="times", created_at=time))["warnings"] == []
        await peer.found(component="times", search="9999")
    rows = select(
        database,
        "SELECT message, tableoid::regclass::text, created_at::text FROM logs WHERE component = 'times' ORDER BY 1",
    )
    assert rows == [
        ("0001-01-01T00:00:00Z", "logs_default", "0001-01-01 00:00:00+00"),
        ("1970-01-01T00:00:00Z", "logs_default", "1970-01-01 00:00:00+00"),
        ("3000-06-01T12:00:00+02:00", "logs_default", "3000-06-01 10:00:00+00"),
        ("9999-12-31T23:59:59", "logs_default", "9999-12-31 23:59:59+00"),
    ]


async def test_the_longest_component_and_odd_data_are_stored_as_they_are(godot: Program) -> None:
    odd: dict[str, Any] = {
        "": None,
        "big": 2**70,
        "float": -1.25e-7,
        "nested": {"a": [[[]]]},
        "né": "日本",
        "_godot": {"x": 1},
    }
    async with peer_of(godot) as peer:
        component = "日" * 255
        assert (await peer.log("x", component=component, data=odd))["warnings"] == []
        assert (await peer.found(component=component))["data"] == odd


async def test_the_digits_of_a_number_and_keys_that_come_twice_were_lost_without_a_word(godot: Program) -> None:
    said = '{"pi":3.14159265358979323846,"small":1e-400,"large":1234567890.12345678901,"dup":1,"dup":2}'
    call = frame("logger_log", component="exact", level="INFO", message="x", data={"here": "HERE"})
    async with peer_of(godot) as peer:
        logged = answer(await peer.ask(call.replace('{"here": "HERE"}', said)))
        assert len(logged["warnings"]) == 2
        await peer.found(component="exact")
        response = await peer.ask(frame("logger_query", component="exact"))
        (entry,) = json.loads(response["result"]["content"][0]["text"], parse_float=Decimal)["entries"]
        wanted = json.loads(said, parse_float=Decimal)
        assert entry["data"] == {**wanted, "_godot": {"repeated_keys": {"dup": [1]}}}


async def test_an_entry_of_five_million_values_stopped_the_delivery_of_all_others(godot: Program) -> None:
    """LIM-001: it is refused at the door; the largest that is let in is stored."""
    call = frame("logger_log", component="many", level="INFO", message="x", data={"here": "HERE"})
    async with peer_of(godot) as peer:
        many = ",".join(f'"k{number}":[{",".join(map(str, range(99)))}]' for number in range(52_000))
        refused = await peer.ask(call.replace('"here": "HERE"', many))
        assert "may have 400,000 keys and values" in refused["error"]["message"]
        assert refused["id"] == json.loads(call)["id"]
        most = ",".join(f'"k{number}":[{",".join(map(str, range(99)))}]' for number in range(3_800))
        logged = answer(await peer.ask(call.replace('"here": "HERE"', most)))
        assert (await peer.found(component="many"))["id"] == logged["id"]


@pytest.mark.parametrize("depth", [100, 490, 600, 5_000, 50_000])
async def test_deep_nesting_is_stored_or_refused_and_never_in_the_way(godot: Program, depth: int) -> None:
    call = frame("logger_log", component=f"deep {depth}", level="INFO", message="x", data={"deep": "HERE"})
    async with peer_of(godot) as peer:
        dead = (await peer.status())["dead"]
        response = await peer.ask(call.replace('"HERE"', "[" * depth + "]" * depth))
        if "error" in response:
            assert depth > 500
            assert "nested" in response["error"]["message"]
        elif response["result"]["isError"]:
            assert depth > 500
            assert "nested" in response["result"]["content"][0]["text"]
        else:
            await peer.found(component=f"deep {depth}")
        assert (await peer.status())["dead"] == dead, "what was accepted can be stored"


async def test_a_frame_over_the_limit_closes_its_connection_with_1009(godot: Program) -> None:
    """GODOT_MAX_MESSAGE_BYTES, 16 MiB: just below it is taken, in one frame."""
    with trio.fail_after(ENOUGH):
        async with connect(godot.mcp) as neighbour:
            async with connect(godot.mcp) as peer:
                assert (await peer.log("x" * (15 * 1024 * 1024), component="below"))["status"] == "queued"
                with pytest.raises(ConnectionClosed) as caught:
                    await peer.log("x" * (16 * 1024 * 1024), component="above")
                assert close_code(caught.value) == 1009
            await still_stored(neighbour)
            assert (await neighbour.call("logger_query", component="above"))["count"] == 0
            await neighbour.found(component="below")


async def test_a_binary_frame_is_read_like_a_text_frame(godot: Program) -> None:
    async with peer_of(godot) as peer:
        call = frame("logger_log", component="binary", level="INFO", message="x").encode()
        assert UUID(answer(await peer.ask(call))["id"])
        await peer.found(component="binary")


async def test_what_is_no_websocket_or_a_broken_one_harms_nobody_else(godot: Program) -> None:
    async with peer_of(godot):
        async with dial(godot.mcp) as raw:  # a browser, or a health check
            await raw.stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await raw.rest()).startswith(b"HTTP/1.1 4")
        for noise in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\r\n" * 5_000, b"\0" * 100_000, b""):
            async with dial(godot.mcp) as raw:
                # It may wait the time of a handshake before it hangs up, or do so before it has got all of it.
                with trio.move_on_after(0.2), suppress(trio.BrokenResourceError):
                    await raw.stream.send_all(noise)
                    await raw.rest()
        async with dial(godot.mcp) as raw:  # text that is no UTF-8
            await raw.upgrade()
            await raw.send(b'{"message": "\xff\xfe"}')
            await raw.rest()
        async with dial(godot.mcp) as raw:  # a frame without mask
            await raw.upgrade()
            await raw.stream.send_all(b"\x81\x02{}")
            await raw.rest()
        async with dial(godot.mcp) as raw:  # an opcode that there is not
            await raw.upgrade()
            await raw.send(b"{}", opcode=5)
            await raw.rest()
        async with dial(godot.mcp) as raw:  # gone in the middle of a frame
            await raw.upgrade()
            await raw.stream.send_all(b"\x81\xfe\x10\x00\0\0\0\0{")
        async with dial(godot.mcp) as raw:  # gone before the answer
            await raw.upgrade()
            await raw.send(frame("logger_query").encode())
