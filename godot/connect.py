"""`godot connect`: lets a host that only starts programs talk to Godot's WebSocket.

    host ── stdin ──▶ a line is a message ──▶ text frame ──▶ Godot
         ◀─ stdout ── one line ◀──────────── text frame ◀──

Rule 1: what is remembered, dropped, or answered in Godot's place is decided in `Conversation`, which
does no I/O and is told the time.
Rule 2: a request gets one answer, Godot's or ours. What is not a request may be lost with a connection.
Rule 3: messages pass as they are. They are read for their ids, and for the three methods that
reconnecting and cancelling need; never written anew.
"""

from __future__ import annotations

import math
import os
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, TypeVar, cast
from urllib.parse import urlsplit

import attrs
import h11
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import ProtocolError

from godot import codec
from godot.backoff import delays
from godot.errors import ConfigError
from godot.mcp.client import Connect
from godot.mcp.session import INVALID_REQUEST, RequestId
from godot.mcp.transport import (
    GOODBYE_S,
    READ_BYTES,
    SUBPROTOCOL,
    Frame,
    Transport,
    TransportClosed,
    WebSocketTransport,
)

E = TypeVar("E", bound=BaseException)

Id: TypeAlias = RequestId | None
"""Of a request; None stands for a message that is answered with an error of id null."""

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""The longest line and the largest frame. Godot answers with less than 1 MiB, but others speak MCP too."""

MAX_WAITING: Final = 1_000
MAX_WAITING_CHARACTERS: Final = 1024 * 1024
"""Beyond either, stdin is left unread. The line that goes beyond is kept."""

MAX_IN_FLIGHT: Final = 10_000
"""Requests that are remembered until their answer; Godot itself takes fewer at once. Beyond, the oldest is
forgotten: a host may send what is never answered, such as a batch in a version without batches."""

CONNECT_S: Final = 5.0
"""How long TCP, TLS and the upgrade may take together."""

GREETING_S: Final = 5.0
"""How long Godot may take to answer the `initialize` that opens a new connection."""

PATIENCE_S: Final = 10.0
"""How long a request waits for a connection."""

DRAIN_S: Final = 5.0
"""How long answers are waited for after the end of stdin."""

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
"""Between tries to connect. The longest is shorter than the patience, so that each request sees a try."""

STEADY_S: Final = 10.0
"""A connection that lasted as long makes the pauses short again; one that Godot closes at once does not."""

SILENT_S: Final = 60
"""After this time without a sign of life the kernel gives a connection up, also while we send (Linux)."""

CONNECTION_LOST: Final = 1001
NOT_CONNECTED: Final = 1002
"""Our error codes, outside of what JSON-RPC and MCP reserve."""


class HostGone(Exception):
    """Nobody reads our stdout any more."""


class Unreachable(Exception):
    """There is no connection; trying again later is right."""


class Refused(Exception):
    """Godot does not let us in, and would not the next time."""


class Host(Protocol):
    """The program that has started us."""

    async def read(self) -> bytes:
        """Wait for the next piece of stdin; empty at its end."""

    async def write(self, line: str) -> None:
        """Write a line to stdout, waiting while the host does not read.

        :raises HostGone: it will not be read.
        """

    async def tell(self, text: str) -> None:
        """Write a line for people to stderr, or drop it when that cannot be done soon."""


@attrs.frozen
class Address:
    """Where Godot is.

    :param authority: host and port as the `Host` header has them.
    """

    secure: bool
    host: str
    port: int
    authority: str
    resource: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Take a URL apart.

        :raises ConfigError: it is not one of a WebSocket.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as exc:
            raise ConfigError(f"the URL cannot be used ({exc}); it looks like ws://127.0.0.1:9060") from None
        if "@" in parts.netloc:  # it may be a password: nothing of it is repeated
            raise ConfigError("the URL must not hold a name or a password; put a token into a file (--token-file)")
        if parts.scheme not in ("ws", "wss") or not host or not (url.isascii() and url.isprintable()) or " " in url:
            raise ConfigError(
                f"the URL must look like ws://127.0.0.1:9060 or wss://host/path, not {url.partition('?')[0]!r:.200}"
            )
        secure = parts.scheme == "wss"
        resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(secure, host, port or (443 if secure else 80), parts.netloc, resource)

    def __str__(self) -> str:
        """Return the URL without its query, which may hold a secret."""
        path = self.resource.partition("?")[0]
        return f"{'wss' if self.secure else 'ws'}://{self.authority}{'' if path == '/' else path}"


class Lines:
    """Cuts bytes into lines, holding at most the beginning of one."""

    def __init__(self, longest: int = MAX_MESSAGE_BYTES) -> None:
        self._longest = longest
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes | None]:
        """Return the lines that end in `data`, without their ends; None for one that was too long."""
        *ends, rest = data.split(b"\n")
        lines = []
        for end in ends:
            self._add(end)
            lines.append(self._take())
        self._add(rest)
        return lines

    def close(self) -> list[bytes | None]:
        """Return the last line if nothing ended it."""
        return [self._take()] if self._size else []

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size <= self._longest:
            self._parts.append(part)
        else:
            self._parts.clear()

    def _take(self) -> bytes | None:
        line = b"".join(self._parts) if self._size <= self._longest else None
        self._parts.clear()
        self._size = 0
        return line


def one_line(frame: Frame) -> str:
    """Make a frame one line of the same JSON.

    A JSON text has raw line breaks between its tokens only, never inside a string.
    """
    text = frame if isinstance(frame, str) else frame.decode("utf-8", "replace")
    return text.replace("\n", " ").replace("\r", " ")


@attrs.define(eq=False)
class _Line:
    """A message of the host.

    :param ids: of the requests in it that have to be answered.
    :param answered: the host has its answer; another one is kept from it.
    """

    text: str
    arrived: float
    ids: tuple[Id, ...]
    batch: bool
    answered: bool = False


class Conversation:
    """What has to be known of a conversation so that it outlives its connection.

    The opening of a legacy session (`initialize`, `notifications/initialized`) is kept, and said again on
    each new connection: `greet` returns it. Until that is through, nothing counts as connected.

    :param where: the URL, for the errors.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self.trouble = "there was no connection yet"
        """Why there is no connection."""
        self._connected = False
        self._alone_since = -math.inf
        self._waiting: deque[_Line] = deque()
        self._waiting_characters = 0
        self._in_flight: dict[Id, _Line] = {}
        self._hello: _Line | None = None
        self._greeted: _Line | None = None
        self._initialized: _Line | None = None

    @property
    def has_room(self) -> bool:
        """Whether another line can be taken."""
        return len(self._waiting) < MAX_WAITING and self._waiting_characters < MAX_WAITING_CHARACTERS

    @property
    def busy(self) -> bool:
        """Whether an answer is owed."""
        return bool(self._in_flight or self._waiting) or self._unanswered_hello is not None

    @property
    def patience_ends(self) -> float:
        """When `expire` has something to do next; infinite when nothing waits for a connection."""
        if self._connected:
            return math.inf
        return min((self._expires(line) for line in self._asking()), default=math.inf)

    def take(self, text: str, now: float) -> None:
        """Take in a line of the host."""
        message = _parse(text)
        line = _Line(text, now, ids := _asked(message), batch=isinstance(message, list) and ids != (None,))
        match message:
            case {"method": "notifications/cancelled", "params": {"requestId": request_id}}:
                if self._cancel(request_id):
                    return
            case {"method": "notifications/initialized"}:
                self._initialized = line
            case {"method": "initialize"} if ids:
                before, self._hello, self._initialized = self._unanswered_hello, line, None
                if not self._connected:  # `greet` sends it; one that it was still to send goes behind
                    if before is not None and before is not self._greeted:
                        self._push(before)
                    return
        if self._connected or ids:
            self._push(line)

    def greet(self) -> str | None:
        """Return what a new connection begins with, None when it is ready.

        Called again when `greeting` has become false.
        """
        if self._hello is not None and self._hello is not self._greeted:
            self._greeted = self._hello
            self._sent(self._hello)
            return self._hello.text
        self._connected = True
        if self._hello is not None and self._initialized is not None:
            self._keep_waiting([self._initialized, *self._waiting])
        return None

    @property
    def greeting(self) -> bool:
        """Whether the answer to what `greet` returned is still to come."""
        return self._greeted is not None and self._greeted in self._in_flight.values()

    def next_line(self) -> str | None:
        """Return what to send next; its requests are in flight from now on."""
        if not self._waiting:
            return None
        line = self._waiting.popleft()
        self._waiting_characters -= len(line.text)
        self._sent(line)
        text = line.text
        if line.ids and line is not self._hello:
            line.text = ""  # it is never sent again, and a thousand in flight may be large
        return text

    def receive(self, text: str) -> bool:
        """Take in a frame of Godot; return whether the host is to see it."""
        for request_id, succeeded in _answered(_parse(text)):
            line = self._in_flight.pop(request_id, None)
            if line is None:
                continue
            if line.answered:
                return False
            if line is self._hello:
                line.answered = True
                if not succeeded:
                    self._hello = self._initialized = None
        return True

    def lost(self, now: float, trouble: str) -> list[str]:
        """Note that the connection is gone; return what to answer to the requests in flight."""
        self.trouble = trouble
        self._connected = False
        self._alone_since = now
        self._greeted = None
        self._keep_waiting(line for line in self._waiting if line.ids and line is not self._hello)
        return self._give_up_in_flight(
            f"the connection to Godot at {self._where} was lost before the answer came ({trouble}), so what was asked "
            "may or may not have been done; godot connect is connecting again: ask again if doing it twice does no harm"
        )

    def expire(self, now: float) -> list[str]:
        """Return what to answer to the requests that have waited for a connection long enough."""
        if self._connected:
            return []
        return self._give_up_waiting(
            [line for line in self._asking() if self._expires(line) <= now],
            f"cannot reach Godot at {self._where} ({self.trouble}), so nothing was done; start Godot with `godot up`, "
            "or tell godot connect where it is (its argument, or GODOT_URL)",
        )

    def end(self, why: str) -> list[str]:
        """Return what to answer to everything that is still open, because nothing will be sent any more."""
        answers = self._give_up_in_flight(f"no answer came from Godot at {self._where}: {why}")
        return answers + self._give_up_waiting(list(self._asking()), f"nothing was done: {why}")

    @property
    def _unanswered_hello(self) -> _Line | None:
        return self._hello if self._hello is not None and not self._hello.answered else None

    def _asking(self) -> Iterator[_Line]:
        """Yield the requests that wait for a connection."""
        if (hello := self._unanswered_hello) is not None:
            yield hello
        for line in self._waiting:
            if line.ids and line is not hello:
                yield line

    def _expires(self, line: _Line) -> float:
        return max(line.arrived, self._alone_since) + PATIENCE_S

    def _sent(self, line: _Line) -> None:
        for request_id in line.ids:
            self._in_flight[request_id] = line
        while len(self._in_flight) > MAX_IN_FLIGHT:
            del self._in_flight[next(iter(self._in_flight))]

    def _cancel(self, request_id: Any) -> bool:
        """Expect no answer to a request any more; return whether Godot need not hear of it."""
        if not _is_id(request_id):
            return False
        if self._in_flight.get(request_id) is not self._greeted:
            self._in_flight.pop(request_id, None)
        before = len(self._waiting)
        self._keep_waiting(line for line in self._waiting if line.ids != (request_id,) or line is self._hello)
        return len(self._waiting) < before

    def _push(self, line: _Line) -> None:
        self._waiting.append(line)
        self._waiting_characters += len(line.text)

    def _keep_waiting(self, lines: Iterable[_Line]) -> None:
        self._waiting = deque(lines)
        self._waiting_characters = sum(len(line.text) for line in self._waiting)

    def _give_up_waiting(self, lines: Sequence[_Line], text: str) -> list[str]:
        if self._hello in lines:
            self._hello = self._initialized = None
        given_up = set(lines)
        self._keep_waiting(line for line in self._waiting if line not in given_up)
        for line in lines:
            line.answered = True  # a greeting may be on its way: its answer comes too late
        return [_failure(line, line.ids, NOT_CONNECTED, text) for line in lines]

    def _give_up_in_flight(self, text: str) -> list[str]:
        in_flight, self._in_flight = self._in_flight, {}
        open_ids: dict[_Line, list[Id]] = {}
        for request_id, line in in_flight.items():
            if not line.answered and line is not self._hello:  # that is sent again
                open_ids.setdefault(line, []).append(request_id)
        return [_failure(line, ids, CONNECTION_LOST, text) for line, ids in open_ids.items()]


