"""Every frame that Godot sends, whatever it is sent, is valid by the published schema of the version in force.

Random conversations, of valid messages and of broken ones, are held with `godot.mcp.session` and Godot's own tools;
`clients/schema_checker.py` judges what comes back, and what Godot's client sends to Dewey.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from dewey_logs.store.memory import MemoryStore
from dewey_logs.tools import dewey_tools
from godot.json.text import dumps
from godot.mcp.client import Client
from godot.mcp.memory import MemoryTransport, memory_transports
from godot.mcp.session import Call, Run, Send, ServerInfo, Session, Stop
from godot.mcp.toolbox import ROLES, Role, Toolbox
from godot.mcp.transport import Transport
from godot.pipeline.dewey import RemoteDewey, RemoteStore
from godot.stations import INSTRUCTIONS
from tests.fakes import FakeBuffer, FakeDewey, Table
from tests.interop import install

LEGACY: Final = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]
MODERN: Final = "2026-07-28"
PREFIX: Final = "io.modelcontextprotocol/"
TOOLS: Final = ["logger_log", "logger_log_batch", "logger_query", "logger_status", "godot_logger_log"]
INFO: Final = ServerInfo("godot", "0.1.0", INSTRUCTIONS)
NOW: Final = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Checker:
    """The process that knows the schemas; it ends itself when it takes too long."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.judged: dict[str, int] = {}
        """How many messages of each version."""

    def judge(self, version: str, message: Any, method: str | None) -> None:
        """Fail when a message is not valid.

        :param method: of the request that it answers.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"version": version, "message": message, "method": method}) + "\n")
        self._process.stdin.flush()
        faults = json.loads(self._process.stdout.readline())
        assert not faults, (version, method, message, faults)
        self.judged[version] = self.judged.get(version, 0) + 1


@pytest.fixture(scope="module")
def checker(installed: Path) -> Iterator[Checker]:
    """Start the checker."""
    schemas, models = installed / "schemas", installed / "models-2024-11-05" / "mcp" / "types.py"
    command = [
        install.interpreter("python-sdk-2"),
        Path(__file__).parent / "clients" / "schema_checker.py",
        schemas,
        models,
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Checker(process)


# Conversations

texts = st.text(st.characters(exclude_categories=[]), max_size=20)  # lone surrogates too
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(texts, anything, max_size=3)
levels = st.sampled_from(["ERROR", "info", "TRACE", "LOUD", "wran"])
moments = st.sampled_from(["2026-11-20T08:30:00Z", "2026-11-20", "yesterday"])
uuids = st.uuids().map(str)

entries = st.fixed_dictionaries(
    {"component": st.sampled_from(["relay", "gates"]), "level": levels, "message": texts},
    optional={"trace_id": uuids | texts | st.none(), "data": objects | st.none(), "created_at": moments, "id": uuids},
)
queries = st.fixed_dictionaries(
    {},
    optional={
        "trace_id": uuids | st.none(),
        "component": st.sampled_from(["relay", "gates"]),
        "level": levels,
        "start_time": moments,
        "search": texts,
        "limit": st.integers(-1, 1_100),
        "order": st.sampled_from(["newest", "oldest", "newst"]),
        "cursor": texts | st.none(),
        "max_bytes": st.sampled_from([999, 1_000, 30_000, 921_600]),
    },
)
arguments: st.SearchStrategy[Any] = (
    entries
    | queries
    | st.fixed_dictionaries({"logs": st.lists(entries | anything, max_size=4)})
    | st.just({})
    | st.dictionaries(st.sampled_from(["component", "level", "levle", "logs", "limit"]), anything)
    | anything
)
good_calls: st.SearchStrategy[Any] = st.one_of(
    st.fixed_dictionaries({"name": st.just("logger_log"), "arguments": entries}),
    st.fixed_dictionaries({"name": st.just("logger_query"), "arguments": queries}),
    st.fixed_dictionaries({"name": st.just("logger_status")}, optional={"arguments": st.none() | st.just({})}),
    st.fixed_dictionaries(
        {
            "name": st.just("logger_log_batch"),
            "arguments": st.fixed_dictionaries({"logs": st.lists(entries, max_size=4)}),
        }
    ),
)
calls = st.one_of(
    st.fixed_dictionaries({"name": st.sampled_from(TOOLS), "arguments": arguments}),
    st.fixed_dictionaries({}, optional={"name": st.sampled_from(["logger_lag"]) | anything, "arguments": arguments}),
)
initializations = st.fixed_dictionaries(
    {},
    optional={
        "protocolVersion": st.sampled_from([*LEGACY, MODERN, "2024-10-07", "1.0"]) | anything,
        "capabilities": objects,
        "clientInfo": st.just({"name": "someone", "version": "1"}),
    },
)
requests: st.SearchStrategy[tuple[str, Any]] = st.one_of(
    st.tuples(st.just("tools/call"), good_calls),
    st.tuples(st.just("tools/call"), good_calls),
    st.tuples(st.just("tools/call"), calls),
    st.tuples(st.just("initialize"), initializations),
    st.tuples(st.just("tools/list"), st.just({}) | st.fixed_dictionaries({"cursor": anything})),
    st.tuples(st.sampled_from(["ping", "server/discover", "prompts/list", "logging/setLevel"]), st.just({})),
    st.tuples(texts, objects),
)
envelopes = st.one_of(
    st.just({f"{PREFIX}protocolVersion": MODERN, f"{PREFIX}clientCapabilities": {}}),
    st.just({f"{PREFIX}protocolVersion": MODERN, f"{PREFIX}clientCapabilities": {}, "traceparent": "00-0-0-00"}),
    st.fixed_dictionaries(
        {f"{PREFIX}protocolVersion": st.sampled_from([MODERN, "2025-11-25", "2099-01-01"]) | anything},
        optional={f"{PREFIX}clientCapabilities": anything, f"{PREFIX}logLevel": st.just("info") | anything},
    ),
)
not_ids = st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.lists(st.integers())


@attrs.frozen
class Finish:
    """A tool has done its work: that of the call which was begun as the `which`-th of those still open."""

    which: int


@st.composite
def messages(draw: st.DrawFn, ids: Iterator[int]) -> Any:
    """Draw one JSON-RPC message: of three requests about two are in order."""
    method, params = draw(requests)
    kind = draw(st.sampled_from(["plain"] * 5 + ["modern"] * 4 + ["notice", "cancel", "response", "broken"]))
    number = next(ids)
    request_id = draw(st.sampled_from([number, -number, str(number), f"{number}\ud800", 10**20 + number]))
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
    match kind:
        case "modern" if isinstance(params, dict):
            message["params"] = {**params, "_meta": draw(envelopes)}
        case "notice":
            del message["id"]
        case "cancel":
            cancelled = draw(st.integers(0, number))
            method = "notifications/cancelled"
            message = {"jsonrpc": "2.0", "method": method, "params": {"requestId": cancelled}}
        case "response":
            message = {"jsonrpc": "2.0", "id": request_id, "result": {}}
        case "broken":
            broken = {"jsonrpc": anything, "id": not_ids, "method": anything, "params": anything}
            key = draw(st.sampled_from(sorted(broken)))
            message[key] = draw(broken[key])
    return message


@st.composite
def conversations(draw: st.DrawFn) -> list[str | bytes | Finish]:
    """Draw what a peer sends, and in between which calls come to their end."""
    ids = count(1)
    steps: list[str | bytes | Finish] = []
    version = draw(st.sampled_from([None, *LEGACY, "2025-03-26", "2025-03-26"]))  # the one with batches
    if version is not None:
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
        steps.append(json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}))
    for _ in range(draw(st.integers(3, 12))):
        match draw(st.sampled_from(["message"] * 6 + ["batch", "batch", "finish", "garbage"])):
            case "message":
                steps.append(json.dumps(draw(messages(ids))))
            case "batch":
                batch = [draw(messages(ids)) for _ in range(draw(st.integers(0, 3)))]
                steps.append(json.dumps(batch + draw(st.lists(anything, max_size=1))))
            case "finish":
                steps.append(Finish(draw(st.integers(0, 3))))
            case "garbage":
                whole = json.dumps(draw(messages(ids)))
                steps.append(draw(st.binary(max_size=20) | st.just(whole[: draw(st.integers(0, len(whole)))])))
    return steps


# Godot


async def toolbox(*, dewey_up: bool) -> Toolbox:
    """Make Godot's tools, over memory; the channel has room for two entries only."""
    dewey = FakeDewey(now=lambda: NOW)
    long = {"component": "relay", "level": "INFO", "message": "long", "data": {"text": "x" * 20_000}}
    short = {"component": "gates", "level": "ERROR", "message": "short"}
    await dewey.store([dumps(each) for each in (long, short, long)])
    dewey.up = dewey_up
    return Table(FakeBuffer(10), dewey, max_entries=2).toolbox


