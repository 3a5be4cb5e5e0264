"""How frames travel: one JSON-RPC message a frame, both ways.

Two transports carry the same conversation: a WebSocket, and a pair of memory channels for a Dewey
that runs inside Godot.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol, TypeAlias

import attrs
import h11
import trio
from trio_websocket import CloseReason, ConnectionClosed, HandshakeError, WebSocketConnection
from wsproto.events import TextMessage
from wsproto.frame_protocol import CloseReason as CloseCode
from wsproto.utilities import LocalProtocolError, ProtocolError

SUBPROTOCOL: Final = "mcp"
"""Echoed exactly when it was offered: several clients abort on anything else (MCP.md 2.2)."""

GOODBYE_S: Final = 1.0
"""How long whoever closes a WebSocket waits for the closing frame of the other end."""

READ_BYTES: Final = 64 * 1024
"""Taken from a socket at once; trio-websocket's own 4 KiB make a large frame slow."""

PIECE_CHARS: Final = 1024 * 1024
"""A longer message goes in several frames of WebSocket, and others have their turn between them."""

Frame: TypeAlias = str | bytes


GONE: Final = "it went away"


class TransportClosed(Exception):
    """The other end is gone, or this end was closed; the text says why, in words about the other end.

    :param code: with which it closed the connection; None: it did not say.
    :param reason: what it gave as the reason beside the code.
    """

    def __init__(self, text: str, code: int | None = None, reason: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason


class Unreachable(Exception):
    """There is no connection; trying again later is right.

    :param where: the URL, without secrets.
    :param why: it cannot be reached, in words about it.
    :param status: of HTTP, when that is what it answered.
    """

    def __init__(self, where: str, why: str, status: int | None = None) -> None:
        super().__init__(f"cannot connect to {where}: {why}")
        self.why = why
        self.status = status


class Refused(Unreachable):
    """The other end does not let us in (401 or 403), and will not until somebody mends that."""


class Transport(Protocol):
    """One connection. One task receives; any number send."""

    async def send(self, frame: str) -> None:
        """Send one frame, waiting while the other end does not read.

        :raises TransportClosed: it will not arrive.
        """

    async def send_together(self, frames: Sequence[str]) -> None:
        """Send small frames at once: alone, each of them would wait for several turns of a busy event loop.

        :raises TransportClosed: not all of them will arrive.
        """

    async def receive(self) -> Frame:
        """Wait for the next frame.

        :raises TransportClosed: there will be none.
        """

    async def aclose(self, code: int = 1000, reason: str | None = None) -> None:
        """Say goodbye and close; bounded by the caller's deadline."""


Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[Transport]]
"""Opens a transport, and closes it in the end. Raises `Unreachable`."""


@attrs.define
class Reader:
    """Stands for the nursery in which trio-websocket starts what reads the socket.

    When reading ends first, it ends the handshake: else a peer that breaks it off would be waited for. Whoever
    uses the connection notices himself that nothing comes any more, so no error of the network leaves this task.

    :param scope: reading ends when it is cancelled.
    :param ended: why it has ended by itself; `TransportClosed` when the peer did.
    """

    nursery: trio.Nursery
    handshake: trio.CancelScope
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    ended: Exception | None = None

    def start_soon(self, read: Callable[[], Awaitable[None]]) -> None:
        self.nursery.start_soon(self._read, read, name="reader")

    async def _read(self, read: Callable[[], Awaitable[None]]) -> None:
        try:
            with self.scope:
                await read()
            self.ended = TransportClosed(GONE)
        except (
            trio.BrokenResourceError,
            trio.ClosedResourceError,
            ConnectionClosed,
            HandshakeError,
            ProtocolError,
            h11.ProtocolError,
        ) as exc:
            self.ended = exc
        self.handshake.cancel()


@attrs.frozen
class WebSocketTransport:
    """A transport over an accepted or opened WebSocket."""

    connection: WebSocketConnection
    _in_pieces: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    """Held while a message is sent in pieces: no other may come between them."""

    async def send(self, frame: str) -> None:
        try:
            if len(frame) <= PIECE_CHARS and not self._in_pieces.locked():
                await self.connection.send_message(frame)
                return
            async with self._in_pieces:
                # trio-websocket itself sends a message as a whole, and masking 16 MB takes 80 ms.
                for start in range(0, len(frame), PIECE_CHARS):
                    end = start + PIECE_CHARS
                    await self.connection._send(TextMessage(frame[start:end], message_finished=end >= len(frame)))
        except ConnectionClosed as exc:
            raise _goodbye(exc.reason) from exc
        except LocalProtocolError as exc:
            raise self._being_closed() from exc

    async def send_together(self, frames: Sequence[str]) -> None:
        connection = self.connection
        try:
            async with self._in_pieces, connection._stream_lock:
                data = b"".join(connection._wsproto.send(TextMessage(frame)) for frame in frames)
                await connection._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise _goodbye(connection.closed) from exc
        except LocalProtocolError as exc:
            raise self._being_closed() from exc

    async def receive(self) -> Frame:
        try:
            return await self.connection.get_message()
        except ConnectionClosed as exc:
            raise _goodbye(exc.reason) from exc

    async def aclose(self, code: int = 1000, reason: str | None = None) -> None:
        await self.connection.aclose(code, reason)

    def _being_closed(self) -> TransportClosed:
        said = self.connection.closed
        if said is None or said.code == CloseCode.NORMAL_CLOSURE:  # which is also what we say
            return TransportClosed("it is just being closed")
        return _goodbye(said)


def _goodbye(said: CloseReason | None) -> TransportClosed:
    if said is None or said.code == CloseCode.ABNORMAL_CLOSURE:
        return TransportClosed(GONE)
    reason = in_a_line(said.reason or "")
    return TransportClosed(f"close code {said.code}" + (f", {reason}" if reason else ""), int(said.code), reason)


def in_a_line(text: str, chars: int = 200) -> str:
    """Write what the other end said so that it does not break a line, nor is obeyed by a terminal."""
    return "".join(each if each.isprintable() else " " for each in " ".join(text[: 2 * chars].split()))[:chars]


@attrs.frozen
class MemoryTransport:
    """One end of a pair of memory channels."""

    outgoing: trio.MemorySendChannel[Frame]
    incoming: trio.MemoryReceiveChannel[Frame]

    async def send(self, frame: str) -> None:
        try:
            await self.outgoing.send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise TransportClosed(GONE) from exc

    async def send_together(self, frames: Sequence[str]) -> None:
        for frame in frames:
            await self.send(frame)

    async def receive(self) -> Frame:
        try:
            return await self.incoming.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError) as exc:
            raise TransportClosed(GONE) from exc

    async def aclose(self, code: int = 1000, reason: str | None = None) -> None:
        del code, reason  # a memory channel has no closing frame
        self.outgoing.close()
        self.incoming.close()


def memory_transports(buffered: int = 0) -> tuple[MemoryTransport, MemoryTransport]:
    """Make two connected ends.

    :param buffered: frames that may wait each way before `send` does.
    """
    to_server, from_client = trio.open_memory_channel[Frame](buffered)
    to_client, from_server = trio.open_memory_channel[Frame](buffered)
    return MemoryTransport(to_server, from_server), MemoryTransport(to_client, from_client)