def _parse(text: str) -> Any:
    try:
        return codec.loads(text)
    except codec.NotJSON:
        return None


def _is_id(value: object) -> bool:
    return type(value) is int or type(value) is str


def _asked(message: Any) -> tuple[Id, ...]:
    """Return the ids under which a message is answered: none if it is not, (None,) if it is not understood."""
    parts = message if isinstance(message, list) else [message]
    ids: list[Id] = []
    silent = bool(parts)
    for part in parts:
        match part:
            case {"jsonrpc": "2.0", "method": str(), "id": request_id} if _is_id(request_id):
                ids.append(request_id)
            case {"jsonrpc": "2.0", "method": str(), **rest} if "id" not in rest:
                pass
            case {"result": _, **rest} | {"error": _, **rest} if "method" not in rest:
                pass
            case _:
                silent = False
    return tuple(ids) if ids or silent else (None,)


def _answered(message: Any) -> Iterator[tuple[Id, bool]]:
    """Yield the id of each answer, and whether it is a result."""
    for part in message if isinstance(message, list) else [message]:
        match part:
            case {"id": request_id, **rest} if "method" not in rest and _is_id(request_id):
                yield request_id, "result" in rest
            case {"id": None, "error": _}:
                yield None, False


def _failure(line: _Line, ids: Sequence[Id], code: int, text: str) -> str:
    errors = [{"jsonrpc": "2.0", "id": each, "error": {"code": code, "message": text}} for each in ids]
    return codec.dumps(errors if line.batch else errors[0]).decode()


