"""A connection that is served, over memory channels."""

from __future__ import annotations

import trio
import trio.testing

from godot.json.text import loads
from godot.mcp.memory import memory_transports
from godot.mcp.server import serve
from tests.unit.mcp.ends import Bench, call_frame, cancel_frame, next_id, ping_frame, served


async def test_calls_are_answered_as_they_finish_so_that_a_slow_one_delays_none(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    async with served(bench) as transport:
        await transport.send(call_frame(1, "wait"))
        await transport.send(call_frame(2, "echo"))
        assert await next_id(transport) == 2
        bench.tools.open.set()
        assert await next_id(transport) == 1


async def test_calls_of_a_tool_that_keeps_order_are_answered_before_the_next_frame_is_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    async with served(bench) as transport:
        for number in range(3):
            await transport.send(call_frame(number, "wait_in_order", str(number)))
        await transport.send(call_frame(3, "echo", "3"))
        await trio.testing.wait_all_tasks_blocked()
        assert bench.tools.started.texts == ["0"]
        bench.tools.open.set()
        assert [await next_id(transport) for _ in range(4)] == [0, 1, 2, 3]
        assert bench.tools.finished.texts == ["0", "1", "2", "3"]


async def test_a_cancelled_call_stops_its_tool_and_gets_no_answer(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench()
    async with served(bench) as transport:
        await transport.send(call_frame(1, "wait", "one"))
        await transport.send(call_frame(2, "wait", "two"))
        await trio.testing.wait_all_tasks_blocked()
        await transport.send(cancel_frame(1))
        await trio.testing.wait_all_tasks_blocked()
        assert bench.tools.cancelled.texts == ["one"]
        bench.tools.open.set()
        await transport.send(ping_frame("last"))
        assert {await next_id(transport), await next_id(transport)} == {2, "last"}


async def test_when_the_connection_ends_its_calls_are_cancelled_and_serve_returns(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    client, server = memory_transports(buffered=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, bench.server(), server)
        await client.send(call_frame(1, "wait", "one"))
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
    assert bench.tools.cancelled.texts == ["one"]


async def test_an_answer_that_is_left_unread_for_too_long_ends_the_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    client, server = memory_transports()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, bench.server(peer_timeout_s=30.0), server)
            await client.send(call_frame(1, "echo"))
    assert trio.current_time() == 30


async def test_what_the_world_or_the_arguments_did_is_an_answer_and_no_bug(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    async with served(bench) as transport:
        await transport.send(call_frame(1, "away"))
        result = loads(await transport.receive())["result"]
        assert (result["isError"], result["content"][0]["text"]) == (True, "Redis: away")
        await transport.send(
            '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"echo","arguments":{"txt":1}}}'
        )
        result = loads(await transport.receive())["result"]
        assert result["isError"] is True
        assert "unknown field 'txt'; did you mean 'text'?" in result["content"][0]["text"]
    assert bench.reports == []
