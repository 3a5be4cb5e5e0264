"""No message keeps the event loop, whatever it holds (LIM-001): every argument of every tool at its largest, and
what was seen to stop the daemon for seconds.

What is allowed is counted in bare frames of the same run, so that a slow machine is no failure.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import pytest
import trio

from godot.json.structure import MAX_ITEMS
from godot.json.text import MAX_VALUES
from tests.integration.loop_lag import ALLOWED_BARE, TRIES, Pipeline, pipeline

LARGE: Final = 15_000_000
"""Nearly what a frame may have."""

FULL: Final = MAX_VALUES - 10_000
"""Nearly as many keys and values as an entry may have."""

ENTRY: Final = {"component": "c", "level": "INFO", "message": "m"}

NEEDED: Final[dict[str, dict[str, Any]]] = {
    "logger_log": ENTRY,
    "logger_log_batch": {"logs": [ENTRY]},
    "logger_set_level": {"component": "c", "level": "INFO"},
    "logger_tail": {"wait_s": 0},
    "logger_dead_retry": {"ids": ["x"]},
    "logger_dead_purge": {"ids": ["x"]},
    "logger_clear": {"dry_run": True},
}


@pytest.fixture
async def godot() -> AsyncIterator[Pipeline]:
    with trio.fail_after(300):
        async with pipeline() as running:
            yield running


def call(tool: str, arguments: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"%b","arguments":%b}}' % (
        tool.encode(),
        arguments,
    )


def log(data: bytes) -> bytes:
    return call("logger_log", b'{"component":"c","level":"INFO","message":"m","data":%b}' % data)


def batch(*entries: dict[str, Any]) -> bytes:
    return call("logger_log_batch", json.dumps({"logs": entries}).encode())


async def said_within_budget(godot: Pipeline, exchange: Callable[[], str], what: str) -> str:
    """Return the answer, which must not have kept the loop longer than allowed in each of some tries."""
    lags: list[str] = []
    for _ in range(TRIES):
        lag, said = await godot.lag(exchange)
        if lag <= (allowed := ALLOWED_BARE * await godot.bare_s(again=bool(lags))):
            assert not [line for line in godot.lines if "bug" in line]
            return str(said)
        lags.append(f"{lag * 1000:.0f} of {allowed * 1000:.0f} ms")
    raise AssertionError(f"{what} kept the event loop for {', '.join(lags)}")


def of_type(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield one schema for each type that a schema allows."""
    if "anyOf" in schema:
        for each in schema["anyOf"]:
            yield {**{k: v for k, v in schema.items() if k != "anyOf"}, **each}
        return
    types = schema.get("type")
    for each in types if isinstance(types, list) else [types]:
        yield schema if each is None else {**schema, "type": each}


