"""What happens to one call happens to no other call of its connection: a bug, a deadline, a caller that goes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import pytest
import trio
import trio.testing

from godot.json.text import loads
from godot.mcp.client import PING_S, CallFailed, CallRefused, Client
from godot.mcp.memory import MemoryTransport, in_process, memory_transports
from godot.mcp.server import MAX_RUNNING, Server, Watched, serve
from godot.mcp.session import ServerInfo
from godot.mcp.toolbox import Answer, Later, Runner, Tool, Toolbox, trace
from godot.mcp.transport import Connect, Transport
from tests.fakes import Nothing

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
TRACE_ID = "0af76519-16cd-43dd-8448-eb211c80319c"


async def _raise() -> Answer:
    raise ValueError("a secret of ours")


async def _raise_at_once(_: Nothing) -> Answer:
    return await _raise()


async def _raise_later(_: Nothing) -> Later:
    return Later(_raise)


async def _raise_a_group(_: Nothing) -> Answer:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_raise)
    raise AssertionError


async def _answer_what_is_no_json(_: Nothing) -> Answer:
    return Answer(cast("str", object()))


class Bench:
    """A server with good tools and bad ones."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, str, str]] = []
        self.go = trio.Event()
        self.waiting = 0
        self.cancelled = 0
        self.traces: list[str | None] = []

    async def echo(self, _: Nothing) -> Answer:
        await trio.lowlevel.checkpoint()
        self.traces.append(trace.get())
        return Answer.of({"said": "echo"})

    async def wait(self, _: Nothing) -> Answer:
        self.waiting += 1
        try:
            await self.go.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        return Answer.of({"said": "it has happened"})

    def server(self, watched: Watched | None = None) -> Server:
        tools = [
            tool("echo", self.echo),
            tool("echo_in_order", self.echo, in_order=True),
            tool("wait", self.wait, waits=True),
            tool("work", self.wait),
            tool("bug", _raise_at_once),
            tool("bug_in_order", _raise_at_once, in_order=True),
            tool("bug_later", _raise_later, in_order=True),
            tool("bug_after_waiting", _raise_later, waits=True),
            tool("bug_in_a_group", _raise_a_group),
            tool("bug_in_its_answer", _answer_what_is_no_json),
        ]
        return Server(
            ServerInfo("test", "1", ""), Toolbox(tools), lambda *report: self.reports.append(report), watched=watched
        )


def tool(name: str, run: Runner, *, in_order: bool = False, waits: bool = False) -> Tool:
    return Tool(name=name, title=name, description="", arguments=Nothing, run=run, in_order=in_order, waits=waits)


BUGS = ["bug", "bug_in_order", "bug_later", "bug_after_waiting", "bug_in_a_group", "bug_in_its_answer"]


