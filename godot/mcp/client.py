"""Calls the tools of another MCP server, many calls at once on one connection.

The first call opens the connection, and so does the first call after it broke. Requests follow protocol 2026-07-28,
which needs no handshake: every call costs one frame each way.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from itertools import count
from typing import Any, Final

import attrs
import trio

from godot.json.text import NotJSON, dumps, loads
from godot.mcp.envelope import META, MODERN_VERSION
from godot.mcp.toolbox import Answer
from godot.mcp.transport import GONE, Connect, Transport, TransportClosed, Unreachable

PING_S: Final = 5.0
"""How long a connection may be silent after a ping before it is dropped."""

TOGETHER_CHARS: Final = 64 * 1024
"""Waiting frames are written together up to this length: a hundred followers may ask again at the same moment."""


class CallFailed(Exception):
    """There will be no answer: there is no connection, it broke, or its frames are not MCP.

    :param code: with which the server refused, if it did: an HTTP status (the connection was refused), or the close
        code of a WebSocket (of four digits).
    :param said: the server's own words for that.
    """

    def __init__(self, text: str, code: int | None = None, said: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.said = said


class CallRefused(Exception):
    """The server answered with a JSON-RPC error.

    :param code: as JSON-RPC and MCP define it.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message


@attrs.define(eq=False)
class _Waiting:
    done: trio.Event = attrs.Factory(trio.Event)
    response: Any = None


@attrs.define(eq=False)
class _Connection:
    """One connection, with one task that writes and another one that reads.

    A call does not write its frame itself: if it were cancelled in the middle, half a frame would break the connection
    for all other calls.

    :param outbox: takes a frame when the writer is ready for it; a `send` that is cancelled has sent nothing.
    :param notices: frames that the writer sends next, before all calls that wait.
    :param heard: set by every frame that is received.
    """

    scope: trio.CancelScope
    nursery: trio.Nursery
    outbox: trio.MemorySendChannel[str]
    notices: deque[str] = attrs.Factory(deque)
    waiting: dict[int, _Waiting] = attrs.Factory(dict)
    heard: trio.Event = attrs.Factory(trio.Event)
    being_checked: bool = False
    ended: TransportClosed | None = None
    """Why the connection is over."""

    async def write(self, transport: Transport, frames: trio.MemoryReceiveChannel[str]) -> None:
        async with frames:
            try:
                async for frame in frames:
                    together, chars = [frame], len(frame)
                    with suppress(trio.WouldBlock):
                        while chars < TOGETHER_CHARS:
                            together.append(frames.receive_nowait())
                            chars += len(together[-1])
                    await self._send(transport, together)
                    while self.notices:
                        together = [*self.notices]
                        self.notices.clear()
                        await self._send(transport, together)
            except TransportClosed as exc:
                self.ended = exc
                raise

    @staticmethod
    async def _send(transport: Transport, frames: list[str]) -> None:
        if len(frames) > 1 and max(map(len, frames)) < TOGETHER_CHARS:
            await transport.send_together(frames)
            return
        for frame in frames:
            await transport.send(frame)

    def failure(self, when: str) -> CallFailed:
        """Return the error of a call whose connection has ended."""
        if self.ended is None or str(self.ended) == GONE:
            return CallFailed(f"the connection broke {when}")
        return CallFailed(f"the connection broke {when} ({self.ended})", self.ended.code, self.ended.reason)

    def notify(self, frame: str) -> None:
        """Send a frame as soon as the writer is ready, without waiting for it."""
        try:
            self.outbox.send_nowait(frame)
        except trio.WouldBlock:
            self.notices.append(frame)
        except trio.BrokenResourceError:
            pass  # the connection is over, and so is the call that the notice is about

    async def request(self, request_id: int, frame: str, cancel: str | None = None) -> Any:
        """Send a request and wait for its response.

        :param cancel: a frame to send if this is cancelled after the request was sent.
        :raises CallFailed: the connection broke before the response.
        """
        waiting = self.waiting[request_id] = _Waiting()
        sent = False
        try:
            await self.outbox.send(frame)
            sent = True
            await waiting.done.wait()
        except trio.BrokenResourceError as exc:
            raise self.failure("while the call was sent") from exc
        except trio.Cancelled:
            if sent and cancel is not None and not waiting.done.is_set():
                self.notify(cancel)
            raise
        finally:
            del self.waiting[request_id]
        if waiting.response is None:
            raise self.failure("before the answer")
        return waiting.response