class Pipe:
    """Moves messages between the host and Godot, over as many connections as it takes.

    :param connect: opens a connection; raises `Unreachable` or `Refused`.
    """

    def __init__(self, connect: Connect, host: Host, where: str) -> None:
        self._connect = connect
        self._host = host
        self._where = where
        self._conversation = Conversation(where)
        self._refusal: Refused | None = None
        self._over = trio.CancelScope()
        self._writing = trio.Lock()
        self._sender = trio.lowlevel.ParkingLot()
        """Where the sender waits for a line."""
        self._patience = trio.lowlevel.ParkingLot()
        """Where `_lose_patience` waits for something that waits for a connection."""
        self._progress = trio.lowlevel.ParkingLot()
        """Where the reader waits for room, and the end for the last answer."""

    async def run(self) -> Refused | None:
        """Work until stdin ends, the host is gone, or Godot refuses us.

        :returns: the refusal.
        """
        with self._over:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_connected, name="connection")
                nursery.start_soon(self._lose_patience, name="patience")
                await self._read_host()
                await self._drain()
                nursery.cancel_scope.cancel()
        return self._refusal

    async def _read_host(self) -> None:
        lines = Lines()
        while data := await self._host.read():
            for line in lines.feed(data):
                await self._take(line)
        for line in lines.close():
            await self._take(line)

    async def _take(self, raw: bytes | None) -> None:
        if raw is None:
            await self._write(_TOO_LONG)
            return
        # A byte that is no UTF-8 is replaced visibly: the message is worth more than the byte.
        if not (text := raw.decode("utf-8", "replace").strip(" \t\r")):
            return
        while not self._conversation.has_room:
            await self._progress.park()
        self._conversation.take(text, trio.current_time())
        self._sender.unpark_all()
        self._patience.unpark_all()

    async def _drain(self) -> None:
        """Wait for the answers that are owed, answer the rest, and let what is being written be written."""
        with trio.move_on_after(DRAIN_S):
            while self._conversation.busy:
                await self._progress.park()
            await self._write()
        answers = self._conversation.expire(math.inf)
        answers += self._conversation.end(f"stdin ended, and {DRAIN_S:g} s later godot connect did")
        with trio.move_on_after(GOODBYE_S):
            await self._write(*answers)

    async def _lose_patience(self) -> None:
        while True:
            with trio.move_on_at(self._conversation.patience_ends):
                await self._patience.park()
            expired = self._conversation.expire(trio.current_time())
            self._progress.unpark_all()
            await self._write(*expired)

    async def _keep_connected(self) -> None:
        pauses = delays(FIRST_PAUSE_S, longest=LONGEST_PAUSE_S)
        said = ""
        while True:
            try:
                async with self._connect() as transport:
                    opened = trio.current_time()
                    trouble = await self._talk(transport)
                if trio.current_time() - opened >= STEADY_S:
                    pauses = delays(FIRST_PAUSE_S, longest=LONGEST_PAUSE_S)
                said = ""
                await self._host.tell(f"lost the connection to {self._where} ({trouble}); connecting again")
            except Unreachable as exc:
                self._conversation.trouble = str(exc)
                if said != str(exc):
                    said = str(exc)
                    await self._host.tell(f"cannot reach {self._where} ({exc}); trying again until it is there")
            except Refused as exc:
                await self._be_refused(exc)
            await trio.sleep(next(pauses))

    async def _be_refused(self, refusal: Refused) -> None:
        self._refusal = refusal
        with trio.move_on_after(GOODBYE_S):
            await self._write(*self._conversation.end(str(refusal)))
        self._over.cancel()

    async def _talk(self, transport: Transport) -> str:
        """Use a connection until it is gone; return why it is."""
        try:
            await self._greet(transport)
            await self._host.tell(f"connected to {self._where}")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_lines, transport, name="sender")
                trouble = await self._receive_frames(transport)
                nursery.cancel_scope.cancel()
        except TransportClosed as exc:
            trouble = _why(exc)
        errors = self._conversation.lost(trio.current_time(), trouble)
        self._patience.unpark_all()
        self._progress.unpark_all()
        await self._write(*errors)
        return trouble

    async def _greet(self, transport: Transport) -> None:
        """Say the opening of the session again.

        Nothing else is sent before its answer has come: a host may have used its id again since.

        :raises TransportClosed: the connection is gone, or the answer does not come.
        """
        deadline = trio.current_time() + GREETING_S
        while (hello := self._conversation.greet()) is not None:
            with _greeting_until(deadline):
                await transport.send(hello)
            while self._conversation.greeting:
                with _greeting_until(deadline):
                    frame = await transport.receive()
                await self._deliver(frame)

    async def _send_lines(self, transport: Transport) -> None:
        # A connection that takes nothing any more may still hold answers: its end is noticed by receiving.
        with suppress(TransportClosed):
            while True:
                while (text := self._conversation.next_line()) is not None:
                    self._progress.unpark_all()
                    await transport.send(text)
                await self._sender.park()

    async def _receive_frames(self, transport: Transport) -> str:
        try:
            while True:
                await self._deliver(await transport.receive())
        except TransportClosed as exc:
            return _why(exc)

    async def _deliver(self, frame: Frame) -> None:
        line = one_line(frame)
        wanted = self._conversation.receive(line)
        self._progress.unpark_all()
        if wanted:
            await self._write(line)

    async def _write(self, *lines: str) -> None:
        """Write lines, one behind the other; without any, wait for those of other tasks."""
        try:
            async with self._writing:
                for line in lines:
                    await self._host.write(line)
        except HostGone:
            self._over.cancel()
            await trio.sleep_forever()