def largest(schema: dict[str, Any]) -> Iterator[bytes]:
    """Yield values of an argument, as JSON: at its bounds, and beyond, as large as a frame takes."""
    for each in of_type(schema):
        match each.get("type", "string" if "enum" in each else None):
            case "string":
                yield json.dumps('*"x'.ljust(min(each.get("maxLength", LARGE), LARGE), "*")).encode()
                yield json.dumps("x " * (LARGE // 2)).encode()
            case "array":
                item = json.dumps("*".ljust(100, "x"))
                yield f"[{','.join([item] * each.get('maxItems', MAX_ITEMS))}]".encode()
                yield f"[{','.join(['{}'] * (FULL // 2))}]".encode()
            case "object" | None:
                yield b"{%b}" % b",".join(b'"k%d":%d' % (i, i) for i in range(FULL // 2))
                yield b'{"a":[%b]}' % b",".join([b"[" * 400 + b"]" * 400] * (FULL // 402))
            case "integer" | "number":
                for number in (each.get("maximum", 0), 10**4_000, -(10**4_000), "1e308", "1.5e-400", 0.1):
                    yield str(number).encode()


async def test_every_tool_takes_every_argument_at_its_largest_and_answers_others_meanwhile(godot: Pipeline) -> None:
    """LIM-001."""
    listed = await trio.to_thread.run_sync(godot.ask, b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}')
    tools = json.loads(listed)["result"]["tools"]
    assert len(tools) >= 13
    for tool in tools:
        name, schema = tool["name"], tool["inputSchema"]
        for argument, about in schema["properties"].items():
            for value in largest(about):
                if argument == "wait_s" and value == b"30.0":
                    continue  # it would wait, which keeps nothing
                others = {each: given for each, given in NEEDED.get(name, {}).items() if each != argument}
                arguments = json.dumps(others).encode()[:-1] + (b"," if others else b"")
                frame = call(name, arguments + json.dumps(argument).encode() + b":" + value + b"}")
                what = f"{name} {argument}={value[:20]!r} of {len(value):,} bytes"
                said = await said_within_budget(godot, lambda frame=frame: godot.ask(frame), what)  # type: ignore[misc]
                assert said.startswith('{"jsonrpc":"2.0","id":7,'), what


KEYS_AND_VALUES: Final = (
    "may have 400,000 keys and values, this one has more; send it in parts, or the largest part as a text"
)
UNKNOWN: Final = [{**ENTRY, "u" * size + str(i): 1} for size in (3_000, 15_000) for i in range(500)]
MANY_UNKNOWN: Final = [{**ENTRY, **{f"leevl{i}_{j}".ljust(90, "x"): 1 for j in range(20)}} for i in range(1_000)]


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        pytest.param(call("logger_log", json.dumps({**ENTRY, "level": "x" * LARGE}).encode()), "level: must be one of",
                     id="a level of 15 MB"),
        pytest.param(call("logger_log", json.dumps({**ENTRY, "x" * LARGE: 1}).encode()), "unknown field 'xxx",
                     id="a field name of 15 MB"),
        pytest.param(call("x" * LARGE, b"{}"), "Unknown tool: xxx", id="a tool name of 15 MB"),
        pytest.param(json.dumps({"jsonrpc": "2.0", "id": "x" * LARGE, "method": "ping"}).encode(), "1,000 characters",
                     id="a request id of 15 MB"),
        pytest.param(batch(*UNKNOWN), "unknown field 'uuu", id="1,000 entries with unknown fields of 3 to 15 kB"),
        pytest.param(batch(*MANY_UNKNOWN), "and 15 more", id="1,000 entries with 20 unknown fields each"),
        pytest.param(call("logger_log", b"{%b}" % b",".join(b'"f%d":1' % i for i in range(FULL // 2))), "more (known:",
                     id="195,000 unknown fields"),
        pytest.param(b"[%b]" % b",".join([b"1"] * 1_000_000), KEYS_AND_VALUES, id="a JSON-RPC batch of a million ones"),
        pytest.param(log(b'{"a":[%b]}' % b",".join([b"[" * 400 + b"]" * 400] * 6_000)), KEYS_AND_VALUES,
                     id="6,000 times 400 levels of nesting"),
        pytest.param(log(b"{%b}" % b",".join(b'"k%d":[%b]' % (i, b",".join([b"1"] * 99)) for i in range(52_000))),
                     KEYS_AND_VALUES, id="5.2 million values in one entry"),
        pytest.param(log(b'{"a":"%b"}' % (b"\\u0000" * (LARGE // 6))), "queued", id="an entry of nothing but NUL"),
        pytest.param(log(b'{"a":"%b"}' % (b'{\\"a\\":1},' * (LARGE // 11))), "queued", id="JSON in a text of 15 MB"),
        pytest.param(log(b'{"a":[%b]}' % b",".join(b"%d" % (i * 7_919) for i in range(FULL))), "queued",
                     id="as many numbers as are allowed"),
        pytest.param(log(b"{%b}" % b",".join(b'"k%048d":1' % i for i in range(FULL // 2))), "queued",
                     id="as many keys as are allowed"),
        pytest.param(log(b'{"a":[%b]}' % b",".join([b"[" * 400 + b"]" * 400] * (FULL // 402))), "queued",
                     id="as much nesting as is allowed"),
        pytest.param(log(b"{%b}" % b",".join([b'"a":1'] * (FULL // 2))), "data: keys came more than once",
                     id="one key 195,000 times"),
        pytest.param(log(b'{"a":[%b]}' % b",".join([b"0.12345678901234567890"] * (FULL // 4))), "stored as written",
                     id="97,500 numbers that no float holds"),
    ],
)  # fmt: skip
async def test_one_message_stopped_the_daemon_for_seconds(godot: Pipeline, frame: bytes, expected: str) -> None:
    """LIM-001: it is refused in words, or stored; and others are answered meanwhile."""
    said = await said_within_budget(godot, lambda: godot.ask(frame), f"{len(frame):,} bytes")
    assert expected in said


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            b'{"x":1}\n' * 100_000, "the last of them line 1,000: what follows was not read", id="100,000 bad lines"
        ),
        pytest.param(b"1\n" * 400_000, "the last of them line 1,000: what follows was not read", id="400,000 ones"),
        pytest.param(b"\n" * 15_000_000, "at most 500,000 lines in one request, not 15,000,000", id="only line ends"),
        pytest.param(b'{"a":[%b]}' % b",".join([b"1"] * 7_000_000), KEYS_AND_VALUES, id="7 million values in a line"),
    ],
)
async def test_one_post_stopped_the_daemon_for_seconds(godot: Pipeline, body: bytes, expected: str) -> None:
    """LIM-001."""
    assert expected in await said_within_budget(godot, lambda: godot.post(body), f"{len(body):,} bytes")
