"""How frames travel: one JSON-RPC message a frame, both ways.

Two transports carry the same conversation: a WebSocket, and a pair of memory channels for a Dewey
that runs inside Godot.
"""

from __future__ import annotations

from typing import Final, Protocol, TypeAlias

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto.utilities import LocalProtocolError

SUBPROTOCOL: Final = "mcp"
"""Echoed exactly when it was offered: several clients abort on anything else (MCP.md 2.2)."""

GOODBYE_S: Final = 1.0
"""How long whoever closes a WebSocket waits for the closing frame of the other end."""

READ_BYTES: Final = 64 * 1024
"""Taken from a socket at once; trio-websocket's own 4 KiB make a large frame slow."""

Frame: TypeAlias = str | bytes


class TransportClosed(Exception):
    """The other end is gone, or this end was closed."""


class Transport(Protocol):
    """One connection. One task receives; any number send."""

    async def send(self, frame: str) -> None:
        """Send one frame, waiting while the other end does not read.

        :raises TransportClosed: it will not arrive.
        """

    async def receive(self) -> Frame:
        """Wait for the next frame.

        :raises TransportClosed: there will be none.
        """

    async def aclose(self, code: int = 1000, reason: str | None = None) -> None:
        """Say goodbye and close; bounded by the caller's deadline."""


@attrs.frozen
class WebSocketTransport:
    """A transport over an accepted or opened WebSocket."""

    connection: WebSocketConnection

    async def send(self, frame: str) -> None:
        try:
            await self.connection.send_message(frame)
        except (ConnectionClosed, LocalProtocolError) as exc:  # the latter when it is just being closed
            raise TransportClosed from exc

    async def receive(self) -> Frame:
        try:
            return await self.connection.get_message()
        except ConnectionClosed as exc:
            raise TransportClosed from exc

    async def aclose(self, code: int = 1000, reason: str | None = None) -> None:
        await self.connection.aclose(code, reason)


@attrs.frozen
class MemoryTransport:
    """One end of a pair of memory channels."""

    outgoing: trio.MemorySendChannel[Frame]
    incoming: trio.MemoryReceiveChannel[Frame]

    async def send(self, frame: str) -> None:
        try:
            await self.outgoing.send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise TransportClosed from exc

    async def receive(self) -> Frame:
        try:
            return await self.incoming.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError) as exc:
            raise TransportClosed from exc

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