_NO_GOODBYE: Final = CloseReason.ABNORMAL_CLOSURE
_TOO_LONG: Final = codec.dumps(
    {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": INVALID_REQUEST, "message": f"Invalid Request: a line over {MAX_MESSAGE_BYTES:,} bytes"},
    }
).decode()


@contextmanager
def _greeting_until(deadline: float) -> Iterator[None]:
    with trio.move_on_at(deadline) as patience:
        yield
    if patience.cancelled_caught:
        raise TransportClosed(f"it did not answer `initialize` within {GREETING_S:g} s")


def _why(exc: TransportClosed) -> str:
    closed = exc.__cause__
    if not isinstance(closed, ConnectionClosed) or closed.reason is None or closed.reason.code == _NO_GOODBYE:
        return str(exc) or "it went away"
    return f"close code {closed.reason.code}" + (f", {closed.reason.reason}" if closed.reason.reason else "")


def over_websocket(sockets: trio.Nursery, address: Address, token: str | None) -> Connect:
    """Return what opens a WebSocket to Godot.

    :param sockets: outlives the one who uses the connection: what reads the socket must still run while
        goodbye is said, and a cancelled user still says it.
    :param token: goes as a bearer token on the upgrade.
    """
    headers = [] if token is None else [(b"Authorization", b"Bearer " + token.encode("ascii"))]

    @asynccontextmanager
    async def connect() -> AsyncIterator[Transport]:
        done = trio.Event()
        connection = await sockets.start(partial(_hold, address, headers, done), name="socket")
        try:
            yield WebSocketTransport(connection)
        finally:
            with trio.move_on_after(GOODBYE_S, shield=True):
                await connection.aclose(1000)
            done.set()

    return connect


