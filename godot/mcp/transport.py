"""How frames travel: one JSON-RPC message in each frame, in both directions.

`memory` and `websocket` carry the same conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol, TypeAlias

GOODBYE_S: Final = 1.0
"""How long to wait for the closing frame of the other end when we close a WebSocket."""

Frame: TypeAlias = str | bytes


GONE: Final = "it went away"


class TransportClosed(Exception):
    """The other end is gone, or this end was closed; the text says why, in words about the other end.

    :param code: with which the other end closed the connection; None if it gave none.
    :param reason: that it gave beside the code.
    """

    def __init__(self, text: str, code: int | None = None, reason: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason


class Unreachable(Exception):
    """There is no connection; trying again later is right.

    :param where: the URL, without secrets.
    :param why: what is wrong, in words about the server.
    :param status: the HTTP status, if the server answered with one.
    """

    def __init__(self, where: str, why: str, status: int | None = None) -> None:
        super().__init__(f"cannot connect to {where}: {why}")
        self.why = why
        self.status = status


class RefusedByServer(Unreachable):
    """The server refuses us (401 or 403), and will go on to do so until an operator changes something."""


class Transport(Protocol):
    """One connection. One task receives; any number of tasks send."""

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


def in_a_line(text: str, chars: int = 200) -> str:
    """Make words of the other end safe to print: one line, and nothing that a terminal would obey."""
    return "".join(each if each.isprintable() else " " for each in " ".join(text[: 2 * chars].split()))[:chars]
