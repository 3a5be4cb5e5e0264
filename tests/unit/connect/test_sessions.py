"""A session of the legacy era over `godot connect`: opened once by the host, and again on each new connection."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from godot.connect.conversation import NOT_CONNECTED, PATIENCE_S
from godot.connect.pipe import GREETING_S, LONGEST_PAUSE_S
from godot.mcp.memory import MemoryTransport
from godot.mcp.transport import TransportClosed
from tests.unit.connect.ends import (
    INITIALIZE,
    INITIALIZED,
    NOTICE,
    URL,
    WELCOME,
    FakeGodot,
    FakeHost,
    call,
    piping,
    result,
)


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def godot() -> FakeGodot:
    return FakeGodot()


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