class Client:
    """The client of one MCP server.

    `run` must be running while `call` is used.
    """

    def __init__(self, connect: Connect, *, name: str, version: str) -> None:
        self._connect = connect
        self._meta = {
            f"{META}protocolVersion": MODERN_VERSION,
            f"{META}clientCapabilities": {},
            f"{META}clientInfo": {"name": name, "version": version},
        }
        self._ids = count(1)
        self._connecting = trio.Lock()
        self._connection: _Connection | None = None
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the connection. Runs until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    async def call(self, tool: str, arguments: bytes) -> Answer:
        """Call a tool and wait for its answer; the caller sets the deadline.

        When this is cancelled, the server is told to cancel the call too.

        :param arguments: a JSON object, serialised.
        :raises CallFailed: no answer will come; the tool may have run.
        :raises CallRefused: the server knows no such tool or arguments.
        """
        connection = await self._connected()
        request_id = next(self._ids)
        head = dumps({"name": tool, "_meta": self._meta})[:-1]
        frame = b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":%b,"arguments":%b}}'
        params = {"requestId": request_id, "reason": "the caller waits no longer", "_meta": self._meta}
        notice = dumps({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}).decode()
        return _answer(await connection.request(request_id, (frame % (request_id, head, arguments)).decode(), notice))

    def disconnect(self) -> None:
        """Drop the connection and all calls in flight, because the server answers no more."""
        if self._connection is not None:
            self._drop(self._connection)

    def check(self) -> None:
        """Drop the connection if it is dead; to be called when a call was not answered in time.

        That call alone may be slow, or the whole connection, and other calls may be in flight on it. So a ping is sent
        before all calls that wait, and any frame within `PING_S` is a sign of life: the ping's own answer may come
        behind those of a hundred followers.
        """
        if (connection := self._connection) is not None and not connection.being_checked:
            connection.being_checked = True
            connection.nursery.start_soon(self._check, connection, name="ping")

    async def _check(self, connection: _Connection) -> None:
        connection.heard = trio.Event()
        connection.notify(dumps({"jsonrpc": "2.0", "id": next(self._ids), "method": "ping"}).decode())
        with trio.move_on_after(PING_S):
            await connection.heard.wait()
            connection.being_checked = False
            return
        connection.ended = TransportClosed(f"it was silent for {PING_S:g} s when it was asked with a ping")
        self._drop(connection)

    async def _connected(self) -> _Connection:
        async with self._connecting:
            if self._connection is None:
                if self._nursery is None:
                    raise RuntimeError("Client.run is not running")
                opened: _Connection | CallFailed = await self._nursery.start(self._keep_connection)
                if isinstance(opened, CallFailed):
                    raise opened
                return opened
            return self._connection

    async def _keep_connection(self, *, task_status: trio.TaskStatus[_Connection | CallFailed]) -> None:
        """Open a connection and hand out its responses. Returns when it is over."""
        connection: _Connection | None = None
        failure = CallFailed("the connection broke while it was opened")
        try:
            with trio.CancelScope() as scope:
                async with self._connect() as transport, trio.open_nursery() as nursery:
                    outbox, frames = trio.open_memory_channel[str](0)
                    # Set here and not by the caller: when the caller runs, the connection may be over.
                    connection = self._connection = _Connection(scope, nursery, outbox)
                    nursery.start_soon(connection.write, transport, frames, name="writer")
                    task_status.started(connection)
                    try:
                        while True:
                            frame = await transport.receive()
                            connection.heard.set()
                            _hand_out(connection, loads(frame))
                    except TransportClosed as exc:
                        connection.ended = exc
                        raise
                    finally:
                        self._forget(connection)  # before the goodbye, which takes time
        except* Unreachable as reasons:
            unreachable = reasons.exceptions[0]
            failure = CallFailed(str(unreachable), getattr(unreachable, "status", None))
        except* (TransportClosed, NotJSON):
            pass
        if connection is None:
            task_status.started(failure)

    def _drop(self, connection: _Connection) -> None:
        self._forget(connection)
        connection.scope.cancel()

    def _forget(self, connection: _Connection) -> None:
        """Let the next call open another connection, and tell the calls of this one that it is over."""
        if self._connection is connection:
            self._connection = None
        for waiting in connection.waiting.values():
            waiting.done.set()


def _hand_out(connection: _Connection, response: object) -> None:
    match response:
        case {"id": int(request_id), **rest} if request_id in connection.waiting:
            waiting = connection.waiting[request_id]
            waiting.response = rest
            waiting.done.set()
        case {"id": None, "error": _}:
            raise TransportClosed("the server did not understand a frame of ours, and cannot say which")


def _answer(response: Any) -> Answer:
    match response:
        case {"result": {"content": [{"type": "text", "text": str(text)}, *_]} as result}:
            return Answer(text, result.get("structuredContent"), result.get("isError") is True)
        case {"error": {"code": int(code), "message": str(message)}}:
            raise CallRefused(code, message)
    raise CallFailed(f"what came back is no answer of a tool: {response!s:.200}")
