"""`godot connect` as a host runs it: the real program between a test and a real daemon."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
from trio_websocket import CloseReason, ConnectionClosed, WebSocketRequest, serve_websocket

from godot.connect.conversation import CONNECTION_LOST, NOT_CONNECTED
from godot.connect.pipe import DRAIN_S
from tests.programs import BIN, ENOUGH, Workplace, until_asked

GODOT = str(BIN / "godot")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("GODOT_", "DEWEY_"))}

INITIALIZE = {
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}
MODERN = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that is bound, so that nobody gets it, and does not listen."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        yield port


class Program:
    """A process whose stdout is read line by line."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.pid = process.pid
        self._rest = b""

    async def line(self) -> str | None:
        """Return the next line of stdout, None at its end."""
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            if not (data := await self.process.stdout.receive_some()):
                assert not self._rest
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    async def stderr(self) -> str:
        """Return all of stderr, when the program has ended."""
        assert self.process.stderr is not None
        return b"".join([data async for data in self.process.stderr]).decode()


class Pipe(Program):
    """`godot connect`, and the host's side of the conversation."""

    _last_id = 0

    async def says(self, **message: Any) -> None:
        await self.sends(json.dumps({"jsonrpc": "2.0"} | message).encode() + b"\n")

    async def sends(self, data: bytes) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(data)

    async def ends(self) -> int:
        """Close stdin; return the exit code when nothing but that came."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        assert await self.line() is None
        return await self.process.wait()

    async def asks(self, **request: Any) -> Any:
        """Ask, and return the answer, which is all that comes."""
        self._last_id += 1
        await self.says(id=self._last_id, **request)
        answer = await self.hears()
        assert answer["id"] == self._last_id
        return answer

    async def hears(self) -> Any:
        line = await self.line()
        assert line is not None
        message = json.loads(line)
        assert message["jsonrpc"] == "2.0"
        return message

    async def calls(self, tool: str, **arguments: Any) -> Any:
        """Call a tool as a legacy client does; return what its text says."""
        answer = await self.asks(method="tools/call", params={"name": tool, "arguments": arguments})
        assert not answer["result"]["isError"], answer
        return json.loads(answer["result"]["content"][0]["text"])


@asynccontextmanager
async def started(*command: str, **options: Any) -> AsyncIterator[trio.Process]:
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **{"env": ENVIRONMENT, **options}
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@asynccontextmanager
async def connected(url: str, *options: str, **more: str) -> AsyncIterator[Pipe]:
    async with started(GODOT, "connect", url, *options, stdin=subprocess.PIPE, env={**ENVIRONMENT, **more}) as process:
        yield Pipe(process)


async def found(pipe: Pipe, trace_id: str) -> list[str]:
    """Return the messages of a trace, once there is one: it comes to the database in its own time."""

    async def ask() -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = (await pipe.calls("logger_query", trace_id=trace_id))["entries"]
        return entries

    entries = await until_asked(ask)
    return [entry["message"] for entry in entries]


async def test_a_host_of_either_era_logs_and_finds_an_entry_and_godot_may_die_in_between(place: Workplace) -> None:
    trace = "0af76519-16cd-43dd-8448-eb211c80319c"
    entry = {"component": "gates", "level": "INFO", "message": "naïve\nhello", "trace_id": trace}
    daemon = place.up()
    with trio.fail_after(ENOUGH):
        url = await daemon.ready()
        async with connected(url) as pipe:
            assert (await pipe.asks(**INITIALIZE))["result"]["protocolVersion"] == "2025-06-18"
            await pipe.says(method="notifications/initialized")
            assert {"logger_log", "logger_query"} <= {
                tool["name"] for tool in (await pipe.asks(method="tools/list"))["result"]["tools"]
            }
            assert (await pipe.calls("logger_log", **entry))["status"] == "queued"
            assert await found(pipe, trace) == ["naïve\nhello"]

            discovered = await pipe.asks(method="server/discover", params={"_meta": MODERN})
            assert discovered["result"]["supportedVersions"] == ["2026-07-28"]
            modern = {"name": "logger_query", "arguments": {"trace_id": trace}, "_meta": MODERN}
            assert (await pipe.asks(method="tools/call", params=modern))["result"]["resultType"] == "complete"

            await pipe.sends(b"this is no JSON\n")
            assert (await pipe.hears())["error"]["code"] == -32700

            await daemon.kill()
            again = place.up("--port", urlsplit(url).port)
            assert await again.ready() == url
            assert (await pipe.calls("logger_query", trace_id=trace))["count"] == 1
            # Structured content belongs to the version that was agreed on: Godot has been told of it again.
            status = await pipe.asks(method="tools/call", params={"name": "logger_status", "arguments": {}})
            assert "structuredContent" in status["result"]
            assert await pipe.ends() == 0
            assert (await pipe.stderr()).splitlines() == [
                f"godot connect: connected to {url}",
                f"godot connect: lost the connection to {url} (it went away); connecting again",
                f"godot connect: cannot reach {url} (Connection refused); trying again until it is there",
                f"godot connect: connected to {url}",
            ]


async def test_godot_lets_in_the_pipe_that_has_a_token_and_the_other_ends_with_3(place: Workplace) -> None:
    (tokens := place.path / "tokens").write_text("read,write sesame-0451-sesame\n")
    (token := place.path / "token").write_text("sesame-0451-sesame\n")
    daemon = place.up(GODOT_TOKENS_FILE=tokens)
    with trio.fail_after(ENOUGH):
        url = await daemon.ready()
        async with connected(url, "--token-file", str(token)) as pipe:
            assert (await pipe.asks(method="ping"))["result"] == {}
            assert await pipe.ends() == 0
        async with connected(url) as pipe:
            assert await pipe.line() is None
            assert await pipe.process.wait() == 3
            assert "(HTTP 401, a token is needed: Authorization: Bearer <token>)" in await pipe.stderr()


async def test_a_request_with_nobody_there_is_answered_with_what_to_do(unused_port: int) -> None:
    with trio.fail_after(ENOUGH):
        async with connected(f"ws://127.0.0.1:{unused_port}") as pipe:
            began = trio.current_time()
            await pipe.says(id="a", method="ping")
            assert pipe.process.stdin is not None
            await pipe.process.stdin.aclose()
            error = (await pipe.hears())["error"]
            assert error["code"] == NOT_CONNECTED
            assert f"ws://127.0.0.1:{unused_port} (Connection refused)" in error["message"]
            assert "`godot up`" in error["message"]
            assert await pipe.process.wait() == 0
            assert trio.current_time() - began >= DRAIN_S


class FakeGodot:
    """A WebSocket server in the test's hands: what came in, and how connections ended.

    :param reject: the HTTP status that every upgrade is answered with.
    """

    def __init__(self, reject: int | None = None) -> None:
        self.url = ""
        self.reject = reject
        self.authorization: list[bytes] = []
        self.asked = trio.Event()
        self.closed = trio.Event()
        self.closed_with: CloseReason | None = None

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            listening = await nursery.start(
                partial(
                    serve_websocket, self._handle, "127.0.0.1", 0, ssl_context=None, max_message_size=16 * 1024 * 1024
                )
            )
            self.url = f"ws://127.0.0.1:{listening.port}"
            task_status.started()

    async def _handle(self, request: WebSocketRequest) -> None:
        self.authorization += [value for name, value in request.headers if name == b"authorization"]
        if self.reject is not None:
            await request.reject(self.reject, body=b"no such token\n")
            return
        connection = await request.accept(subprotocol="mcp")
        try:
            while True:
                match json.loads(await connection.get_message()):
                    case {"id": request_id, "method": "large"}:
                        answer = {"jsonrpc": "2.0", "id": request_id, "result": {"text": "x" * 3_000_000}}
                        await connection.send_message(json.dumps(answer, indent=2))
                    case {"method": "hang up"}:
                        await connection.aclose(1011, "a bug")
                    case _:
                        self.asked.set()
        except ConnectionClosed as closed:
            self.closed_with = closed.reason
            self.closed.set()


@asynccontextmanager
async def fake_godot(reject: int | None = None) -> AsyncIterator[FakeGodot]:
    godot = FakeGodot(reject)
    with trio.fail_after(ENOUGH):
        async with trio.open_nursery() as nursery:
            await nursery.start(godot.serve)
            yield godot
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_upgrade_ends_the_pipe_with_3_and_the_reason(tmp_path: Path, status: int) -> None:
    (token := tmp_path / "token").write_text("sesame-0451\n")
    async with fake_godot(status) as godot, connected(godot.url, "--token-file", str(token)) as pipe:
        assert await pipe.line() is None
        assert await pipe.process.wait() == 3
        told = await pipe.stderr()
        assert re.fullmatch(
            rf"godot connect: Godot at {godot.url} refused the connection \(HTTP {status}, no such token\); .*\n", told
        )
        assert "sesame" not in told
        assert godot.authorization == [b"Bearer sesame-0451"]


async def test_the_token_of_the_environment_is_presented_and_megabytes_pass_as_one_line() -> None:
    async with fake_godot() as godot, connected(godot.url, GODOT_TOKEN="sesame-0451") as pipe:
        request = {"method": "large", "params": {"text": "y" * 3_000_000}}
        assert len((await pipe.asks(**request))["result"]["text"]) == 3_000_000
        assert await pipe.ends() == 0
        assert godot.authorization == [b"Bearer sesame-0451"]
        await godot.closed.wait()
        assert godot.closed_with is not None
        assert godot.closed_with.code == 1000
        assert "sesame" not in await pipe.stderr()


async def test_a_request_in_flight_is_answered_when_godot_hangs_up() -> None:
    async with fake_godot() as godot, connected(godot.url) as pipe:
        await pipe.says(id=1, method="slow")
        await godot.asked.wait()
        await pipe.says(method="hang up")
        answer = await pipe.hears()
        assert (answer["id"], answer["error"]["code"]) == (1, CONNECTION_LOST)
        assert "(close code 1011, a bug)" in answer["error"]["message"]
        assert "text" in (await pipe.asks(method="large"))["result"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_pipe_with_0_and_a_goodbye(number: signal.Signals) -> None:
    async with fake_godot() as godot, connected(godot.url) as pipe:
        await pipe.says(id=1, method="slow")
        await godot.asked.wait()
        pipe.process.send_signal(number)
        await godot.closed.wait()
        assert await pipe.process.wait() == 0, "and the call that has no answer keeps nobody"
        assert await pipe.line() is None
        assert godot.closed_with is not None
        assert godot.closed_with.code == 1000


async def test_a_signal_ends_a_pipe_whose_host_does_not_read() -> None:
    async with fake_godot() as godot, connected(godot.url) as pipe:
        await pipe.says(id=1, method="large")
        await pipe.says(id=2, method="slow")
        await godot.asked.wait()
        pipe.process.terminate()
        assert await pipe.process.wait() == 0


async def test_a_host_that_is_gone_ends_the_pipe_with_0_and_no_word() -> None:
    async with fake_godot() as godot, connected(godot.url) as pipe:
        assert pipe.process.stdout is not None
        await pipe.process.stdout.aclose()
        await pipe.says(id=1, method="large")
        assert await pipe.process.wait() == 0
        assert await pipe.stderr() == f"godot connect: connected to {godot.url}\n"


@pytest.mark.parametrize("arguments", [("127.0.0.1:9060",), ("--token-file", "/nowhere/token")])
async def test_what_cannot_be_used_is_said_in_one_line_and_2(arguments: tuple[str, ...]) -> None:
    with trio.fail_after(ENOUGH):
        async with started(GODOT, "connect", *arguments) as process:
            program = Program(process)
            assert await process.wait() == 2
            assert await program.line() is None
            assert len((await program.stderr()).splitlines()) == 1
