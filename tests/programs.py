"""Our programs as a user runs them, clients that speak plain JSON to them, and what they left in their servers.

Law of this module: nothing outlives a `Workplace`. Whatever was started in one is ended with it, also what a
killed daemon left behind, and an orderly stop that leaves a process behind is an error.
"""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sized
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar
from urllib.parse import urlsplit

import attrs
import psycopg
import redis
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

P = ParamSpec("P")
T = TypeVar("T")

ENOUGH: Final = 180.0
"""Seconds for a test that takes a few: a deadline for what hangs. A test machine may be busy, with other tests too."""

POLL_S: Final = 0.005
STOP_S: Final = 20.0
"""More than the drain and the orderly end of two servers may take."""

BIN: Final = Path(sys.executable).parent

_OURS: Final = ("GODOT_", "DEWEY_", "LOG_", "BATCH_", "REDIS_", "DATABASE_", "MAX_QUEUE_")
_numbers = count(1)
_call_ids = count(1)


async def until(look: Callable[[], T], seconds: float = ENOUGH) -> T:
    """Look again and again until something true is seen, and return it."""

    async def looked() -> T:
        return look()

    return await until_asked(looked, seconds)


async def until_asked(ask: Callable[[], Awaitable[T]], seconds: float = ENOUGH) -> T:
    """Ask again and again until the answer is something true, and return it."""
    with trio.fail_after(seconds):
        while not (seen := await ask()):  # noqa: ASYNC110 - no event comes from another process
            await trio.sleep(POLL_S)
    return seen


def bounded(test: Callable[P, Awaitable[None]]) -> Callable[P, Awaitable[None]]:
    """Give a test with real I/O a deadline."""

    @functools.wraps(test)
    async def under_deadline(*args: P.args, **kwargs: P.kwargs) -> None:
        with trio.fail_after(ENOUGH):
            await test(*args, **kwargs)

    return under_deadline


async def until_longer(things: Sized, length: int) -> None:
    """Wait until there are more than so many."""
    await until(lambda: len(things) > length)


