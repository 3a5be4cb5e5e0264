"""Accepts TCP connections, as many as there are places for: descriptors run out for everybody, also for Redis.

Who says nothing (no upgrade request yet, no HTTP request now) keeps a place only while it is not needed: when all are
taken, the connection that has been silent for longest makes room. When none is silent, a newcomer is told so with 503.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs
import trio

CAPACITY: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
"""What accept(2) answers while the system has no room for a connection."""

CAPACITY_PAUSE_S: Final = 0.1

REFUSAL_S: Final = 1.0
"""How long a peer may take to read that there is no place."""

MAX_REFUSALS: Final = 16
"""Peers that are told so at once; further ones are closed without a word."""


@attrs.define(eq=False)
class Places:
    """The connections that one port may have at once.

    :param limit: how many.
    :param setting: what sets it, for the refusal.
    :param report: gets an event (`refused`), the peer's address, and the reason.
    """

    limit: int
    setting: str
    report: Callable[[str, str, str], None]
    taken: int = 0
    refusing: int = 0
    silent: dict[trio.CancelScope, None] = attrs.Factory(dict)
    """Connections that have said nothing, the oldest first."""

    @property
    def reason(self) -> str:
        """Say why there is no place."""
        return f"all {self.limit:,} connections are in use; see {self.setting}"


@attrs.define(eq=False)
class Place:
    """The place of one connection."""

    places: Places
    scope: trio.CancelScope

    def note_silent(self) -> None:
        """Say that nothing is asked on this connection now."""
        self.places.silent[self.scope] = None

    def note_asked(self) -> None:
        """Say that something is asked, or a WebSocket is open."""
        self.places.silent.pop(self.scope, None)


Handler = Callable[[Place, trio.SocketStream], Awaitable[None]]


async def accept_connections(
    places: Places,
    listeners: Sequence[trio.SocketListener],
    handler: Handler,
    connections: trio.Nursery,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the handler for each connection until cancelled; then close the listeners.

    :param connections: where the handlers run; they outlive this call.
    """
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(_accept, places, listener, handler, connections)
        task_status.started()


async def _accept(places: Places, listener: trio.SocketListener, handler: Handler, connections: trio.Nursery) -> None:
    async with listener:
        while True:
            try:
                stream = await listener.accept()
            except OSError as exc:
                if exc.errno not in CAPACITY:
                    raise
                places.report("refused", "a new connection", f"the system has no room for it: {exc.strerror}")
                await trio.sleep(CAPACITY_PAUSE_S)
                continue
            if places.taken >= places.limit and places.silent:
                oldest = next(iter(places.silent))
                del places.silent[oldest]
                oldest.cancel()
            elif places.taken >= places.limit:
                connections.start_soon(_refuse, places, stream)
                continue
            places.taken += 1
            connections.start_soon(_hold, places, stream, handler)


async def _hold(places: Places, stream: trio.SocketStream, handler: Handler) -> None:
    try:
        with trio.CancelScope() as scope:
            place = Place(places, scope)
            place.note_silent()
            await handler(place, stream)
    finally:
        places.silent.pop(scope, None)
        places.taken -= 1
        await trio.aclose_forcefully(stream)


async def _refuse(places: Places, stream: trio.SocketStream) -> None:
    """Answer 503. What the peer asks is not waited for, so that a refusal costs nothing."""
    places.report("refused", peer_address(stream), places.reason)
    places.refusing += 1
    try:
        if places.refusing <= MAX_REFUSALS:
            with trio.move_on_after(REFUSAL_S):
                await stream.send_all(http_answer("503 Service Unavailable", "Retry-After: 1", places.reason))
                await stream.send_eof()
                await stream.receive_some()  # closing with its request unread would take the answer back
    except trio.BrokenResourceError:
        pass  # it did not wait for the answer
    finally:
        places.refusing -= 1
        await trio.aclose_forcefully(stream)


def http_answer(status: str, header: str, text: str) -> bytes:
    """Return a sentence as an answer of HTTP, whatever was asked, after which the connection is closed."""
    body = f"{text}\n"
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n{header}\r\n"
        f"Connection: close\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}"
    ).encode()


def peer_address(stream: trio.SocketStream) -> str:
    """Return host and port of the other end."""
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:
        return "a peer that is gone"
    return f"{host}:{port}"