async def _hold(
    address: Address,
    headers: list[tuple[bytes, bytes]],
    done: trio.Event,
    *,
    task_status: trio.TaskStatus[WebSocketConnection],
) -> None:
    """Open a connection and keep it until `done`; one that breaks later tells its user itself.

    :raises Unreachable: it could not be opened.
    :raises Refused: Godot does not want us.
    """
    started = False
    failure: Unreachable | Refused
    try:
        async with AsyncExitStack() as owned, trio.open_nursery() as nursery:
            with trio.move_on_after(CONNECT_S) as patience:
                reader = _Reader(nursery, patience)
                stream = await _dial(address)
                owned.push_async_exit(stream)
                connection = await wrap_client_stream(
                    cast(trio.Nursery, reader),
                    stream,
                    address.authority,
                    address.resource,
                    subprotocols=[SUBPROTOCOL],
                    extra_headers=headers,
                    max_message_size=MAX_MESSAGE_BYTES,
                    receive_buffer_size=READ_BYTES,
                )
                started = True
            if not started:
                raise Unreachable(
                    "it broke off the handshake" if reader.ended else f"no WebSocket within {CONNECT_S:g} s"
                )
            task_status.started(connection)
            await done.wait()
            nursery.cancel_scope.cancel()
        return
    except* Unreachable as group:
        failure = _first(group, Unreachable)
    except* ConnectionRejected as group:
        failure = _rejected(address, _first(group, ConnectionRejected))
    except* (OSError, trio.BrokenResourceError, ConnectionClosed) as group:
        failure = Unreachable(_reason(_first(group, Exception)))
    except* (ProtocolError, h11.ProtocolError):  # they speak of our side's state, which says nothing to people
        failure = Unreachable("it does not speak WebSocket")
    if not started:
        raise failure


