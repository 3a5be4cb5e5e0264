"""The pipe of `godot connect`: what it remembers, what it answers in Godot's place, and its three streams."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_websocket import WebSocketRequest, serve_websocket

from godot import connect
from godot.backoff import delays
from godot.cli import connect as streams
from godot.connect import (
    CONNECTION_LOST,
    DRAIN_S,
    GREETING_S,
    LONGEST_PAUSE_S,
    MAX_IN_FLIGHT,
    MAX_WAITING,
    NOT_CONNECTED,
    PATIENCE_S,
    SILENT_S,
    Address,
    Conversation,
    HostGone,
    Lines,
    Pipe,
    Refused,
    Unreachable,
    one_line,
    over_websocket,
)
from godot.errors import ConfigError
from godot.mcp.transport import MemoryTransport, Transport, TransportClosed, memory_transports

URL = "ws://127.0.0.1:9060"
LONG = 10_000.0  # virtual seconds

INITIALIZE = '{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}'
INITIALIZED = '{"jsonrpc":"2.0","method":"notifications/initialized"}'
WELCOME = '{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18"}}'
NOTICE = '{"jsonrpc":"2.0","method":"notifications/progress","params":{}}'


def call(request_id: object, method: str = "tools/call") -> str:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method})


def result(request_id: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "result": {}})


def cancelled(request_id: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}})


class FakeHost:
    """A host: what it says, what it has read, and when."""

    def __init__(self) -> None:
        self._say, self._said = trio.open_memory_channel[bytes](1_000_000)
        self._wrote, self._written = trio.open_memory_channel[str](1_000_000)
        self.reads = trio.Event()
        self.reads.set()
        self.gone = False
        self.told: list[str] = []

    def says(self, *lines: str) -> None:
        for line in lines:
            self._say.send_nowait(line.encode() + b"\n")

    def ends(self) -> None:
        self._say.close()

    async def hears(self) -> str:
        return await self._written.receive()

    async def hears_error(self) -> tuple[Any, int, str]:
        answer = json.loads(await self.hears())
        assert answer.keys() == {"jsonrpc", "id", "error"}
        return answer["id"], answer["error"]["code"], answer["error"]["message"]

    @property
    def heard(self) -> int:
        return self._written.statistics().current_buffer_used

    @property
    def unread(self) -> int:
        return self._said.statistics().current_buffer_used

    async def read(self) -> bytes:
        try:
            return await self._said.receive()
        except trio.EndOfChannel:
            return b""

    async def write(self, line: str) -> None:
        await self.reads.wait()
        if self.gone:
            raise HostGone
        assert "\n" not in line
        self._wrote.send_nowait(line)

    async def tell(self, text: str) -> None:
        self.told.append(text)


class FakeGodot:
    """A Godot that can be away, and whose connections end in the hands of the test."""

    def __init__(self) -> None:
        self.trouble: Unreachable | Refused | None = None
        self.tries: list[float] = []
        self._accepted, self._connections = trio.open_memory_channel[MemoryTransport](1_000)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Transport]:
        await trio.lowlevel.checkpoint()
        self.tries.append(trio.current_time())
        if self.trouble is not None:
            raise self.trouble
        ours, theirs = memory_transports()
        self._accepted.send_nowait(theirs)
        try:
            yield ours
        finally:
            await ours.aclose()

    async def accepts(self) -> MemoryTransport:
        return await self._connections.receive()

    def goes(self) -> None:
        self.trouble = Unreachable("Connection refused")

    def comes(self) -> None:
        self.trouble = None


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def godot() -> FakeGodot:
    return FakeGodot()


@pytest.fixture
def steady_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the jitter out of the pauses between tries."""
    monkeypatch.setattr(connect, "delays", partial(delays, jitter=lambda delay: delay))


@asynccontextmanager
async def piping(host: FakeHost, godot: FakeGodot) -> AsyncIterator[None]:
    with trio.fail_after(LONG):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Pipe(godot.connect, host, URL).run)
            yield
            nursery.cancel_scope.cancel()


