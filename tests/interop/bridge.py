"""Streamable HTTP on the one side, Godot's WebSocket on the other: for the conformance suite, which speaks HTTP only.

As thin as the suite allows, so that it judges Godot and not the bridge: a session (`initialize`, then the header
`Mcp-Session-Id`) is one WebSocket, every other POST has one of its own. What HTTP has and a WebSocket has not is
here, and nothing else: the status of an error, and that the header with the version has to match the body.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import attrs
import h11
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

MODERN_VERSION: Final = "2026-07-28"
VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
HEADER_MISMATCH: Final = -32020

# Transports, 2026-07-28: "Error responses"; before, every answer to a request is 200.
STATUS_OF: Final = {
    -32601: HTTPStatus.NOT_FOUND,
    -32602: HTTPStatus.BAD_REQUEST,
    -32022: HTTPStatus.BAD_REQUEST,
    HEADER_MISMATCH: HTTPStatus.BAD_REQUEST,
}

ANSWER_S: Final = 10.0
IDLE_S: Final = 30.0


@attrs.frozen
class Reply:
    """What goes back over HTTP."""

    status: HTTPStatus
    message: Any = None
    session: str | None = None


@attrs.define(eq=False)
class Session:
    """One WebSocket, and who waits for which answer on it."""

    socket: WebSocketConnection
    waiting: dict[Any, trio.MemorySendChannel[Any]] = attrs.Factory(dict)

    async def hand_out(self) -> None:
        """Give each answer to the POST that asked. Returns when the WebSocket is closed."""
        with suppress(ConnectionClosed):
            while True:
                answer = json.loads(await self.socket.get_message())
                self.waiting.pop(answer["id"]).send_nowait(answer)

    async def ask(self, message: dict[str, Any]) -> Any:
        """Send a message; return its answer, or None when it is a notification."""
        if "id" not in message:
            await self.socket.send_message(json.dumps(message))
            return None
        send, receive = trio.open_memory_channel[Any](1)
        self.waiting[message["id"]] = send
        await self.socket.send_message(json.dumps(message))
        with trio.fail_after(ANSWER_S):
            return await receive.receive()


@attrs.define(eq=False)
class Bridge:
    """The HTTP server.

    :param url: Godot's WebSocket.
    """

    url: str
    nursery: trio.Nursery
    sessions: dict[str, Session] = attrs.Factory(dict)

    async def handle(self, method: str, headers: dict[str, str], body: bytes) -> Reply:
        """Answer one HTTP request."""
        session_id = headers.get("mcp-session-id")
        if session_id is not None and session_id not in self.sessions:
            return Reply(HTTPStatus.NOT_FOUND)
        if method == "DELETE" and session_id is not None:
            await self.sessions.pop(session_id).socket.aclose()
            return Reply(HTTPStatus.OK)
        if method != "POST":
            return Reply(HTTPStatus.METHOD_NOT_ALLOWED)
        message = json.loads(body)
        header = headers.get("mcp-protocol-version")
        claimed = message.get("params", {}).get("_meta", {}).get(VERSION_KEY, header)
        if header != claimed:
            error = {"code": HEADER_MISMATCH, "message": f"header {header}, body {claimed}"}
            return Reply(HTTPStatus.BAD_REQUEST, {"jsonrpc": "2.0", "id": message.get("id"), "error": error})
        opened: Session | HTTPStatus
        if session_id is None:
            opened = await self.nursery.start(self._keep, headers)
        else:
            opened = self.sessions[session_id]
        if isinstance(opened, HTTPStatus):
            return Reply(opened)
        session = opened
        answer = await session.ask(message)
        if session_id is None:
            if message["method"] == "initialize" and "result" in answer:
                session_id = str(uuid4())
                self.sessions[session_id] = session
            else:
                await session.socket.aclose()
        if answer is None:
            return Reply(HTTPStatus.ACCEPTED)
        status = HTTPStatus.OK
        if header not in (None, "2025-03-26", "2025-06-18", "2025-11-25") and "error" in answer:
            status = STATUS_OF.get(answer["error"]["code"], HTTPStatus.OK)
        return Reply(status, answer, session_id)

    async def _keep(self, headers: dict[str, str], *, task_status: trio.TaskStatus[Session | HTTPStatus]) -> None:
        """Hold one WebSocket; its upgrade has the Host and Origin of the HTTP request. Returns when it is closed."""
        address = urlsplit(self.url)
        # A page of the bridge's own port stands for one of Godot's, which may connect.
        ours, theirs = f":{address.port}", f":{urlsplit('//' + headers['host']).port}"
        origin = [(b"Origin", headers["origin"].replace(theirs, ours).encode())] if "origin" in headers else []
        try:
            async with (
                await trio.open_tcp_stream(str(address.hostname), address.port or 80) as stream,
                trio.open_nursery() as nursery,
            ):
                socket = await wrap_client_stream(
                    nursery, stream, headers["host"], "/", subprotocols=["mcp"], extra_headers=origin
                )
                async with socket:
                    session = Session(socket)
                    task_status.started(session)
                    await session.hand_out()
        except* ConnectionRejected as rejections:
            (rejected,) = rejections.exceptions
            assert isinstance(rejected, ConnectionRejected)
            task_status.started(HTTPStatus(rejected.status_code))


@asynccontextmanager
async def bridge(url: str) -> AsyncIterator[str]:
    """Serve HTTP on a free port of 127.0.0.1 while the block runs; yield the URL."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, partial(_serve, Bridge(url, nursery)), [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/mcp"
        nursery.cancel_scope.cancel()


async def _serve(server: Bridge, stream: trio.SocketStream) -> None:
    """Answer the requests of one TCP connection. Returns when it is closed or idle."""
    http = h11.Connection(h11.SERVER)
    with suppress(h11.RemoteProtocolError, trio.BrokenResourceError), trio.move_on_after(IDLE_S) as patience:
        async with stream:
            while (request := await _receive(http, stream)) is not None:
                patience.deadline = trio.current_time() + IDLE_S
                await stream.send_all(_response(http, await server.handle(*request)))
                if http.our_state is h11.MUST_CLOSE:
                    return
                http.start_next_cycle()


async def _receive(http: h11.Connection, stream: trio.SocketStream) -> tuple[str, dict[str, str], bytes] | None:
    method = ""
    headers: dict[str, str] = {}
    body = b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some())
        elif isinstance(event, h11.Request):
            method = event.method.decode()
            headers = {name.decode(): value.decode() for name, value in event.headers}
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return method, headers, body
        else:
            return None


def _response(http: h11.Connection, reply: Reply) -> bytes:
    body = b"" if reply.message is None else json.dumps(reply.message).encode()
    headers = [("Content-Length", str(len(body)))]
    if body:
        headers.append(("Content-Type", "application/json"))
    if reply.session is not None:
        headers.append(("Mcp-Session-Id", reply.session))
    events: list[h11.Event] = [h11.Response(status_code=reply.status, headers=headers)]
    if body:
        events.append(h11.Data(data=body))
    return b"".join(http.send(event) or b"" for event in [*events, h11.EndOfMessage()])
