"""One WebSocket as a `Transport`, and the task that reads it: the same for `listen` and for `dial`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs
import h11
import trio
from trio_websocket import CloseReason, ConnectionClosed, HandshakeError, WebSocketConnection
from wsproto.events import TextMessage
from wsproto.frame_protocol import CloseReason as CloseCode
from wsproto.utilities import LocalProtocolError, ProtocolError

from godot.mcp.transport import GONE, Frame, TransportClosed, in_a_line

SUBPROTOCOL: Final = "mcp"
"""Echoed exactly when it was offered: several clients abort on anything else."""

READ_BYTES: Final = 64 * 1024
"""Read from a socket at once; trio-websocket's own 4 KiB make a large frame slow."""

PIECE_CHARS: Final = 1024 * 1024
"""A longer message is sent in several frames of WebSocket, so that other tasks run between them."""


@attrs.define
class Reader:
    """Takes the place of the nursery in which trio-websocket starts its reading task.

    When reading ends, the handshake ends too: otherwise it would wait for a peer that has broken it off. The user of
    the connection notices that nothing comes any more, so no error of the network leaves this task.

    :param scope: is cancelled to end the reading.
    :param ended: why the reading has ended by itself; `TransportClosed` if the peer ended it.
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
    """Held while a message is sent in pieces: no other message may come between them."""

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
        if said is None or said.code == CloseCode.NORMAL_CLOSURE:  # our own goodbye has the same code
            return TransportClosed("it is just being closed")
        return _goodbye(said)


def _goodbye(said: CloseReason | None) -> TransportClosed:
    if said is None or said.code == CloseCode.ABNORMAL_CLOSURE:
        return TransportClosed(GONE)
    reason = in_a_line(said.reason or "")
    return TransportClosed(f"close code {said.code}" + (f", {reason}" if reason else ""), int(said.code), reason)
