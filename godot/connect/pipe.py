"""Moves messages between the host and Godot, and connects again when it has to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Final, Protocol

import trio

from godot.connect.conversation import Conversation
from godot.connect.lines import MAX_MESSAGE_BYTES, LineCutter, one_line
from godot.connect.messages import failure
from godot.mcp.jsonrpc import INVALID_REQUEST
from godot.mcp.transport import GOODBYE_S, Connect, Frame, RefusedByServer, Transport, TransportClosed, Unreachable
from godot.service.backoff import delays

GREETING_S: Final = 5.0
"""How long Godot may take to answer the `initialize` that opens a new connection."""

DRAIN_S: Final = 5.0
"""How long answers are waited for after the end of stdin."""

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
"""Between tries to connect. The longest is shorter than the patience, so that each request sees a try."""

STEADY_S: Final = 10.0
"""A connection that lasted this long makes the pauses short again; one that Godot closes at once does not."""


class HostGone(Exception):
    """Nobody reads our stdout any more."""


class Host(Protocol):
    """The program that has started us."""

    async def read(self) -> bytes:
        """Wait for the next piece of stdin; empty at its end."""

    async def write(self, line: str) -> None:
        """Write a line to stdout, waiting while the host does not read.

        :raises HostGone: it will not be read.
        """

    async def tell(self, text: str) -> None:
        """Write a line for people to stderr, or drop it when that cannot be done soon."""


class Pipe:
    """Moves messages between the host and Godot, over as many connections as it takes.

    :param connect: opens a connection.
    :param where: the URL, for people.
    """

    def __init__(self, connect: Connect, host: Host, where: str) -> None:
        self._connect = connect
        self._host = host
        self._where = where
        self._conversation = Conversation(where)
        self._refusal: str | None = None
        self._over = trio.CancelScope()
        self._writing = trio.Lock()
        self._changes = trio.lowlevel.ParkingLot()
        """Where tasks wait for a change of the conversation. Each change wakes them all: there are never more than
        three."""

    async def run(self) -> str | None:
        """Work until stdin ends, the host is gone, or Godot refuses us.

        :returns: the refusal, and what to do about it.
        """
        with self._over:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_connected, name="connection")
                nursery.start_soon(self._lose_patience, name="patience")
                await self._read_host()
                await self._drain()
                nursery.cancel_scope.cancel()
        return self._refusal

    async def _read_host(self) -> None:
        lines = LineCutter()
        while data := await self._host.read():
            for line in lines.feed(data):
                await self._take(line)
        for line in lines.close():
            await self._take(line)

    async def _take(self, raw: bytes | None) -> None:
        if raw is None:
            await self._write(
                failure([None], INVALID_REQUEST, f"Invalid Request: a line over {MAX_MESSAGE_BYTES:,} bytes")
            )
            return
        # A byte that is no UTF-8 is replaced visibly: the message is worth more than the byte.
        if not (text := raw.decode("utf-8", "replace").strip(" \t\r")):
            return
        while not self._conversation.has_room:
            await self._changes.park()
        self._conversation.take(text, trio.current_time())
        self._changes.unpark_all()

    async def _drain(self) -> None:
        """Wait for the answers that are owed, answer the other requests ourselves, and finish what is being written."""
        with trio.move_on_after(DRAIN_S):
            while self._conversation.busy:
                await self._changes.park()
            await self._write()
        answers = self._conversation.expire(math.inf)
        answers += self._conversation.end(f"stdin ended, and {DRAIN_S:g} s later godot connect did")
        with trio.move_on_after(GOODBYE_S):
            await self._write(*answers)

    async def _lose_patience(self) -> None:
        """Answer the requests that have waited for a connection long enough. Runs until cancelled."""
        while True:
            with trio.move_on_at(self._conversation.patience_ends):
                await self._changes.park()
            if expired := self._conversation.expire(trio.current_time()):
                self._changes.unpark_all()
                await self._write(*expired)

    async def _keep_connected(self) -> None:
        pauses = delays(FIRST_PAUSE_S, longest=LONGEST_PAUSE_S)
        said = ""
        while True:
            try:
                async with self._connect() as transport:
                    opened = trio.current_time()
                    trouble = await self._talk(transport)
                if trio.current_time() - opened >= STEADY_S:
                    pauses = delays(FIRST_PAUSE_S, longest=LONGEST_PAUSE_S)
                said = ""
                await self._host.tell(f"lost the connection to {self._where} ({trouble}); connecting again")
            except RefusedByServer as exc:
                await self._be_refused(f"Godot at {self._where} refused the connection ({exc.why}); {_remedy(exc)}")
            except Unreachable as exc:
                self._conversation.trouble = exc.why
                if said != exc.why:
                    said = exc.why
                    await self._host.tell(f"cannot reach {self._where} ({said}); trying again until it is there")
            await trio.sleep(next(pauses))

    async def _be_refused(self, refusal: str) -> None:
        self._refusal = refusal
        with trio.move_on_after(GOODBYE_S):
            await self._write(*self._conversation.end(refusal))
        self._over.cancel()

    async def _talk(self, transport: Transport) -> str:
        """Use a connection until it is gone; return why it is."""
        try:
            await self._greet(transport)
            await self._host.tell(f"connected to {self._where}")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_lines, transport, name="sender")
                trouble = await self._receive_frames(transport)
                nursery.cancel_scope.cancel()
        except TransportClosed as exc:
            trouble = str(exc)
        errors = self._conversation.lost(trio.current_time(), trouble)
        self._changes.unpark_all()
        await self._write(*errors)
        return trouble

    async def _greet(self, transport: Transport) -> None:
        """Say the opening of the session again.

        Nothing else is sent before its answer has come: a host may have used its id again since.

        :raises TransportClosed: the connection is gone, or the answer does not come.
        """
        deadline = trio.current_time() + GREETING_S
        while (hello := self._conversation.greet()) is not None:
            with _greeting_until(deadline):
                await transport.send(hello)
            while self._conversation.greeting:
                with _greeting_until(deadline):
                    frame = await transport.receive()
                await self._deliver(frame)

    async def _send_lines(self, transport: Transport) -> None:
        # A connection that takes nothing any more may still hold answers: the receiving task notices its end.
        with suppress(TransportClosed):
            while True:
                while (text := self._conversation.next_line()) is not None:
                    self._changes.unpark_all()
                    await transport.send(text)
                await self._changes.park()

    async def _receive_frames(self, transport: Transport) -> str:
        try:
            while True:
                await self._deliver(await transport.receive())
        except TransportClosed as exc:
            return str(exc)

    async def _deliver(self, frame: Frame) -> None:
        line = one_line(frame)
        wanted = self._conversation.receive(line)
        self._changes.unpark_all()
        if wanted:
            await self._write(line)

    async def _write(self, *lines: str) -> None:
        """Write lines, one behind the other; without any, wait for those of other tasks."""
        try:
            async with self._writing:
                for line in lines:
                    await self._host.write(line)
        except HostGone:
            self._over.cancel()
            await trio.sleep_forever()


@contextmanager
def _greeting_until(deadline: float) -> Iterator[None]:
    with trio.move_on_at(deadline) as patience:
        yield
    if patience.cancelled_caught:
        raise TransportClosed(f"it did not answer `initialize` within {GREETING_S:g} s")


def _remedy(refusal: RefusedByServer) -> str:
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        return "give godot connect a token that Godot knows (--token-file, or GODOT_TOKEN)"
    return "what it says has to be mended where it runs"