async def open_session(host: FakeHost, godot: FakeGodot) -> MemoryTransport:
    """Connect, with a session of the legacy era."""
    there = await godot.accepts()
    host.says(INITIALIZE)
    assert await there.receive() == INITIALIZE
    await there.send(WELCOME)
    assert await host.hears() == WELCOME
    host.says(INITIALIZED)
    assert await there.receive() == INITIALIZED
    return there


async def test_lines_become_frames_and_frames_lines_as_they_are(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    odd = '{ "id":1.0e2 ,"method" : "tools\\u002fcall", "jsonrpc":"2.0","params":{"b":1,"a":"\u00e9\\n"} }'
    async with piping(host, godot):
        there = await godot.accepts()
        for line in (odd, "this is no JSON", call(7)):
            host.says(line)
            assert await there.receive() == line
        for frame in ('{"jsonrpc" : "2.0","id":7,"result":{"text":"a\\nb"}}', NOTICE, call(7, "ping"), "no JSON"):
            await there.send(frame)
            assert await host.hears() == frame


async def test_a_frame_of_many_lines_and_one_of_bytes_come_out_as_one_line(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    async with piping(host, godot):
        there = await godot.accepts()
        await there.send('{"jsonrpc": "2.0",\r\n "result": {"text": "a\\nb"},\n "id": 7\n}\n')
        assert await host.hears() == '{"jsonrpc": "2.0",   "result": {"text": "a\\nb"},  "id": 7 } '
        await there.outgoing.send('{"a":"é"}\n'.encode())
        assert await host.hears() == '{"a":"é"} '


async def test_empty_lines_and_line_ends_of_windows_are_no_messages(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    async with piping(host, godot):
        there = await godot.accepts()
        host.says("", " \r", f"{call(1)}\r")
        assert await there.receive() == call(1)


async def test_a_request_waits_for_godot_and_a_notification_does_not(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    godot.goes()
    async with piping(host, godot):
        host.says(call(1), NOTICE, call("two"))
        await trio.sleep(3)
        godot.comes()
        there = await godot.accepts()
        assert [await there.receive(), await there.receive()] == [call(1), call("two")]
        host.says(call(3))
        assert await there.receive() == call(3)


async def test_a_request_is_answered_after_ten_seconds_without_a_connection(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    godot.goes()
    async with piping(host, godot):
        await trio.sleep(100)
        began = trio.current_time()
        host.says(call("a"))
        await trio.sleep(4)
        host.says(call("b"), "no JSON")
        assert await host.hears_error() == (
            "a",
            NOT_CONNECTED,
            f"cannot reach Godot at {URL} (Connection refused), so nothing was done; start Godot with `godot up`, "
            "or tell godot connect where it is (its argument, or GODOT_URL)",
        )
        assert trio.current_time() - began == PATIENCE_S
        assert (await host.hears_error())[0] == "b"
        assert (await host.hears_error())[0] is None
        assert trio.current_time() - began == PATIENCE_S + 4
        godot.comes()
        there = await godot.accepts()
        host.says(call("c"))
        assert await there.receive() == call("c")


async def test_requests_in_flight_are_answered_when_the_connection_breaks(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    async with piping(host, godot):
        there = await godot.accepts()
        for request_id in (1, "1", 2):
            host.says(call(request_id))
            await there.receive()
        await there.send(result("1"))
        assert await host.hears() == result("1")
        await there.aclose()
        for request_id in (1, 2):
            assert await host.hears_error() == (
                request_id,
                CONNECTION_LOST,
                f"the connection to Godot at {URL} was lost before the answer came (it went away), so what was asked "
                "may or may not have been done; godot connect is connecting again: ask again if doing it twice does "
                "no harm",
            )
        there = await godot.accepts()
        host.says(call(3))
        assert await there.receive() == call(3)
        assert host.heard == 0


async def test_a_session_goes_on_over_a_new_connection_and_the_host_does_not_notice(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    async with piping(host, godot):
        there = await open_session(host, godot)
        for _ in range(3):
            await there.aclose()
            there = await godot.accepts()
            host.says(call(0))  # the id of `initialize`, used again
            assert await there.receive() == INITIALIZE
            await wait_all_tasks_blocked()
            await there.send(NOTICE)
            await there.send(WELCOME)
            assert [await there.receive(), await there.receive()] == [INITIALIZED, call(0)]
            await there.send(result(0))
            assert [await host.hears(), await host.hears()] == [NOTICE, result(0)]
        assert host.heard == 0


async def test_an_initialize_in_flight_is_asked_again_and_its_answer_reaches_the_host(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    async with piping(host, godot):
        there = await godot.accepts()
        host.says(INITIALIZE)
        await there.receive()
        await there.aclose()
        there = await godot.accepts()
        assert await there.receive() == INITIALIZE
        await there.send(WELCOME)
        assert await host.hears() == WELCOME
        host.says(INITIALIZED, call(1))
        assert [await there.receive(), await there.receive()] == [INITIALIZED, call(1)]


async def test_a_session_that_is_opened_before_godot_is_there_waits_in_order(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    godot.goes()
    async with piping(host, godot):
        host.says(INITIALIZE, INITIALIZED, call(1))  # all at once, as some clients do
        await trio.sleep(PATIENCE_S - LONGEST_PAUSE_S - 1)
        godot.comes()
        there = await godot.accepts()
        assert await there.receive() == INITIALIZE
        await there.send(WELCOME)
        assert await host.hears() == WELCOME
        assert [await there.receive(), await there.receive()] == [INITIALIZED, call(1)]


async def test_an_initialize_that_was_given_up_is_not_said_again(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    godot.goes()
    async with piping(host, godot):
        host.says(INITIALIZE)
        assert (await host.hears_error())[:2] == (0, NOT_CONNECTED)
        assert trio.current_time() == PATIENCE_S
        godot.comes()
        there = await godot.accepts()
        host.says(call(1))
        assert await there.receive() == call(1)


async def test_an_initialize_that_godot_refused_is_not_said_again(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    no = '{"jsonrpc":"2.0","id":0,"error":{"code":-32601,"message":"Method not found"}}'
    async with piping(host, godot):
        there = await godot.accepts()
        host.says(INITIALIZE)
        await there.receive()
        await there.send(no)
        assert await host.hears() == no
        await there.aclose()
        there = await godot.accepts()
        host.says(call(1))
        assert await there.receive() == call(1)


async def test_a_second_initialize_replaces_the_first_and_each_is_answered(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    second = INITIALIZE.replace('"id":0', '"id":"again"')
    godot.goes()
    async with piping(host, godot):
        host.says(INITIALIZE, second)
        await trio.sleep(1)
        godot.comes()
        there = await godot.accepts()
        assert await there.receive() == second
        await there.send(result("again"))
        assert await host.hears() == result("again")
        assert await there.receive() == INITIALIZE
        await there.send(WELCOME)
        assert await host.hears() == WELCOME
        await there.aclose()
        assert await (await godot.accepts()).receive() == second


async def test_a_godot_that_does_not_take_the_session_up_again_is_left_after_five_seconds(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    async with piping(host, godot):
        await (await open_session(host, godot)).aclose()
        there = await godot.accepts()
        began = trio.current_time()
        host.says(call(1))
        assert await there.receive() == INITIALIZE
        with pytest.raises(TransportClosed):
            await there.receive()
        assert trio.current_time() - began == GREETING_S
        there = await godot.accepts()
        assert await there.receive() == INITIALIZE
        await there.send(WELCOME)
        assert [await there.receive(), await there.receive()] == [INITIALIZED, call(1)]
    assert f"lost the connection to {URL} (it did not answer `initialize` within 5 s); connecting again" in host.told


async def test_a_cancelled_request_is_neither_sent_nor_answered(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    godot.goes()
    async with piping(host, godot):
        host.says(call(1), call(2), cancelled(1), cancelled(True), cancelled(None))
        await trio.sleep(1)
        godot.comes()
        there = await godot.accepts()
        assert await there.receive() == call(2)
        host.says(cancelled(2))
        assert await there.receive() == cancelled(2)
        await there.aclose()
        there = await godot.accepts()
        assert host.heard == 0


async def test_a_batch_is_answered_in_one_array(host: FakeHost, godot: FakeGodot, autojump_clock: MockClock) -> None:
    batch = f"[{call(1)},{NOTICE},{call('two')},{call(3)}]"
    async with piping(host, godot):
        there = await godot.accepts()
        host.says(batch)
        assert await there.receive() == batch
        await there.send(f"[{result(3)}]")
        assert await host.hears() == f"[{result(3)}]"
        await there.aclose()
        answers = json.loads(await host.hears())
        assert [(answer["id"], answer["error"]["code"]) for answer in answers] == [
            (1, CONNECTION_LOST),
            ("two", CONNECTION_LOST),
        ]


async def test_the_end_of_stdin_waits_for_the_answers_and_no_longer(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    async with piping(host, godot):
        there = await godot.accepts()
        host._say.send_nowait(f"{call(1)}\n{call(2)}".encode())  # the last line without its end
        host.ends()
        assert [await there.receive(), await there.receive()] == [call(1), call(2)]
        await trio.sleep(DRAIN_S - 1)
        await there.send(result(1))
        await there.send(result(2))
        with pytest.raises(TransportClosed):
            await there.receive()
        assert trio.current_time() == DRAIN_S - 1
        assert [await host.hears(), await host.hears()] == [result(1), result(2)]


async def test_the_end_of_stdin_answers_after_five_seconds_what_godot_has_not(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    host.says(call(1))
    host.ends()
    with trio.fail_after(LONG):
        assert await Pipe(godot.connect, host, URL).run() is None
    assert trio.current_time() == DRAIN_S
    assert (await host.hears_error())[:2] == (1, CONNECTION_LOST)


async def test_a_request_by_hand_with_nobody_there_is_answered_before_the_end(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    godot.goes()
    host.says(call(1))
    host.ends()
    with trio.fail_after(LONG):
        assert await Pipe(godot.connect, host, URL).run() is None
    assert trio.current_time() == DRAIN_S
    request_id, code, message = await host.hears_error()
    assert (request_id, code) == (1, NOT_CONNECTED)
    assert "(Connection refused)" in message
    assert "`godot up`" in message


async def test_a_host_that_is_gone_ends_the_pipe(host: FakeHost, godot: FakeGodot, autojump_clock: MockClock) -> None:
    host.gone = True
    with trio.fail_after(LONG):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Pipe(godot.connect, host, URL).run)
            await (await godot.accepts()).send(NOTICE)


async def test_a_refusal_is_final_and_tells_the_host_why(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    godot.trouble = Refused("no such token")
    host.says(INITIALIZE)
    with trio.fail_after(LONG):
        assert await Pipe(godot.connect, host, URL).run() is godot.trouble
    assert await host.hears_error() == (0, NOT_CONNECTED, "nothing was done: no such token")
    assert len(godot.tries) == 1
    assert host.told == []


async def test_a_host_that_does_not_read_slows_godot_down(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    async with piping(host, godot):
        there = await godot.accepts()
        host.reads = trio.Event()
        await there.send(result(1))
        with trio.move_on_after(100) as patience:
            await there.send(result(2))
        assert patience.cancelled_caught
        host.reads.set()
        assert await host.hears() == result(1)


async def test_a_godot_that_does_not_read_leaves_stdin_unread(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    async with piping(host, godot):
        there = await godot.accepts()
        host.says(*[call(number) for number in range(MAX_WAITING + 10)])
        await wait_all_tasks_blocked()
        assert host.unread > 0
        for number in range(MAX_WAITING + 10):
            assert await there.receive() == call(number)
        host.says("x" * connect.MAX_WAITING_CHARACTERS, "x" * connect.MAX_WAITING_CHARACTERS, call(1), call(2))
        await wait_all_tasks_blocked()
        assert host.unread == 1  # one is sent, one waits, one is in hand


async def test_many_who_wait_for_a_connection_leave_stdin_unread_until_they_are_answered(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    godot.goes()
    async with piping(host, godot):
        host.says(*[call(number) for number in range(2 * MAX_WAITING)])
        await trio.sleep(1)
        assert host.unread == MAX_WAITING - 1
        for number in range(2 * MAX_WAITING):
            assert (await host.hears_error())[0] == number
        assert trio.current_time() == 2 * PATIENCE_S


async def test_it_tries_to_connect_at_growing_intervals(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock, steady_pauses: None
) -> None:
    godot.goes()
    async with piping(host, godot):
        await trio.sleep(30)
    pauses = [later - earlier for earlier, later in zip(godot.tries, godot.tries[1:], strict=False)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5, 5])


async def test_a_godot_that_hangs_up_at_once_is_not_called_without_a_pause(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock, steady_pauses: None
) -> None:
    async with piping(host, godot):
        for _ in range(10):
            await (await godot.accepts()).aclose()
        assert trio.current_time() == pytest.approx(0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 3.2 + 5 + 5 + 5)
        there = await godot.accepts()
        await trio.sleep(connect.STEADY_S + 1)
        lost = trio.current_time()
        await there.aclose()
        await godot.accepts()
        assert trio.current_time() - lost == pytest.approx(0.1)


async def test_people_are_told_once_of_what_changes(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock
) -> None:
    godot.goes()
    async with piping(host, godot):
        await trio.sleep(60)
        godot.comes()
        there = await godot.accepts()
        await wait_all_tasks_blocked()
        godot.goes()
        await there.aclose()
        await trio.sleep(60)
    assert host.told == [
        f"cannot reach {URL} (Connection refused); trying again until it is there",
        f"connected to {URL}",
        f"lost the connection to {URL} (it went away); connecting again",
        f"cannot reach {URL} (Connection refused); trying again until it is there",
    ]


async def test_a_line_that_is_too_long_is_refused_and_the_next_one_is_read(
    host: FakeHost, godot: FakeGodot, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "Lines", lambda: Lines(longest=100))
    async with piping(host, godot):
        there = await godot.accepts()
        host.says("x" * 101, call(1))
        request_id, code, message = await host.hears_error()
        assert (request_id, code) == (None, -32600)
        assert "67,108,864 bytes" in message
        assert await there.receive() == call(1)


def test_what_is_never_answered_is_forgotten_in_the_end() -> None:
    conversation = Conversation(URL)
    assert conversation.greet() is None
    for number in range(MAX_IN_FLIGHT + 5):
        conversation.take(call(number), 0)
        assert conversation.next_line() == call(number)
    answers = [json.loads(answer)["id"] for answer in conversation.lost(0, "gone")]
    assert answers == list(range(5, MAX_IN_FLIGHT + 5))
    assert not conversation.busy


@pytest.mark.parametrize(
    "message", ["no JSON", "7", "[]", "[1]", '{"id":1}', '{"jsonrpc":"2.0","id":null,"method":"x"}']
)
def test_what_is_no_message_is_owed_an_error_without_an_id(message: str) -> None:
    conversation = Conversation(URL)
    conversation.take(message, 0)
    assert conversation.greet() is None
    assert conversation.next_line() == message
    assert conversation.busy
    assert conversation.receive('{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}')
    assert not conversation.busy


@pytest.mark.parametrize("message", [NOTICE, f"[{NOTICE}]", result(1), '{"jsonrpc":"2.0","id":1,"error":{}}'])
def test_nothing_is_owed_for_what_asks_nothing(message: str) -> None:
    conversation = Conversation(URL)
    conversation.take(message, 0)
    assert not conversation.busy


@given(st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b""))), st.integers(1, 50))
def test_bytes_are_cut_into_the_same_lines_whatever_the_pieces(lines: list[bytes], size: int) -> None:
    data = b"\n".join(lines)
    cutter = Lines()
    cut = [line for at in range(0, len(data), size) for line in cutter.feed(data[at : at + size])] + cutter.close()
    assert cut == (lines[:-1] if lines and not lines[-1] else lines)


def test_of_a_line_that_is_too_long_nothing_is_held() -> None:
    lines = Lines(longest=10)
    assert lines.feed(b"0123456789\n01234567") == [b"0123456789"]
    assert lines.feed(b"890") == []
    assert lines._parts == []
    assert lines.feed(b"1\nnext\n") == [None, b"next"]
    lines.feed(b"01234567890")
    assert lines.close() == [None]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values, st.sampled_from([None, 0, 2, "\n", "\r\n\t"]), st.booleans())
def test_any_json_becomes_one_line_of_the_same_meaning(
    value: object, indent: int | str | None, ascii_only: bool
) -> None:
    line = one_line(json.dumps(value, indent=indent, ensure_ascii=ascii_only))
    assert "\n" not in line
    assert "\r" not in line
    assert json.loads(line) == value


@pytest.mark.parametrize(
    ("url", "host", "port", "resource", "shown"),
    [
        ("ws://127.0.0.1:9060", "127.0.0.1", 9060, "/", "ws://127.0.0.1:9060"),
        ("ws://[::1]:9060/", "::1", 9060, "/", "ws://[::1]:9060"),
        ("wss://godot.example/mcp?key=secret", "godot.example", 443, "/mcp?key=secret", "wss://godot.example/mcp"),
        ("ws://godot-mcp", "godot-mcp", 80, "/", "ws://godot-mcp"),
    ],
)
def test_a_url_is_taken_apart(url: str, host: str, port: int, resource: str, shown: str) -> None:
    address = Address.parse(url)
    assert (address.host, address.port, address.resource, str(address)) == (host, port, resource, shown)
    assert address.secure == url.startswith("wss")


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:9060", "http://h:1", "ws://", "ws://h:x", "ws://[::1", "ws://u:secret@h", "ws://h/a b", "ws://h/ü"],
)
def test_a_url_that_cannot_be_used_is_refused_with_one_that_can(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Address.parse(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "it broke off the handshake"),
        (b"220 mail.example ESMTP\r\n", "it broke off the handshake"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", "it does not speak WebSocket"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "it answered HTTP 200"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "it answered HTTP 302"),
        (b"HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "it does not speak WebSocket"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\nhalf", "it broke off the handshake"),
    ],
)
async def test_who_does_not_shake_hands_is_not_waited_for(answer: bytes, why: str) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(answer)

    with trio.fail_after(connect.CONNECT_S - 1):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
            address = Address.parse(f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}")
            with pytest.raises(Unreachable, match=why):
                async with over_websocket(nursery, address, None)():
                    pass
            nursery.cancel_scope.cancel()


async def test_the_kernel_looks_after_a_connection_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def accept(request: WebSocketRequest) -> None:
        await request.accept()

    dialled: list[trio.SocketStream] = []
    dial = connect._dial

    async def remember(address: Address) -> trio.SocketStream:
        stream = await dial(address)
        assert isinstance(stream, trio.SocketStream)
        dialled.append(stream)
        return stream

    monkeypatch.setattr(connect, "_dial", remember)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            port = (await nursery.start(partial(serve_websocket, accept, "127.0.0.1", 0, ssl_context=None))).port
            async with over_websocket(nursery, Address.parse(f"ws://127.0.0.1:{port}"), None)():
                assert dialled[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert dialled[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == SILENT_S // 2
            nursery.cancel_scope.cancel()


def test_a_token_comes_from_the_file_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(" from-file\n")
    assert streams.load(URL, file, "from-env")[0].token == "from-file"
    assert streams.load(URL, None, "from-env\n")[0].token == "from-env"
    assert streams.load(URL, None, "")[0].token is None
    assert "from-env" not in repr(streams.load(URL, None, "from-env")[0])


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"secret\r\nX-Other: header", b"secr\xc3\xa9t", b"\xff"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        streams.load(URL, file, "")
    assert str(file) in str(refused.value)
    assert "secr" not in str(refused.value)


def test_a_token_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: the token cannot be read"):
        streams.load(URL, tmp_path / "nowhere", "from-env")


@pytest.fixture
def pipes() -> Iterator[Callable[[], tuple[int, int]]]:
    """Make pipes that are closed afterwards."""
    opened: list[int] = []

    def make() -> tuple[int, int]:
        ends = os.pipe()
        opened.extend(ends)
        return ends

    yield make
    for end in opened:
        try:
            os.close(end)
        except OSError:
            assert end in opened  # the test has closed it


@pytest.mark.parametrize("blocking", [True, False])
async def test_streams_work_whether_somebody_made_them_non_blocking_or_not(
    pipes: Callable[[], tuple[int, int]], blocking: bool
) -> None:
    (stdin, host_says), (host_hears, stdout) = pipes(), pipes()
    for end in (stdin, stdout):
        os.set_blocking(end, blocking)
    ours = streams.Streams(stdin, stdout, stdout)
    line = "é" * 200_000
    received: list[bytes] = []

    async def listen() -> None:
        while sum(map(len, received)) < len(line.encode()) + 1:
            received.append(await trio.to_thread.run_sync(os.read, host_hears, 65536))

    async def read() -> None:
        received_in.append(await ours.read())

    received_in: list[bytes] = []
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.write, line)
            nursery.start_soon(read)
            await trio.sleep(0.05)  # both are waiting by now, as a rule
            os.write(host_says, b"hello")
            nursery.start_soon(listen)
    assert b"".join(received) == f"{line}\n".encode()
    assert received_in == [b"hello"]
    assert [os.get_blocking(stdin), os.get_blocking(stdout)] == [blocking, blocking]


async def test_the_end_of_a_stream_is_no_error(pipes: Callable[[], tuple[int, int]]) -> None:
    (stdin, host_says), (host_hears, stdout) = pipes(), pipes()
    os.close(host_says)
    os.close(host_hears)
    ours = streams.Streams(stdin, stdout, stdout)
    with trio.fail_after(10):
        assert await ours.read() == b""
        with pytest.raises(HostGone):
            await ours.write("nobody reads this")
        await ours.tell("nor this")
        assert await streams.Streams(-1, -1, -1).read() == b""


async def test_a_full_disk_under_stdout_is_told(pipes: Callable[[], tuple[int, int]]) -> None:
    host_hears, stderr = pipes()
    full = os.open("/dev/full", os.O_WRONLY)
    with trio.fail_after(10), pytest.raises(HostGone):
        await streams.Streams(-1, full, stderr).write("lost")
    os.close(full)
    assert os.read(host_hears, 1000) == b"godot connect: stdout cannot be written (No space left on device)\n"


async def test_a_host_that_does_not_read_holds_nobody_up_who_wants_to_stop(
    pipes: Callable[[], tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "TELL_S", 0.01)
    host_hears, stdout = pipes()
    ours = streams.Streams(-1, stdout, stdout)
    with trio.fail_after(10):
        with trio.move_on_after(0.01):
            await ours.write("x" * 1_000_000)
        await ours.tell("x")
    while len(os.read(host_hears, 65536)) == 65536:  # let the abandoned thread come to its end
        pass