@attrs.define
class Conversation:
    """Holds one, and has everything judged that comes back."""

    session: Session
    checker: Checker
    agreed: str = LEGACY[0]
    asked: dict[int | str, tuple[str, str]] = attrs.Factory(dict)
    """Requests that are owed an answer -> their method, and the version in force."""
    batched: set[int | str] = attrs.Factory(set)
    """Requests that came in a batch: it is answered as one, whatever was agreed in between."""
    running: list[Call] = attrs.Factory(list)

    def receive(self, frame: str | bytes) -> None:
        """Hand a frame to Godot."""
        try:
            message = json.loads(frame)
        except ValueError:
            message = None
        if not isinstance(message, list):
            self._note(message)
        elif self.agreed == "2025-03-26":
            for each in message:
                self._note(each, self.batched)
        for event in self.session.receive(frame):
            match event:
                case Send(answer):
                    self._judge(json.loads(answer))
                case Run(call):
                    self.running.append(call)
                case Stop(call):
                    if call in self.running:
                        self.running.remove(call)
                    self.asked.pop(call.id, None)

    async def finish(self, call: Call) -> None:
        """Do what a call asks for."""
        self.running.remove(call)
        frame = self.session.answer(call, await call.tool.call(call.arguments))
        if frame is not None:
            self._judge(json.loads(frame))

    def _note(self, message: Any, batched: set[int | str] | None = None) -> None:
        match message:
            case {"jsonrpc": "2.0", "id": (int() | str()) as request_id, "method": str(method)}:
                if isinstance(request_id, bool):
                    return
                if batched is not None:
                    batched.add(request_id)
                match message:
                    case {"params": {"_meta": dict(meta)}} if f"{PREFIX}protocolVersion" in meta:
                        self.asked[request_id] = (method, MODERN)
                    case _:
                        self.asked[request_id] = (method, self.agreed)

    def _judge(self, message: Any) -> None:
        if isinstance(message, list):
            in_batch = any(each["id"] in self.batched for each in message)
            self.checker.judge("2025-03-26" if in_batch else self.agreed, message, None)
            for each in message:
                self._judge(each)
            return
        if message.get("id") is None:
            self.checker.judge(self.agreed, message, None)
            return
        method, version = self.asked.pop(message["id"])  # a second answer would find nothing here
        match message:
            case {"result": {"protocolVersion": str(agreed)}}:
                self.agreed = version = agreed
        self.checker.judge(version, message, method)