def frame(request_id: int, method: str, **params: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


@asynccontextmanager
async def served(server: Server) -> AsyncIterator[MemoryTransport]:
    client, other = memory_transports(buffered=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, server, other)
        yield client
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client_of(connect: Connect) -> AsyncIterator[Client]:
    client = Client(connect, name="tests", version="1")
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        yield client
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("tool", BUGS)
async def test_a_bug_in_a_tool_answers_its_call_and_ends_nothing_else(
    tool: str, autojump_clock: trio.testing.MockClock
) -> None:
    bench = Bench()
    async with served(bench.server()) as client:
        await client.send(frame(1, "tools/call", name="work"))
        await client.send(frame(2, "tools/call", name=tool))
        response = loads(await client.receive())
        assert (response["id"], response["error"]["code"]) == (2, -32603)
        assert response["error"]["message"] == f"Internal error: a bug in {tool}; the log of the test server has it"
        bench.go.set()
        assert loads(await client.receive())["id"] == 1
        await client.send(frame(3, "ping"))
        assert loads(await client.receive()) == {"jsonrpc": "2.0", "id": 3, "result": {}}
    ((event, peer, reason),) = bench.reports
    assert (event, peer, reason.startswith(f"{tool}: ")) == ("bug", "inside", True)


@pytest.mark.parametrize("tool", BUGS)
async def test_a_bug_in_a_tool_of_dewey_inside_fails_its_call_and_not_the_others_on_the_connection(
    tool: str, autojump_clock: trio.testing.MockClock
) -> None:
    bench = Bench()
    connections = 0

    async def serve_and_count(transport: Transport) -> None:
        nonlocal connections
        connections += 1
        await serve(bench.server(), transport)

    answers: list[Answer] = []

    async def work() -> None:
        answers.append(await client.call("work", b"{}"))

    async with client_of(in_process(serve_and_count)) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(CallRefused, match="Internal error") as refused:
                await client.call(tool, b"{}")
            assert refused.value.code == -32603
            assert not answers
            bench.go.set()
        assert len(answers) == 1
    assert connections == 1


async def test_a_bug_in_a_call_of_a_batch_does_not_keep_back_the_others_of_the_batch(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served(Bench().server()) as client:
        await client.send(frame(0, "initialize", protocolVersion="2025-03-26", capabilities={}))
        await client.receive()
        calls = [frame(1, "tools/call", name="bug"), frame(2, "tools/call", name="echo")]
        await client.send(f"[{','.join(calls)}]")
        answers = {each["id"]: each for each in loads(await client.receive())}
        assert answers[1]["error"]["code"] == -32603
        assert answers[2]["result"]["isError"] is False


async def test_a_bug_in_what_tells_of_changes_is_reported_and_calls_are_answered_as_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def changed() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("a bug")

    bench = Bench()
    async with served(bench.server(Watched("godot/levels", dict, changed))) as client:
        capabilities: dict[str, Any] = {"experimental": {"godot/levels": {}}}
        await client.send(frame(1, "initialize", protocolVersion="2025-11-25", capabilities=capabilities))
        await client.receive()
        await trio.testing.wait_all_tasks_blocked()
        assert bench.reports == [("bug", "inside", "godot/levels: KeyError('a bug')")]
        await client.send(frame(2, "tools/call", name="echo"))
        assert loads(await client.receive())["result"]["isError"] is False


# Waiting


async def test_calls_that_wait_keep_no_other_call_waiting(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench()
    waiting = 50 * MAX_RUNNING
    async with served(bench.server()) as client:
        for number in range(waiting):
            await client.send(frame(number, "tools/call", name="wait"))
        await client.send(frame(-1, "tools/call", name="echo"))
        assert loads(await client.receive())["id"] == -1
        assert bench.waiting == waiting
        bench.go.set()
        answered = [loads(await client.receive())["id"] for _ in range(waiting)]
        assert sorted(answered) == list(range(waiting))


# Deadlines, and callers that go


async def test_one_call_that_takes_too_long_does_not_end_the_others_on_its_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    done = []

    async def work() -> None:
        done.append(await client.call("work", b"{}"))

    async with client_of(in_process(partial(serve, bench.server()))) as client, trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.TooSlowError), trio.fail_after(15):
            await client.call("wait", b"{}")
        client.check()
        client.check()
        await trio.sleep(10 * PING_S)
        assert (bench.waiting, bench.cancelled) == (1, 1), "the slow one is cancelled there, and nothing else is"
        bench.go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert len(done) == 1


async def _answer_nothing(transport: Transport) -> None:
    while True:
        await transport.receive()


async def _take_nothing(transport: Transport) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize("hang", [_answer_nothing, _take_nothing])
async def test_a_connection_on_which_not_even_a_ping_is_answered_is_dropped(
    hang: Callable[[Transport], Awaitable[None]], autojump_clock: trio.testing.MockClock
) -> None:
    bench = Bench()
    turns: list[Callable[[Transport], Awaitable[None]]] = [hang, partial(serve, bench.server())]

    async def take_turns(transport: Transport) -> None:
        await turns.pop(0)(transport)

    async with client_of(in_process(take_turns)) as client:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(CallFailed, match="the connection broke"):
                    await client.call("wait", b"{}")

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            client.check()
        assert trio.current_time() - began == PING_S
        assert loads((await client.call("echo", b"{}")).json) == {"said": "echo"}


async def test_a_call_given_up_while_its_frame_is_written_tears_neither_the_frame_nor_the_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A large question on a slow line, whose caller goes: others have calls in flight there."""
    frames: list[str] = []
    slow = trio.Event()

    class Slow(MemoryTransport):
        async def send(self, frame: str) -> None:
            await slow.wait()
            frames.append(frame)

    opened = 0

    @asynccontextmanager
    async def connect() -> AsyncIterator[Transport]:
        nonlocal opened
        opened += 1
        yield Slow(*trio.open_memory_channel[str | bytes](0))

    async with client_of(connect) as client:
        with trio.move_on_after(1):
            await client.call("one", b"{}")
        with trio.move_on_after(1):
            await client.call("two", b"{}")
        slow.set()
        with trio.move_on_after(1):
            await client.call("three", b"{}")
        await trio.testing.wait_all_tasks_blocked()
    sent = [loads(each) for each in frames]
    assert [(each["method"], each["params"].get("name")) for each in sent] == [
        ("tools/call", "one"),
        ("notifications/cancelled", None),
        ("tools/call", "three"),
        ("notifications/cancelled", None),
    ]
    assert [each["params"]["requestId"] for each in sent[1::2]] == [each["id"] for each in sent[::2]]
    assert opened == 1


async def test_when_a_client_goes_what_it_asked_the_server_behind_is_cancelled_there(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The question of a reader that is gone costs the database nothing more."""
    behind = Bench()
    async with client_of(in_process(partial(serve, behind.server()))) as to_behind:

        async def ask(_: Nothing) -> Answer:
            return await to_behind.call("work", b"{}")

        facade = Server(ServerInfo("front", "1", ""), Toolbox([tool("ask", ask)]), lambda *_: None)
        async with served(facade) as goes, served(facade) as cancels, served(facade) as stays:
            for number, client in enumerate((goes, cancels, stays)):
                await client.send(frame(number, "tools/call", name="ask"))
            await trio.testing.wait_all_tasks_blocked()
            assert behind.waiting == 3
            await goes.aclose()
            await cancels.send('{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}')
            await trio.testing.wait_all_tasks_blocked()
            assert (behind.waiting, behind.cancelled) == (1, 2)
            behind.go.set()
            assert loads(await stays.receive())["id"] == 2


# The trace of a call


@pytest.mark.parametrize(
    ("meta", "trace_id"),
    [
        ({"traceparent": TRACEPARENT}, TRACE_ID),
        ({"traceparent": TRACEPARENT.replace("00-", "cc-", 1) + "-what-comes-in-later-versions"}, TRACE_ID),
        ({"traceparent": TRACEPARENT + "-more"}, None),
        ({"traceparent": TRACEPARENT.upper()}, None),
        ({"traceparent": "ff" + TRACEPARENT[2:]}, None),
        ({"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"}, None),
        ({"traceparent": f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01"}, None),
        ({"traceparent": TRACE_ID}, None),
        ({"traceparent": 7}, None),
        ({"traceparent": "-" * 1_000_000}, None),
        ({}, None),
        ("no object", None),
    ],
)
@pytest.mark.parametrize("tool", ["echo", "echo_in_order"])
async def test_a_call_has_the_trace_of_its_traceparent(
    tool: str, meta: Mapping[str, Any] | str, trace_id: str | None, autojump_clock: trio.testing.MockClock
) -> None:
    """COR-002."""
    bench = Bench()
    async with served(bench.server()) as client:
        await client.send(frame(1, "tools/call", name=tool, _meta=meta))
        await client.send(frame(2, "tools/call", name=tool))
        for _ in range(2):
            await client.receive()
    assert sorted(bench.traces, key=str) == sorted([trace_id, None], key=str)
