"""Both ends of a connection, as several tests hold them: a server over tools that can be held up, and its clients."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
import trio.testing
from trio_websocket import WebSocketConnection, wrap_client_stream

from godot.errors import BufferUnavailable
from godot.json.structure import argument
from godot.json.text import dumps, loads
from godot.mcp.client import Client
from godot.mcp.memory import MemoryTransport, memory_transports
from godot.mcp.server import Server, serve
from godot.mcp.session import ServerInfo
from godot.mcp.toolbox import Answer, Tool, Toolbox
from godot.mcp.transport import Connect
from godot.mcp.websocket.dial import Address, over_websocket
from godot.mcp.websocket.listen import serve_websocket
from godot.service.ports import open_listeners


@attrs.frozen
class Ask:
    text: str = argument("said again", default="")


class Notes:
    """What happened, in its order, and a way to wait for it."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._more = trio.Event()

    def append(self, text: str) -> None:
        self.texts.append(text)
        self._more.set()
        self._more = trio.Event()

    async def reach(self, count: int) -> None:
        while len(self.texts) < count:
            await self._more.wait()


class Tools:
    """Tools that can be held up, and that note what became of them."""

    def __init__(self) -> None:
        self.started, self.cancelled, self.finished = Notes(), Notes(), Notes()
        self.open = trio.Event()
        self.toolbox = Toolbox(
            [
                Tool(name="echo", title="Echo", description="Says it again at once.", arguments=Ask, run=self.echo),
                Tool(name="wait", title="Wait", description="Says it again when it may.", arguments=Ask, run=self.wait),
                Tool(
                    name="wait_in_order",
                    title="Wait in order",
                    description="The same, in order.",
                    arguments=Ask,
                    run=self.wait,
                    in_order=True,
                ),
                Tool(name="fail", title="Fail", description="Has a bug.", arguments=Ask, run=self.fail),
                Tool(name="away", title="Away", description="Redis is away.", arguments=Ask, run=self.away),
            ]
        )

    async def echo(self, ask: Ask) -> Answer:
        self.finished.append(ask.text)
        return Answer.of({"echo": ask.text})

    async def wait(self, ask: Ask) -> Answer:
        self.started.append(ask.text)
        try:
            await self.open.wait()
        except trio.Cancelled:
            self.cancelled.append(ask.text)
            raise
        self.finished.append(ask.text)
        return Answer.of({"echo": ask.text})

    async def fail(self, _: Ask) -> Answer:
        raise KeyError("a bug")

    async def away(self, _: Ask) -> Answer:
        raise BufferUnavailable("Redis: away")


@attrs.define
class Bench:
    """A server over some tools, and what it reports."""

    tools: Tools = attrs.Factory(Tools)
    reports: list[tuple[str, str, str]] = attrs.Factory(list)

    def server(self, **settings: Any) -> Server:
        return Server(
            ServerInfo("test", "1", ""), self.tools.toolbox, lambda *report: self.reports.append(report), **settings
        )


def call_frame(request_id: int | str, tool: str, text: str = "") -> str:
    params = {"name": tool, "arguments": {"text": text}}
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params})


def ping_frame(request_id: int | str = 1) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "ping"})


def cancel_frame(request_id: int | str) -> str:
    params = {"requestId": request_id}
    return json.dumps({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})


@asynccontextmanager
async def served(bench: Bench) -> AsyncIterator[MemoryTransport]:
    """Serve one connection over memory channels; the other end is yielded."""
    client, server = memory_transports(buffered=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, bench.server(), server)
        yield client
        nursery.cancel_scope.cancel()


async def next_id(transport: MemoryTransport) -> Any:
    return loads(await transport.receive())["id"]


@asynccontextmanager
async def client_of(connect: Connect) -> AsyncIterator[Client]:
    client = Client(connect, name="tests", version="1")
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        yield client
        nursery.cancel_scope.cancel()


async def echo(client: Client, text: str = "hi") -> str:
    answer = await client.call("echo", dumps({"text": text}))
    return str(loads(answer.json)["echo"])


@asynccontextmanager
async def listening(bench: Bench, **settings: Any) -> AsyncIterator[str]:
    """Serve on a free port, for at most five seconds; its URL is yielded."""
    with trio.fail_after(5):
        listeners = await open_listeners("127.0.0.1", 0)
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_websocket, bench.server(**settings), listeners)
            yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
            nursery.cancel_scope.cancel()


def address(url: str) -> tuple[str, int]:
    return "127.0.0.1", int(url.rpartition(":")[2])


@asynccontextmanager
async def opened(url: str, subprotocols: Sequence[str] = ()) -> AsyncIterator[WebSocketConnection]:
    """Open a WebSocket whose socket is closed in any case; trio-websocket's client leaves some behind."""
    async with await trio.open_tcp_stream(*address(url)) as stream, trio.open_nursery() as nursery:
        connection = await wrap_client_stream(
            nursery, stream, url.removeprefix("ws://"), "/", subprotocols=subprotocols
        )
        async with connection:
            yield connection
        nursery.cancel_scope.cancel()


def way_to(url: str, max_message_bytes: int = 100_000) -> Connect:
    return over_websocket(Address.parse(url), max_message_bytes=max_message_bytes)


async def ask_raw(connection: WebSocketConnection, frame: str | bytes) -> Any:
    await connection.send_message(frame)
    return loads(await connection.get_message())


async def assert_alive(url: str) -> None:
    async with opened(url) as connection:
        assert (await ask_raw(connection, ping_frame()))["result"] == {}
