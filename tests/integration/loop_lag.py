"""The whole pipeline in this process, and how long one message keeps its event loop."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from statistics import median
from typing import Any, Final

import attrs
import trio

from dewey_logs.follow import Followers
from dewey_logs.inside import InsideStore
from dewey_logs.metrics import DeweyMetrics
from dewey_logs.serve import DEWEY_INFO
from dewey_logs.store.batch import Batch
from dewey_logs.store.memory import MemoryStore
from dewey_logs.store.protocol import Stored
from dewey_logs.tools import DEFINITIONS, dewey_tools
from dewey_logs.tools.storing import Storing
from godot.buffer.memory import MemoryBuffer
from godot.daemon import run_pipeline
from godot.mcp.access import Gate
from godot.mcp.client import Client
from godot.mcp.memory import in_process
from godot.mcp.server import Server, serve
from godot.mcp.toolbox import Toolbox
from godot.pipeline.dewey import RemoteDewey
from godot.service.exposition import Registry
from godot.service.ports import open_listeners
from godot.service.signals import Lifecycle
from godot.settings import GodotSettings
from godot.stations import Dependencies
from tests.integration.test_hostile_frames import UPGRADE, ws_frame

ALLOWED_BARE: Final = 100
"""A message may keep the loop as long as so many bare frames take, each on a connection of its own."""

TRIES: Final = 4
"""Whatever else a machine does can only add to what is measured: the least of a few counts."""

BARE: Final = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "logger_log", "arguments": {"component": "bare", "level": "INFO", "message": "m"}},
    }
).encode()


class Sink(MemoryStore):
    """Takes batches as PostgreSQL does, and keeps nothing: its place is not in the process that is measured."""

    async def store(self, batch: Batch) -> Stored:
        return Stored(len(batch), 0)


@attrs.frozen
class Pipeline:
    """What runs, and where it listens."""

    port: int
    http: int
    toolbox: Toolbox
    lines: list[str]
    _bare: list[float] = attrs.field(factory=list, init=False)

    async def lag(self, exchange: Callable[[], Any]) -> tuple[float, Any]:
        """Return the longest time in which the loop did not come round while an exchange went on in a thread."""
        worst = 0.0
        done = trio.Event()
        said: list[Any] = []

        async def talk() -> None:
            said.append(await trio.to_thread.run_sync(exchange))
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            last = time.perf_counter()
            # What was sent is still stored after it was answered: the loop is watched until it rests. On a busy machine
            # it never looks as if it did.
            rests = rounds = 0
            while rests < 20 and rounds < 200:
                await trio.sleep(0.001)
                now = time.perf_counter()
                worst = max(worst, now - last - 0.001)
                rests = rests + 1 if done.is_set() and now - last < 0.003 else 0
                rounds += done.is_set()
                last = now
        return worst, said[0]

    async def bare_s(self, *, again: bool) -> float:
        """Return how long a bare frame takes, on a connection of its own (GOD-000).

        :param again: it is measured anew: others may be using the machine now.
        """
        if self._bare and not again:
            return self._bare[-1]

        def many() -> list[float]:
            took: list[float] = []
            for _ in range(20):
                began = time.perf_counter()
                self.ask(BARE)
                took.append(time.perf_counter() - began)
            return took

        self._bare.append(median(await trio.to_thread.run_sync(many)))
        return self._bare[-1]

    def ask(self, message: bytes) -> str:
        """Send one message, and return the first frame that comes back."""
        with socket.create_connection(("127.0.0.1", self.port)) as peer:
            peer.settimeout(60)
            peer.sendall(UPGRADE)
            stream = peer.makefile("rb")
            while stream.readline() != b"\r\n":
                pass
            peer.sendall(ws_frame(message))
            size = stream.read(2)[1]
            if size >= 126:
                size = int.from_bytes(stream.read(2 if size == 126 else 8), "big")
            return stream.read(size).decode(errors="replace")

    def post(self, body: bytes) -> str:
        """Post entries, and return the answer."""
        head = (
            f"POST /v1/entries HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", self.http)) as peer:
            peer.settimeout(60)
            peer.sendall(head.encode() + body)
            return peer.makefile("rb").read().decode()


@asynccontextmanager
async def pipeline() -> AsyncIterator[Pipeline]:
    """Run Godot with Dewey inside."""
    lines: list[str] = []
    listeners, http = await open_listeners("127.0.0.1", 0), await open_listeners("127.0.0.1", 0)
    settings = GodotSettings()
    ports = [each[0].socket.getsockname()[1] for each in (listeners, http)]
    sink = Sink()
    storing = Storing(sink, Followers(sink))
    toolbox = Toolbox(dewey_tools(sink, storing=storing))
    store = InsideStore(storing, DeweyMetrics(Registry()), settings.dewey_timeout_s, lines.append)
    connect = in_process(partial(serve, Server(DEWEY_INFO, toolbox, lambda *event: lines.append(str(event)))))
    life = Lifecycle()
    async with trio.open_nursery() as nursery:
        clients = [Client(connect, name="godot", version="0") for _ in range(3)]
        for client in clients:
            await nursery.start(client.run)
        dewey = RemoteDewey(store, *clients, timeout_s=settings.dewey_timeout_s)
        dependencies = Dependencies(MemoryBuffer(100_000), dewey, listeners, Gate(), DEFINITIONS, lines.append, http)
        ended = trio.Event()

        async def run() -> None:
            await run_pipeline(settings, dependencies, life, lambda: None)
            ended.set()

        nursery.start_soon(run)
        await life.ready.wait()
        yield Pipeline(ports[0], ports[1], toolbox, lines)
        life.stop.set()
        await ended.wait()
        nursery.cancel_scope.cancel()
