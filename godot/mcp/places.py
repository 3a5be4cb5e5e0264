"""Accepts TCP connections up to a limit: when file descriptors run out, Redis cannot be reached either.

A silent connection (no upgrade request yet, no HTTP request now) keeps its place only while no other needs it. When all
places are taken, the connection that has been silent for longest makes room. When none is silent, a new one gets 503.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs
import trio

CAPACITY: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
"""Errors of accept(2) when the system has no room for a connection."""

CAPACITY_PAUSE_S: Final = 0.1

REFUSAL_S: Final = 1.0
"""How long a peer may take to read the refusal."""

MAX_REFUSALS: Final = 16
"""Refusals that are sent at the same time; further connections are closed without one."""


@attrs.define(eq=False)
class Places:
    """The connections that one port may have at once.

    :param limit: how many.
    :param setting: name of the setting for the limit; a refusal contains it.
    :param report: called with an event (`refused`), the peer's address, and the reason.
    """

    limit: int
    setting: str
    report: Callable[[str, str, str], None]
    taken: int = 0
    refusing: int = 0
    silent: dict[trio.CancelScope, None] = attrs.Factory(dict)
    """Silent connections, the one that is silent for longest first."""

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
        """Note that no request is under way on this connection."""
        self.places.silent[self.scope] = None

    def note_asked(self) -> None:
        """Note that a request is under way, or a WebSocket is open."""
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

    :param connections: the nursery of the handlers, which outlive this call.
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
    """Answer 503, without waiting for the peer's request: a refusal must cost nothing."""
    places.report("refused", peer_address(stream), places.reason)
    places.refusing += 1
    try:
        if places.refusing <= MAX_REFUSALS:
            with trio.move_on_after(REFUSAL_S):
                await stream.send_all(http_answer("503 Service Unavailable", "Retry-After: 1", places.reason))
                await stream.send_eof()
                await stream.receive_some()  # with its request unread, closing would reset the connection
    except trio.BrokenResourceError:
        pass  # it did not wait for the answer
    finally:
        places.refusing -= 1
        await trio.aclose_forcefully(stream)


def http_answer(status: str, header: str, text: str) -> bytes:
    """Return a sentence as an HTTP response, for any request; the connection is to be closed after it."""
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
