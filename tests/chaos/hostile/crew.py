"""Who they are, how many, and what came of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit
from uuid import UUID

import attrs
import orjson
import trio

from tests.chaos.ledger import Ledger
from tests.chaos.system import Service
from tests.programs import Socket

PATIENCE_S: Final = 40.0
"""After which a hostile client gives up whatever it does, unless its kind says otherwise."""

REST_S: Final = 0.5
"""While there is nobody to do it to."""

REASON_CHARS: Final = 70

TRIED: Final = "tried"

GONE: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ConnectionError)

MIB: Final = 1024 * 1024


@attrs.frozen
class Crowd:
    """How many of them there are, and how hard they try.

    :param followers: connections that follow.
    :param idle: connections that are opened and left.
    :param max_message_bytes: `GODOT_MAX_MESSAGE_BYTES`: what the largest messages are measured by.
    :param pace: by which every pause is multiplied.
    :param only: the beginnings of the names of kinds that come; none for all of them.
    """

    followers: int = 200
    idle: int = 400
    max_message_bytes: int = 16 * MIB
    pace: float = 1.0
    only: tuple[str, ...] = ()

    @classmethod
    def small(cls) -> Crowd:
        """Return one for a minute on a machine that does other things as well."""
        return cls(followers=30, idle=40, max_message_bytes=2 * MIB)

    @property
    def settings(self) -> dict[str, int]:
        """What Godot has to be told for it."""
        return {"GODOT_MAX_MESSAGE_BYTES": self.max_message_bytes}


@attrs.frozen
class Visitor:
    """One hostile client, for one time that it does its thing.

    :param rng: decides what it does.
    :param outcomes: of its kind: what came of it, and how often.
    :param reasons: of its kind: the beginnings of refusals, and how often.
    """

    daemon: Service
    crowd: Crowd
    rng: random.Random
    ledger: Ledger
    outcomes: Counter[str]
    reasons: Counter[str]

    def count(self, outcome: str) -> None:
        """Note what came of it."""
        self.outcomes[outcome] += 1

    @asynccontextmanager
    async def tcp(self, *, http: bool = False, receive_buffer: int = 0) -> AsyncIterator[Socket]:
        """Open a connection on which nothing is said yet.

        :param receive_buffer: bytes that the kernel keeps for it; 0 for as many as it likes.
        """
        address = urlsplit(self.daemon.http if http else self.daemon.url)
        raw = trio.socket.socket()
        if receive_buffer:
            raw.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
        async with trio.SocketStream(raw) as stream:
            await raw.connect((str(address.hostname), address.port or 0))
            yield Socket(stream)

    @asynccontextmanager
    async def websocket(self, *, receive_buffer: int = 0) -> AsyncIterator[Socket]:
        """Open a WebSocket."""
        async with self.tcp(receive_buffer=receive_buffer) as socket:
            await socket.upgrade()
            yield socket

    async def outcome(self, socket: Socket) -> Any:
        """Wait for what comes next, count it, and return what a tool answered; None when it is anything else."""
        while True:
            opcode, payload = await socket.receive()
            if opcode == 8:
                self.count(f"closed {int.from_bytes(payload[:2], 'big')}")
                return None
            if opcode == 9:
                await socket.send(payload, 10)
            else:
                break
        response = orjson.loads(payload)
        one = response[0] if isinstance(response, list) else response
        content = [] if "error" in one else one["result"].get("content")
        if "error" in one or one["result"].get("isError"):
            self.count("refused")
            reason = content[0]["text"] if content else one["error"]["message"]
            self.reasons[reason[:REASON_CHARS]] += 1
            return None
        self.count("answered")
        return orjson.loads(content[0]["text"]) if content else None

    async def ask(self, socket: Socket, tool: str, arguments: bytes) -> Any:
        """Call a tool, wait for what comes of it, and return what it answered; None when that is an error."""
        await socket.send(call(tool, arguments))
        return await self.outcome(socket)

    async def log(self, socket: Socket, data: bytes, message: bytes = b"") -> None:
        """Log an entry durably; when that is acknowledged, it is in the books."""
        entry_id = str(UUID(int=self.rng.getrandbits(128), version=4))
        self.ledger.offer(entry_id)
        entry = b'{"id":"%b","component":"hostile","level":"INFO","message":"%b %b","data":%b,"ack":"durable"}'
        response = await self.ask(socket, "logger_log", entry % ((entry_id.encode(),) * 2 + (message, data)))
        if response is not None and response.get("status") == "durable":
            self.ledger.acknowledge([entry_id])

    async def post(self, body: bytes, path: str = "/v1/entries") -> None:
        """Send a request, and count its status."""
        head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        async with self.tcp(http=True) as socket:
            await socket.stream.send_all(head % (path.encode(), len(body)))
            await socket.stream.send_all(body)
            await self.http_status(socket)

    async def http_status(self, socket: Socket) -> None:
        """Read an answer of HTTP, and count its status."""
        words = (await socket.rest()).split(b" ", 2)
        self.count(f"HTTP {words[1].decode()}" if len(words) > 1 else "cut")


Act: TypeAlias = Callable[[Visitor], Awaitable[None]]


@attrs.frozen
class Kind:
    """One thing to do.

    :param act: does it once, and counts what came of it; ends with an error when the connection does.
    :param pause_s: between two times, on average.
    :param clients: that do it at once, or the field of `Crowd` that says how many.
    :param patience_s: after which it is given up.
    """

    name: str
    act: Act
    pause_s: float = 3.0
    clients: int | str = 1
    patience_s: float = PATIENCE_S

    def number(self, crowd: Crowd) -> int:
        """Return how many clients do it."""
        return self.clients if isinstance(self.clients, int) else int(getattr(crowd, self.clients))


@attrs.define(eq=False)
class Crew:
    """All of them.

    :param daemon: on which they are.
    """

    daemon: Service
    crowd: Crowd
    ledger: Ledger
    kinds: Sequence[Kind]
    outcomes: dict[str, Counter[str]] = attrs.Factory(dict)
    """By kind: how often it was tried, and what came of it."""
    reasons: dict[str, Counter[str]] = attrs.Factory(dict)
    """By kind: how refusals begin, and how often."""
    busy: Counter[str] = attrs.Factory(Counter)
    """By kind: how many are at it now."""

    async def run(self, rng: random.Random, permit: Callable[[], Awaitable[bool]]) -> None:
        """Let them loose. Returns when there is no permission any more, and all of them have ended, which takes a
        minute; or when it is cancelled.

        :param permit: returns when another one may be tried; False when no more are to be.
        """
        async with trio.open_nursery() as nursery:
            for kind in self.kinds:
                if not kind.name.startswith(self.crowd.only or ("",)):
                    continue
                self.outcomes[kind.name], self.reasons[kind.name] = Counter(), Counter()
                for number in range(kind.number(self.crowd)):
                    own = random.Random(rng.random())
                    nursery.start_soon(self._repeat, kind, own, permit, name=f"{kind.name} {number}")

    def lines(self) -> Iterator[str]:
        """Yield what each kind did, and what came of it."""
        for name, counted in self.outcomes.items():
            what = ", ".join(f"{outcome} {times}" for outcome, times in counted.most_common() if outcome != TRIED)
            why = "".join(f"; most often: {reason}…" for reason, _ in self.reasons[name].most_common(1))
            yield f"hostile         {name}: {counted[TRIED]} times; {what}{why}"

    async def _repeat(self, kind: Kind, rng: random.Random, permit: Callable[[], Awaitable[bool]]) -> None:
        counted, reasons = self.outcomes[kind.name], self.reasons[kind.name]
        while True:
            await trio.sleep(rng.expovariate(1 / kind.pause_s) * self.crowd.pace)
            if not await permit():
                return
            if not self.daemon.url:
                await trio.sleep(REST_S)
                continue
            counted[TRIED] += 1
            self.busy[kind.name] += 1
            with trio.move_on_after(kind.patience_s) as patience:
                try:
                    own = random.Random(rng.random())
                    await kind.act(Visitor(self.daemon, self.crowd, own, self.ledger, counted, reasons))
                except* (*GONE, AssertionError):
                    counted["cut"] += 1
            self.busy[kind.name] -= 1
            if patience.cancelled_caught:
                counted["no answer"] += 1


def call(tool: str, arguments: bytes, request_id: int = 1) -> bytes:
    """Write a bare `tools/call`."""
    return b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"%b","arguments":%b}}' % (
        request_id,
        tool.encode(),
        arguments,
    )