async def converse(steps: list[str | bytes | Finish], roles: frozenset[Role], checker: Checker, *, up: bool) -> None:
    """Hold a conversation to its end: every request has its answer, or was cancelled."""
    conversation = Conversation(Session(INFO, await toolbox(dewey_up=up), roles), checker)
    for step in steps:
        match step:
            case Finish(which):
                if conversation.running:
                    await conversation.finish(conversation.running[which % len(conversation.running)])
            case frame:
                conversation.receive(frame)
    while conversation.running:
        await conversation.finish(conversation.running[0])
    assert not conversation.asked


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=conversations(),
    roles=st.sampled_from([ROLES, ROLES, frozenset[Role]({"read"}), frozenset[Role]({"write"})]),
    up=st.booleans(),
)
def test_every_frame_that_godot_sends_is_valid_in_the_version_in_force(
    checker: Checker, steps: list[str | bytes | Finish], roles: frozenset[Role], *, up: bool
) -> None:
    """Issue 3. A full channel makes its callers wait for a second: the clock is not the real one."""
    trio.run(partial(converse, steps, roles, checker, up=up), clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("version", [*LEGACY, MODERN])
def test_every_kind_of_answer_is_valid_in_every_version(checker: Checker, version: str) -> None:
    """What the random conversations may miss: each tool, done and failed, and each other request, in each version."""
    meta = {"_meta": {f"{PREFIX}protocolVersion": MODERN, f"{PREFIX}clientCapabilities": {}}}
    entry = {"component": "relay", "level": "INFO", "message": "hello"}
    wanted: list[tuple[str, dict[str, Any]]] = [
        ("ping", {}),
        ("server/discover", {}),
        ("tools/list", {}),
        ("tools/list", {"cursor": "x"}),
        ("tools/call", {"name": "logger_log", "arguments": entry}),
        ("tools/call", {"name": "logger_log", "arguments": {}}),
        ("tools/call", {"name": "logger_log_batch", "arguments": {"logs": [entry, 7, entry, entry]}}),
        ("tools/call", {"name": "logger_query", "arguments": {"max_bytes": 1_000}}),
        ("tools/call", {"name": "logger_query", "arguments": {"max_bytes": 921_600}}),
        ("tools/call", {"name": "logger_query", "arguments": {"limit": "many"}}),
        ("tools/call", {"name": "logger_status"}),
        ("tools/call", {"name": "logger_lag"}),
        ("tools/call", {"name": "logger_log", "arguments": []}),
        ("unheard/of", {}),
    ]
    extra = meta if version == MODERN else {}
    frames: list[str | bytes | Finish] = [
        json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": {**params, **extra}})
        for number, (method, params) in enumerate(wanted, 1)
    ]
    if version != MODERN:
        opening = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
        frames.insert(0, json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": opening}))
    before = checker.judged.get(version, 0)
    for up in (True, False):
        trio.run(partial(converse, frames, ROLES, checker, up=up), clock=MockClock(autojump_threshold=0))
    assert checker.judged[version] == before + 2 * len(frames)


def test_a_batch_is_answered_in_one_valid_batch(checker: Checker) -> None:
    """All that may be in one, and what may not: `initialize`, and a message that is none."""
    version = "2025-03-26"
    opening = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": version}}
    logged = {"name": "logger_log", "arguments": {"component": "relay", "level": "INFO", "message": "hello"}}
    batch = [
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": logged},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
        {"jsonrpc": "2.0", "id": 3, "method": "ping"},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {**opening, "id": 4},
        7,
    ]
    before = checker.judged.get(version, 0)
    frames: list[str | bytes | Finish] = [json.dumps(opening), json.dumps(batch)]
    trio.run(partial(converse, frames, ROLES, checker, up=True))
    assert checker.judged[version] == before + 1 + 1 + 5


# The client


@attrs.frozen
class Recording:
    """A transport that keeps a copy of what is sent over it."""

    transport: MemoryTransport
    sent: list[Any]

    async def send(self, frame: str) -> None:
        self.sent.append(json.loads(frame))
        await self.transport.send(frame)

    async def send_together(self, frames: Sequence[str]) -> None:
        for frame in frames:
            await self.send(frame)

    async def receive(self) -> str | bytes:
        return await self.transport.receive()

    async def aclose(self, code: int = 1000, reason: str | None = None) -> None:
        await self.transport.aclose(code, reason)


async def test_every_frame_that_godot_sends_to_dewey_is_valid(
    checker: Checker, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Issue 3: two calls that are answered, and one that is given up."""
    sent: list[Any] = []
    session = Session(INFO, Toolbox(dewey_tools(MemoryStore(lambda: NOW))))

    async def serve(transport: MemoryTransport) -> None:
        while True:
            for event in session.receive(await transport.receive()):
                match event:
                    case Run(call) if call.tool.name != "dewey_maintain_partitions":
                        frame = session.answer(call, await call.tool.call(call.arguments))
                        assert frame is not None
                        await transport.send(frame)

    @asynccontextmanager
    async def connect() -> AsyncIterator[Transport]:
        ours, theirs = memory_transports()
        nursery.start_soon(serve, theirs)
        yield Recording(ours, sent)

    client = Client(connect, name="godot", version="0.1.0")
    await nursery.start(client.run)
    dewey = RemoteDewey(RemoteStore(client, timeout_s=15.0), client, client, client, timeout_s=15.0)
    await dewey.store([dumps({"component": "relay", "level": "INFO", "message": "hello"})])
    assert not (await dewey.ask("dewey_query_logs", {"search": "hello"})).is_error
    with trio.move_on_after(1.0):
        await dewey.ask("dewey_maintain_partitions", {})
    await wait_all_tasks_blocked()  # who gives up does not wait until that is written
    nursery.cancel_scope.cancel()

    assert [message["method"] for message in sent] == ["tools/call"] * 3 + ["notifications/cancelled"]
    for message in sent:
        checker.judge(MODERN, message, None)
