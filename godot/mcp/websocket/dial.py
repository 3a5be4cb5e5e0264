"""Opens a WebSocket to another server.

Of trio-websocket only the handshake and the framing are used. Its own way to connect leaves the socket to the garbage
collector when the server closes first, and waits for a server that has broken off the handshake.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeAlias, cast
from urllib.parse import urlsplit

import attrs
import h11
import trio
from trio_websocket import ConnectionRejected, wrap_client_stream
from wsproto.utilities import ProtocolError

from godot.mcp.transport import GOODBYE_S, Connect, RefusedByServer, Transport, TransportClosed, Unreachable, in_a_line
from godot.mcp.websocket.connection import READ_BYTES, SUBPROTOCOL, Reader, WebSocketTransport

CONNECT_S: Final = 5.0
"""How long TCP, TLS and the upgrade may take together."""

SILENT_S: Final = 60
"""After this time without a sign of life the kernel gives a connection up, also while we send (Linux)."""

Stream: TypeAlias = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class NoAddress(ValueError):
    """A text is not the URL of a WebSocket; the message says what one looks like, and repeats no secret."""


@attrs.frozen
class Address:
    """Where a server is.

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

        :raises NoAddress: it is not the URL of a WebSocket.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
            (host or "").encode("idna")  # looking up such a host would raise this, and not an OSError
        except ValueError as exc:
            why = "" if "@" in url else f" ({exc})"  # the part that is not understood may be a password
            raise NoAddress(f"the URL cannot be used{why}; it looks like ws://127.0.0.1:9060") from None
        if "@" in url.partition("?")[0]:  # it may be a password: nothing of it is repeated
            raise NoAddress("the URL must not hold a name or a password; a token goes into a file of its own")
        if parts.scheme not in ("ws", "wss") or not host or not (url.isascii() and url.isprintable()) or " " in url:
            raise NoAddress(
                f"the URL must look like ws://127.0.0.1:9060 or wss://host/path, not {url.partition('?')[0]!r:.200}"
            )
        secure = parts.scheme == "wss"
        resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(secure, host, port or (443 if secure else 80), parts.netloc, resource)

    def __str__(self) -> str:
        """Return the URL without its query, which may hold a secret."""
        path = self.resource.partition("?")[0]
        return f"{'wss' if self.secure else 'ws'}://{self.authority}{'' if path == '/' else path}"


def over_websocket(address: Address, token: str | None = None, *, max_message_bytes: int) -> Connect:
    """Return a function that opens a WebSocket, and closes it with code 1000, also when its user is cancelled.

    :param token: sent as a bearer token with the upgrade request.
    :param max_message_bytes: a larger frame closes the connection with code 1009.
    """
    headers = [] if token is None else [(b"Authorization", b"Bearer " + token.encode("ascii"))]

    @asynccontextmanager
    async def connect() -> AsyncIterator[Transport]:
        deadline = trio.current_time() + CONNECT_S
        stream = await _open_stream(address, deadline)
        connection = None
        try:
            async with trio.open_nursery() as nursery:
                # The reader must still run during the goodbye.
                reader = Reader(nursery, trio.CancelScope(deadline=deadline), trio.CancelScope(shield=True))
                try:
                    with reader.handshake:
                        connection = await wrap_client_stream(
                            cast(trio.Nursery, reader),
                            stream,
                            address.authority,
                            address.resource,
                            subprotocols=[SUBPROTOCOL],
                            extra_headers=headers,
                            max_message_size=max_message_bytes,
                            receive_buffer_size=READ_BYTES,
                        )
                    if connection is not None:
                        yield WebSocketTransport(connection)
                finally:
                    if connection is not None:
                        with trio.move_on_after(GOODBYE_S, shield=True):
                            await connection.aclose(1000)
                    reader.scope.cancel()
        finally:
            await trio.aclose_forcefully(stream)  # the goodbye is over, or the server is gone
        if connection is None:
            raise _unreachable(address, reader.ended or trio.TooSlowError()) from reader.ended

    return connect


async def _open_stream(address: Address, deadline: float) -> Stream:
    try:
        with trio.fail_at(deadline):
            stream = await trio.open_tcp_stream(address.host, address.port)
            try:
                _notice_silence(stream)
                return await _secure(stream, address.host) if address.secure else stream
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
    except (OSError, trio.BrokenResourceError, trio.TooSlowError) as exc:
        raise _unreachable(address, exc) from exc


def _notice_silence(stream: trio.SocketStream) -> None:
    """Let the kernel notice a server that has vanished, as after a laptop's sleep.

    A ping of WebSocket would not do: its answer cannot be read before the frames in front of it are taken.
    """
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", SILENT_S // 2),
        ("TCP_KEEPINTVL", SILENT_S // 6),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", SILENT_S * 1000),
    ):
        if (option := getattr(socket, name, None)) is not None:  # each system has some of them
            stream.setsockopt(socket.IPPROTO_TCP, option, value)


async def _secure(stream: trio.SocketStream, host: str) -> Stream:
    secured = trio.SSLStream(stream, ssl.create_default_context(), server_hostname=host, https_compatible=True)
    await secured.do_handshake()
    return secured


def _unreachable(address: Address, exc: Exception) -> Unreachable:
    """Describe what went wrong before there was a connection."""
    match exc:
        case ConnectionRejected(status_code=status):
            said = in_a_line((exc.body or b"").decode("utf-8", "replace"))
            said = "" if said.startswith(("<", "{")) else said  # HTML or JSON, which is not for people
            why = f"HTTP {status}" + (f", {said}" if said else "")
            if status in (401, 403):
                return RefusedByServer(str(address), why, status)
            return Unreachable(str(address), f"it answered {why}", status)
        case ProtocolError() | h11.ProtocolError():  # they describe our own state machine, which helps nobody
            why = "it does not speak WebSocket"
        case TransportClosed():
            why = "it broke off the handshake"
        case trio.TooSlowError():
            why = f"no WebSocket within {CONNECT_S:g} s"
        case _:
            why = _reason(exc)
    return Unreachable(str(address), why)


def _reason(exc: Exception) -> str:
    """Describe an error of the network: trio's exception says what failed, and its cause says why."""
    cause: BaseException = exc.__cause__ or exc
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError | socket.gaierror) and cause.errno:
        return os.strerror(cause.errno)
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)
