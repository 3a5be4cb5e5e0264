"""MCP within one process: over a pair of memory channels, with the frames of any other transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from godot.mcp.transport import GONE, Connect, Frame, Transport, TransportClosed


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

    :param buffered: frames that may wait in each direction before `send` waits.
    """
    to_server, from_client = trio.open_memory_channel[Frame](buffered)
    to_client, from_server = trio.open_memory_channel[Frame](buffered)
    return MemoryTransport(to_server, from_server), MemoryTransport(to_client, from_client)


def in_process(serve: Callable[[Transport], Awaitable[None]]) -> Connect:
    """Return a function that opens a pair of memory channels to a server in this process.

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
