"""The pipe of `godot connect`: messages both ways, over connections that come and go, to both of its ends."""

from __future__ import annotations

import json
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from godot.connect import pipe
from godot.connect.conversation import CONNECTION_LOST, MAX_WAITING, MAX_WAITING_CHARACTERS, NOT_CONNECTED, PATIENCE_S
from godot.connect.lines import LineCutter
from godot.connect.pipe import DRAIN_S, STEADY_S, Pipe
from godot.mcp.transport import RefusedByServer, TransportClosed
from godot.service.backoff import delays
from tests.unit.connect.ends import INITIALIZE, LONG, NOTICE, URL, FakeGodot, FakeHost, call, cancelled, piping, result


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def godot() -> FakeGodot:
    return FakeGodot()


@pytest.fixture
def steady_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the jitter out of the pauses between tries."""
    monkeypatch.setattr(pipe, "delays", partial(delays, jitter=lambda delay: delay))


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
    godot.trouble = RefusedByServer(URL, "HTTP 401, no such token", 401)
    refusal = (
        f"Godot at {URL} refused the connection (HTTP 401, no such token); "
        "give godot connect a token that Godot knows (--token-file, or GODOT_TOKEN)"
    )
    host.says(INITIALIZE)
    with trio.fail_after(LONG):
        assert await Pipe(godot.connect, host, URL).run() == refusal
    assert await host.hears_error() == (0, NOT_CONNECTED, f"nothing was done: {refusal}")
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
        host.says("x" * MAX_WAITING_CHARACTERS, "x" * MAX_WAITING_CHARACTERS, call(1), call(2))
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
        await trio.sleep(STEADY_S + 1)
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
    monkeypatch.setattr(pipe, "LineCutter", lambda: LineCutter(longest=100))
    async with piping(host, godot):
        there = await godot.accepts()
        host.says("x" * 101, call(1))
        request_id, code, message = await host.hears_error()
        assert (request_id, code) == (None, -32600)
        assert "67,108,864 bytes" in message
        assert await there.receive() == call(1)