@attrs.define
class _Reader:
    """Stands for the nursery in which trio-websocket starts its reader, and ends the handshake when that ends.

    Else a proxy that takes a connection although there is no Godot behind it, and drops it again, would be
    waited for.
    """

    nursery: trio.Nursery
    handshake: trio.CancelScope
    ended: bool = False

    def start_soon(self, read: Callable[[], Awaitable[None]]) -> None:
        self.nursery.start_soon(self._read, read, name="reader")

    async def _read(self, read: Callable[[], Awaitable[None]]) -> None:
        await read()
        self.ended = True
        self.handshake.cancel()


async def _dial(address: Address) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    stream = await trio.open_tcp_stream(address.host, address.port)
    _notice_silence(stream.socket)
    if not address.secure:
        return stream
    secured = trio.SSLStream(stream, ssl.create_default_context(), server_hostname=address.host, https_compatible=True)
    try:
        await secured.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(secured)
        raise
    return secured


def _notice_silence(connection: trio.socket.SocketType) -> None:
    """Let the kernel notice a Godot that is gone without a word, as after a laptop's sleep.

    A ping of WebSocket would not do: its answer cannot be read while the host does not read ours.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", SILENT_S // 2),
        ("TCP_KEEPINTVL", SILENT_S // 6),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", SILENT_S * 1000),
    ):
        if (option := getattr(socket, name, None)) is not None:  # each system has some of them
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _rejected(address: Address, rejection: ConnectionRejected) -> Unreachable | Refused:
    """Tell a refusal that is final from one that another try may overcome."""
    body = (rejection.body or b"").decode("utf-8", "replace")
    said = f"HTTP {rejection.status_code}" + (f", {' '.join(body.split()):.200}" if body.strip() else "")
    match rejection.status_code:
        case 401:
            todo = "give godot connect a token that Godot knows (--token-file, or GODOT_TOKEN)"
        case 403:
            todo = "what it says has to be mended where it runs"
        case _:
            return Unreachable(f"it answered HTTP {rejection.status_code}")
    return Refused(f"Godot at {address} refused the connection ({said}); {todo}")


def _first(group: BaseExceptionGroup[BaseException], kind: type[E]) -> E:
    """Return the first exception of a kind in a group of them."""
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            return _first(each, kind)
        if isinstance(each, kind):
            return each
    raise AssertionError("except* gives no empty group")


def _reason(exc: BaseException) -> str:
    """Word an error of the network: trio says what failed, and its cause why."""
    cause = exc.__cause__ or exc
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError | socket.gaierror) and cause.errno:
        return os.strerror(cause.errno)
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)
