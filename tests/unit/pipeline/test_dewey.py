"""The ways to Dewey: what one caller asks does not stand in the way of what another one asks, or of what is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from godot.errors import DeweyFailed, DeweyUnavailable
from godot.json.structure import argument
from godot.mcp.client import Client
from godot.mcp.memory import in_process
from godot.mcp.server import Server, serve
from godot.mcp.session import ServerInfo
from godot.mcp.toolbox import Answer, Tool, Toolbox, caller
from godot.mcp.transport import Transport
from godot.pipeline.dewey import EACH, TURN_S, RemoteDewey, RemoteStore
from godot.toolnames import DEWEY_CLEAR, DEWEY_MAINTAIN, DEWEY_QUERY, DEWEY_STATS, DEWEY_STORE, DEWEY_TAIL


@attrs.frozen
class Anything:
    takes_s: float = argument("How long it takes.", default=0.0)
    logs: list[Any] | None = argument("Entries.", default=None)


class Bench:
    """A Dewey whose tools take as long as they are told."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.cancelled: Counter[str] = Counter()
        self.connections = 0
        tools = [
            Tool(
                name=name,
                title=name,
                description="",
                arguments=Anything,
                run=partial(self.take, name),
                in_order=name == DEWEY_STORE,
                waits=name == DEWEY_TAIL,
            )
            for name in (DEWEY_STORE, DEWEY_QUERY, DEWEY_TAIL, DEWEY_CLEAR, DEWEY_STATS, DEWEY_MAINTAIN)
        ]
        self.server = Server(ServerInfo("dewey", "1", ""), Toolbox(tools), lambda *_: None)

    async def take(self, name: str, arguments: Anything) -> Answer:
        self.running[name] += 1
        try:
            await trio.sleep(arguments.takes_s)
        except trio.Cancelled:
            self.cancelled[name] += 1
            raise
        finally:
            self.running[name] -= 1
        return Answer.of({})

    async def serve(self, transport: Transport) -> None:
        self.connections += 1
        await serve(self.server, transport)


@asynccontextmanager
async def opened(bench: Bench) -> AsyncIterator[RemoteDewey]:
    clients = [Client(in_process(bench.serve), name="tests", version="1") for _ in range(4)]
    async with trio.open_nursery() as nursery:
        for client in clients:
            await nursery.start(client.run)
        yield RemoteDewey(RemoteStore(clients[0], timeout_s=15.0), *clients[1:], timeout_s=15.0)
        nursery.cancel_scope.cancel()


async def ask(dewey: RemoteDewey, who: str, tool: str, takes_s: float, wait_s: float = 0.0) -> Answer:
    caller.set(who)
    return await dewey.ask(tool, {"takes_s": takes_s}, wait_s=wait_s)


@pytest.mark.parametrize(
    ("tool", "wait_s", "count"),
    [
        (DEWEY_QUERY, 0.0, 8),
        (DEWEY_TAIL, 0.0, 150),
        (DEWEY_TAIL, 20.0, 150),
        (DEWEY_CLEAR, 3_600.0, 8),
        (DEWEY_STATS, 0.0, 20),
    ],
)
async def test_the_calls_of_one_caller_keep_no_call_of_another_waiting(
    tool: str, wait_s: float, count: int, autojump_clock: MockClock
) -> None:
    """Eight slow queries of one client once failed the query of another one."""
    bench = Bench()
    async with opened(bench) as dewey, trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(ask, dewey, "slow", tool, 10.0, wait_s)
        await trio.testing.wait_all_tasks_blocked()
        for other in (DEWEY_QUERY, DEWEY_STATS, DEWEY_MAINTAIN):
            await ask(dewey, "quick", other, 0.0)
        if tool != DEWEY_CLEAR:
            await ask(dewey, "quick", DEWEY_CLEAR, 0.0, 3_600.0)
        await dewey.store([])
        assert trio.current_time() == 0
        nursery.cancel_scope.cancel()


async def test_calls_behind_slow_ones_of_their_own_caller_are_answered_in_the_end(autojump_clock: MockClock) -> None:
    bench = Bench()
    answered: list[float] = []

    async def query() -> None:
        await ask(dewey, "slow", DEWEY_QUERY, 10.0)
        answered.append(trio.current_time())

    async with opened(bench) as dewey, trio.open_nursery() as nursery:
        for _ in range(2 * EACH):
            nursery.start_soon(query)
    assert answered == [10.0] * EACH + [20.0] * EACH


async def test_a_question_that_gets_no_turn_is_refused_with_the_limits(autojump_clock: MockClock) -> None:
    bench = Bench()

    async def query(who: str) -> None:
        with suppress(DeweyUnavailable):
            await ask(dewey, who, DEWEY_QUERY, 14.0)

    async with opened(bench) as dewey, trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(query, f"slow {number % 2}")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(DeweyUnavailable, match=r"^Dewey: busy with other questions \(4 at once, 2 of one caller\)"):
            await ask(dewey, "slow 0", DEWEY_QUERY, 0.0)
        assert trio.current_time() == TURN_S
        nursery.cancel_scope.cancel()


async def test_one_call_that_is_not_answered_in_time_is_cancelled_there_and_ends_no_other(
    autojump_clock: MockClock,
) -> None:
    bench = Bench()
    async with opened(bench) as dewey, trio.open_nursery() as nursery:
        nursery.start_soon(ask, dewey, "a", DEWEY_CLEAR, 3_000.0, 3_600.0)
        nursery.start_soon(ask, dewey, "b", DEWEY_TAIL, 600.0, 3_600.0)
        for tool in (DEWEY_CLEAR, DEWEY_TAIL, DEWEY_QUERY):
            with pytest.raises(DeweyFailed, match=f"^Dewey: no answer to {tool} within 15 s$"):
                await ask(dewey, "c", tool, 100.0)
        await trio.sleep(100)
        assert (bench.running[DEWEY_CLEAR], bench.running[DEWEY_TAIL], bench.running[DEWEY_QUERY]) == (1, 1, 0)
        assert bench.cancelled == {DEWEY_CLEAR: 1, DEWEY_TAIL: 1, DEWEY_QUERY: 1}
        assert bench.connections == 3
    assert bench.cancelled == {DEWEY_CLEAR: 1, DEWEY_TAIL: 1, DEWEY_QUERY: 1}
