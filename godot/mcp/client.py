"""Calls the tools of another MCP server, many calls at once on one connection.

The connection is opened by the first call that needs one, and again by the first call after it broke.
Requests are of protocol 2026-07-28, which needs no handshake: a call costs one frame each way from
the first on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final

import attrs
import trio

from godot import codec
from godot.mcp.session import META, MODERN_VERSION
from godot.mcp.tools import Answer
from godot.mcp.transport import Connect, Transport, TransportClosed, Unreachable, memory_transports

CANCEL_S: Final = 1.0
"""How long telling the other side that a call was given up may take."""


class CallFailed(Exception):
    """There will be no answer: no connection, a broken one, or one that says what is not MCP."""


class CallRefused(Exception):
    """The server answered with a JSON-RPC error.

    :param code: as JSON-RPC and MCP define it.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code


@attrs.define(eq=False)
class _Waiting:
    done: trio.Event = attrs.Factory(trio.Event)
    response: Any = None


@attrs.define(eq=False)
class _Connection:
    transport: Transport
    scope: trio.CancelScope
    waiting: dict[int, _Waiting] = attrs.Factory(dict)


class Client:
    """One MCP server, as the one who calls it.

    `run` has to be running wherever `call` is used.
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
        """Call a tool and wait for what it says; the caller sets the deadline.

        A call that is cancelled is cancelled on the other side too.

        :param arguments: a JSON object, serialised.
        :raises CallFailed: no answer will come; the tool may have run.
        :raises CallRefused: the server knows no such tool or arguments.
        """
        connection = await self._connected()
        request_id = next(self._ids)
        waiting = connection.waiting[request_id] = _Waiting()
        head = codec.dumps({"name": tool, "_meta": self._meta})[:-1]
        frame = b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":%b,"arguments":%b}}'
        sent = False
        try:
            await connection.transport.send((frame % (request_id, head, arguments)).decode())
            sent = True
            await waiting.done.wait()
        except TransportClosed as exc:
            self._drop(connection)
            raise CallFailed("the connection broke while the call was sent") from exc
        except trio.Cancelled:
            if sent:
                await self._give_up(connection, request_id)
            else:
                self._drop(connection)  # half a frame may have been written: nothing can follow it
            raise
        finally:
            del connection.waiting[request_id]
        return _answer(waiting.response)

    def disconnect(self) -> None:
        """Drop the connection, and with it every call in flight: it answers no more."""
        if self._connection is not None:
            self._drop(self._connection)

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
        """Hand out the responses of one connection. Returns when it is over."""
        connection: _Connection | None = None
        failure = CallFailed("the connection broke while it was opened")
        try:
            with trio.CancelScope() as scope:
                async with self._connect() as transport:
                    # Set here: by the time that the caller runs again it may be over.
                    connection = self._connection = _Connection(transport, scope)
                    task_status.started(connection)
                    try:
                        while True:
                            _hand_out(connection, codec.loads(await transport.receive()))
                    finally:
                        self._forget(connection)  # before the goodbye, which takes its time
        except* Unreachable as reasons:
            failure = CallFailed(str(reasons.exceptions[0]))
        except* (TransportClosed, codec.NotJSON):
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

    async def _give_up(self, connection: _Connection, request_id: int) -> None:
        params = {"requestId": request_id, "reason": "the caller waits no longer", "_meta": self._meta}
        notice = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
        with trio.move_on_after(CANCEL_S, shield=True) as patience:
            try:
                await connection.transport.send(codec.dumps(notice).decode())
            except TransportClosed:
                return
        if patience.cancelled_caught:
            self._drop(connection)  # as above


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
        case None:
            raise CallFailed("the connection broke before the answer")
    raise CallFailed(f"what came back is no answer of a tool: {response!s:.200}")


def in_process(serve: Callable[[Transport], Awaitable[None]]) -> Connect:
    """Return what opens a pair of memory channels to a server in this process.

    :param serve: answers one connection, as `godot.mcp.server.serve` does.
    """

    @asynccontextmanager
    async def connect() -> AsyncIterator[Transport]:
        client, server = memory_transports()

        async def serve_and_close() -> None:
            try:
                await serve(server)
            finally:
                await server.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_and_close)
            try:
                yield client
            finally:
                await client.aclose()
            nursery.cancel_scope.cancel()

    return connect