class Program:
    """A command that was started; what it prints goes into two files.

    :param stdout: where it goes instead, as for `Popen`.
    :param stderr: the same.
    """

    def __init__(
        self, place: Path, *command: object, stdout: int | None = None, stderr: int | None = None, **environ: object
    ) -> None:
        number = next(_numbers)
        self.printed, self._stderr = place / f"{number}.out", place / f"{number}.err"
        self.mcp = ""
        """Where it takes calls, once it is ready."""
        self.http = ""
        """Where it answers HTTP, once it is ready."""
        self.ready_after = 0.0
        """Seconds from its start until it was."""
        name, *arguments = map(str, command)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        self.started = time.monotonic()
        with self.printed.open("wb") as out, self._stderr.open("wb") as err:
            self.process = subprocess.Popen(
                [BIN / name, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out if stdout is None else stdout,
                stderr=err if stderr is None else stderr,
                env=inherited | {name: str(value) for name, value in environ.items()},
            )

    @property
    def out(self) -> list[str]:
        """The whole lines that it has written to stdout; when that is a pipe, what its reader puts into `printed`."""
        return self.printed.read_text().split("\n")[:-1]

    @property
    def err(self) -> list[str]:
        """The whole lines that it has written to stderr."""
        return self._stderr.read_text().split("\n")[:-1]

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self.process.poll() is not None

    @property
    def descriptors(self) -> int:
        """How many files and connections it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def resident_bytes(self) -> int:
        """How much memory it takes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")

    def events(self, *names: str) -> list[dict[str, str]]:
        """Return the status lines of these events, as what they say."""
        lines = [parse_logfmt(line) for line in self.out if line.startswith("time=")]
        return [line for line in lines if not names or line["event"] in names]

    async def ready(self) -> str:
        """Wait until it says that it can be used, and return where."""
        lines = await until(lambda: [line for line in self.out if line.startswith("ready ")] or self.ended)
        self.ready_after = time.monotonic() - self.started
        assert not isinstance(lines, bool), f"it ended before it was ready: {self.out} {self.err}"
        said = parse_logfmt(lines[0].removeprefix("ready "))
        self.mcp, self.http = said["mcp"], said["http"]
        return self.mcp

    async def event(self, name: str, number: int = 1) -> dict[str, str]:
        """Wait for the n-th status line of an event, and return it."""
        lines = await until(lambda: self.events(name)[number - 1 :])
        return lines[0]

    async def exit(self) -> int:
        """Wait until it has ended by itself, and return its exit code."""
        await until(lambda: self.ended)
        return self.process.wait()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to stop, wait for that, and return its exit code."""
        self.process.send_signal(number)
        return await self.exit()

    async def kill(self) -> None:
        """End it as a power failure would."""
        self.process.kill()
        await self.exit()


class Workplace:
    """A directory in which programs run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._programs: list[Program] = []

    def start(
        self, *command: object, stdout: int | None = None, stderr: int | None = None, **environ: object
    ) -> Program:
        """Start a command."""
        # The port behind a chosen one may be anybody's.
        ports = {"GODOT_HTTP_PORT": 0, "DEWEY_HTTP_PORT": 0}
        program = Program(self.path, *command, stdout=stdout, stderr=stderr, **(ports | environ))
        self._programs.append(program)
        return program

    def up(self, *options: object, stdout: int | None = None, stderr: int | None = None, **environ: object) -> Program:
        """Start `godot up` with its data here, on a free port."""
        command = ("godot", "up", "--data-dir", self.data, "--port", 0, *options)
        return self.start(*command, stdout=stdout, stderr=stderr, **environ)

    def forget(self) -> None:
        """Remove the data of `godot up`."""
        shutil.rmtree(self.data)

    @property
    def data(self) -> Path:
        """The data directory of `godot up`."""
        return self.path / "data"

    async def endpoints_of(self, program: Program) -> dict[str, Any]:
        """Wait until `godot up` says where it is, in its file; its stdout may be read by nobody."""
        await until(lambda: (self.data / "endpoints.json").exists() or program.ended)
        return self.endpoints()

    def endpoints(self) -> dict[str, Any]:
        """Read what `godot up` says about itself."""
        content: dict[str, Any] = json.loads((self.data / "endpoints.json").read_text())
        return content

    def processes(self) -> list[int]:
        """Return what works in here: the servers, whoever started them."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                if Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(self.path.resolve()):
                    found.append(int(pid))
        return found

    async def close(self) -> list[int]:
        """End everything; return what was still there after all programs had been told to stop."""
        running = [program for program in self._programs if not program.ended]
        for program in running:
            program.process.terminate()
        with trio.move_on_after(STOP_S):
            await until(lambda: all(program.ended for program in running))
        for program in running:
            program.process.kill()
            program.process.wait()
        left = self.processes()
        while found := self.processes():
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await trio.sleep(POLL_S)
        return left


@contextmanager
def workplace() -> Iterator[Workplace]:
    """Make a directory that PostgreSQL's account can reach, with a name short enough for sockets; remove it."""
    path = Path(tempfile.mkdtemp(prefix="godot-", dir="/tmp"))
    path.chmod(0o711)
    place = Workplace(path)
    try:
        yield place
    finally:
        left = trio.run(place.close)
        shutil.rmtree(path)
    assert not left, "processes were left behind"


# Clients.


class CallFault(Exception):
    """A tool said that it did not do what it was asked."""


class Peer:
    """A client on one connection: no handshake of MCP, no subprotocol, frames as they are written."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self.connection = connection

    async def send(self, frame: str | bytes) -> None:
        """Send a frame."""
        await self.connection.send_message(frame)

    async def receive(self) -> Any:
        """Wait for a frame, and read it."""
        return json.loads(await self.connection.get_message())

    async def ask(self, frame: str | bytes) -> Any:
        """Send a frame and wait for one."""
        await self.send(frame)
        return await self.receive()

    async def call(self, tool: str, **arguments: object) -> Any:
        """Call a tool; return the object that it answers.

        :raises CallFault: it answered with an error.
        """
        return answer(await self.ask(frame(tool, **arguments)))

    async def log(self, message: str, component: str = "gates", **fields: object) -> Any:
        """Log an entry."""
        return await self.call("logger_log", component=component, level="INFO", message=message, **fields)

    async def log_batch(self, messages: list[str], component: str = "gates") -> None:
        """Log entries, all of which have to be accepted."""
        logs = [{"component": component, "level": "INFO", "message": message} for message in messages]
        answered = await self.call("logger_log_batch", logs=logs)
        assert answered == {"accepted": len(logs), "filtered": 0, "rejected": [], "warnings": []}

    async def found(self, **arguments: object) -> dict[str, Any]:
        """Query until something is found, and return the newest entry of it."""

        async def ask() -> list[dict[str, Any]]:
            entries: list[dict[str, Any]] = (await self.call("logger_query", **arguments))["entries"]
            return entries

        return (await until_asked(ask))[0]

    async def status(self) -> dict[str, Any]:
        """Ask for the state of the pipeline, whose sum has to be right at any time."""
        status: dict[str, Any] = await self.call("logger_status")
        parts = ("stored", "queued", "in_flight", "dropped", "dead")
        assert status["received"] == sum(status[part] for part in parts), status
        return status

    async def status_with(self, **wanted: object) -> dict[str, Any]:
        """Ask for the state until it is so."""

        async def ask() -> dict[str, Any] | None:
            status = await self.status()
            return status if wanted.items() <= status.items() else None

        status = await until_asked(ask)
        assert status is not None
        return status

    async def closed(self) -> int:
        """Wait until the other side closes the connection; return its code."""
        try:
            while True:
                await self.connection.get_message()
        except ConnectionClosed as exc:
            return close_code(exc)


def frame(tool: str, **arguments: object) -> str:
    """Write a bare `tools/call`."""
    params = {"name": tool, "arguments": arguments}
    return json.dumps({"jsonrpc": "2.0", "id": next(_call_ids), "method": "tools/call", "params": params})


def answer(response: Any) -> Any:
    """Return the object in a tool's answer, as an old client reads it: out of the text of the first block.

    :raises CallFault: it is an error.
    """
    result = response["result"]
    text = result["content"][0]["text"]
    if result["isError"]:
        raise CallFault(text)
    return json.loads(text)


def close_code(exc: ConnectionClosed) -> int:
    """Return the code with which the other side closed."""
    assert exc.reason is not None
    return exc.reason.code


@asynccontextmanager
async def connect(url: str, **headers: str) -> AsyncIterator[Peer]:
    """Connect to a program, as a client that takes no frame over 1 MiB (trio-websocket's own limit).

    :raises ConnectionRejected: by the program, in a group.
    """
    extra = [(name.encode(), value.encode()) for name, value in headers.items()]
    address = urlsplit(url)
    host, port = str(address.hostname), address.port or 0
    # open_websocket() leaves its socket to the garbage collector when the other side closes first.
    async with await trio.open_tcp_stream(host, port) as stream, trio.open_nursery() as nursery:
        connection = await wrap_client_stream(nursery, stream, address.netloc, "/", extra_headers=extra)
        async with connection:
            yield Peer(connection)
        nursery.cancel_scope.cancel()


class Socket:
    """The least that can speak WebSocket, so that it can also speak it wrongly: bytes on a TCP connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._unread = b""

    async def upgrade(self) -> None:
        """Ask for a WebSocket; RFC 6455 gives the key and what has to be answered to it."""
        await self.stream.send_all(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        while b"\r\n\r\n" not in self._unread:
            self._unread += await self._more()
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        assert b"sec-websocket-protocol" not in head.lower(), "none was offered"

    async def send(self, payload: bytes, opcode: int = 1, *, final: bool = True) -> None:
        """Send one frame, with a mask that changes nothing.

        :param final: no continuation of it comes.
        """
        await self.stream.send_all(self.head(len(payload), opcode, final=final))
        await self.stream.send_all(payload)

    @staticmethod
    def head(size: int, opcode: int = 1, *, final: bool = True) -> bytes:
        """Return what stands before the payload of a frame."""
        first = 0x80 * final | opcode
        if size < 126:
            length = struct.pack("!BB", first, 0x80 | size)
        elif size < 0x10000:
            length = struct.pack("!BBH", first, 0x80 | 126, size)
        else:
            length = struct.pack("!BBQ", first, 0x80 | 127, size)
        return length + b"\0\0\0\0"

    async def receive(self) -> tuple[int, bytes]:
        """Wait for a frame; return its opcode and what is in it."""
        first, size = await self._take(2)
        if size == 126:
            (size,) = struct.unpack("!H", await self._take(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self._take(8))
        return first & 15, await self._take(size)

    async def rest(self) -> bytes:
        """Read until the other side closes the connection."""
        read = self._unread
        with suppress(trio.BrokenResourceError):
            while more := await self.stream.receive_some():
                read += more
        return read

    async def _take(self, size: int) -> bytes:
        if len(self._unread) < size:
            more, missing = [self._unread], size - len(self._unread)
            while missing > 0:
                more.append(await self._more())
                missing -= len(more[-1])
            self._unread = b"".join(more)
        taken, self._unread = self._unread[:size], self._unread[size:]
        return taken

    async def _more(self) -> bytes:
        more = await self.stream.receive_some()
        assert more, "the connection was closed"
        return bytes(more)


@asynccontextmanager
async def dial(url: str) -> AsyncIterator[Socket]:
    """Connect to a program with nothing but TCP."""
    address = urlsplit(url)
    async with await trio.open_tcp_stream(str(address.hostname), address.port or 0) as stream:
        yield Socket(stream)


# What is in the servers.


def select(database: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Ask a database, and return the rows."""
    with psycopg.connect(database, connect_timeout=5, autocommit=True) as connection:
        done = connection.execute(statement.encode(), values or None)
        return done.fetchall() if done.description else []


def stored_messages(database: str, component: str = "gates") -> list[str]:
    """Return the messages of a component in their order."""
    return [
        message
        for (message,) in select(
            database, "SELECT message FROM logs WHERE component = %s ORDER BY created_at, id", component
        )
    ]


def append_only_file(directory: Path) -> Path:
    """Return the file to which the Redis in this directory appends; from Redis 7 on it is one of several."""
    parts = sorted(directory.glob("appendonlydir/*.incr.aof"), key=lambda path: path.stat().st_mtime)
    return parts[-1] if parts else directory / "appendonly.aof"


@attrs.frozen
class Queue:
    """The buffer, as another program on the same Redis sees it."""

    client: Any
    name: str = "logs:queue"

    @classmethod
    def at(cls, url: str, name: str = "logs:queue") -> Queue:
        """Connect."""
        return cls(redis.Redis.from_url(url, socket_timeout=5), name)

    def __len__(self) -> int:
        return int(self.client.llen(self.name))

    def push(self, *entries: object) -> None:
        """Push entries, oldest first; what is no bytes is written as JSON."""
        for entry in entries:
            self.client.lpush(self.name, entry if isinstance(entry, bytes) else json.dumps(entry))

    def messages(self) -> list[str]:
        """Return the messages of all that waits or is in flight, oldest first."""
        flights = self.client.keys(f"{self.name}:inflight:*")
        newest_first = [raw for key in (self.name, *flights) for raw in self.client.lrange(key, 0, -1)]
        return [json.loads(raw)["message"] for raw in reversed(newest_first)]

    def dead(self) -> list[dict[str, str]]:
        """Return what can never be stored, and why; newest first."""
        return [json.loads(raw) for raw in self.client.lrange(f"{self.name}:dead", 0, -1)]

    def close(self) -> None:
        """Disconnect."""
        self.client.close()


def parse_logfmt(line: str) -> dict[str, str]:
    """Read a line of `name=value` words; a value with blanks is quoted."""
    words = shlex.split(line)
    assert all("=" in word for word in words), f"this is no logfmt: {line}"
    return dict(word.split("=", 1) for word in words)


def alive(pid: int) -> bool:
    """Whether a process still runs; one that is dead and not yet waited for does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    return False
