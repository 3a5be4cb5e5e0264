"""How frames travel: one JSON-RPC message a frame, both ways.

`memory` and `websocket` carry the same conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol, TypeAlias

GOODBYE_S: Final = 1.0
"""How long whoever closes a WebSocket waits for the closing frame of the other end."""

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


class RefusedByServer(Unreachable):
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


def in_a_line(text: str, chars: int = 200) -> str:
    """Write what the other end said so that it does not break a line, nor is obeyed by a terminal."""
    return "".join(each if each.isprintable() else " " for each in " ".join(text[: 2 * chars].split()))[:chars]
