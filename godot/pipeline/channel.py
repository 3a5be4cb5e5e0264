"""The channel between the listener and the batcher: trio's memory channel, bounded in bytes too.

Ten thousand entries are a few megabytes, or, when each is as large as a frame may be, 160 GiB. So a
sender waits for room in entries and for room in bytes, and what is waiting never outgrows memory.
"""

from __future__ import annotations

import math
from types import TracebackType
from typing import Final

import attrs
import trio

from godot.errors import ChannelFull, EntryRejected
from godot.toolnames import STATUS

MAX_ENTRIES: Final = 10_000
MAX_BYTES: Final = 128 * 1024 * 1024

PATIENCE_S: Final = 1.0
"""How long a full channel slows the sender of a frame down before the entry is refused."""


class Receipt:
    """What a caller waits with until all that it gave to the channel is written."""

    def __init__(self) -> None:
        self.weakness: str | None = None
        """Why an entry that was written may be lost all the same (`Counts.weakness`); None: all are durable."""
        self.dropped = 0
        """Entries that the push which wrote them has dropped again: the queue holds fewer than came at once."""
        self._open = 0
        self._changed = trio.Event()

    def note_accepted(self) -> None:
        """One more entry is on its way."""
        self._open += 1

    def note_written(self, weakness: str | None) -> None:
        """One entry is in the buffer: on disk, unless there is a weakness."""
        self.weakness = self.weakness or weakness
        self.note_gone()

    def note_dropped(self) -> None:
        """One entry was in the buffer, and went with the same push."""
        self.dropped += 1
        self.note_gone()

    def note_gone(self) -> None:
        """One entry is not on its way any more: it is in the buffer, or was not accepted after all."""
        self._open -= 1
        if not self._open:
            self._changed.set()

    async def wait(self) -> None:
        """Wait until nothing is on its way. To be called when everything was accepted."""
        if self._open:
            self._changed = trio.Event()
            await self._changed.wait()


@attrs.frozen
class Arrival:
    """An entry on its way to the buffer.

    :param raw: the entry, serialised.
    :param arrived: when, on trio's clock.
    :param receipt: of a caller who waits until it is on disk: it is to be written as soon as can be.
    """

    raw: bytes
    arrived: float
    receipt: Receipt | None = None


@attrs.define(eq=False)
class _Backlog:
    """What both ends know: how many bytes are waiting, and whom to wake when they become fewer."""

    max_bytes: int
    bytes: int = 0
    fell: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    def fall(self, by: int) -> None:
        self.bytes -= by
        if self.fell:
            self.fell.unpark_all()


class Inlet:
    """The producers' end; closed when its `async with` is left."""

    def __init__(self, send: trio.MemorySendChannel[Arrival], level: _Backlog, entry_max_bytes: float) -> None:
        self._send, self._level, self._entry_max_bytes = send, level, entry_max_bytes

    async def accept(self, raw: bytes, receipt: Receipt | None = None) -> None:
        """Put an entry into the channel, at once when there is room.

        :raises ChannelFull: there was none for `PATIENCE_S`.
        :raises EntryRejected: it is larger than all of the queue behind may be.
        """
        if len(raw) > self._entry_max_bytes:
            raise EntryRejected(
                f"an entry may have {self._entry_max_bytes:,} bytes as JSON here, this one has {len(raw):,}: the queue "
                "holds no more (GODOT_MAX_QUEUE_BYTES)"
            )
        if receipt is not None:
            receipt.note_accepted()
        try:
            await self._accept(Arrival(raw, trio.current_time(), receipt))
        except BaseException:
            if receipt is not None:
                receipt.note_gone()
            raise

    async def _accept(self, entry: Arrival) -> None:
        size = len(entry.raw)
        if self._has_room(entry):
            try:
                self._send.send_nowait(entry)
                self._level.bytes += size
                return
            except trio.WouldBlock:
                pass
        with trio.move_on_after(PATIENCE_S):
            while not self._has_room(entry):
                await self._level.fell.park()
            self._level.bytes += size  # before it is sent: the others who wait must not count on the same room
            try:
                await self._send.send(entry)
            except BaseException:
                self._level.fall(size)
                raise
            return
        raise ChannelFull(
            f"not accepted: the buffer has not taken anything for {PATIENCE_S:g} s and what may wait for it is full; "
            f"send it again later ({STATUS} says what is down)"
        )

    def _has_room(self, entry: Arrival) -> bool:
        # An entry larger than the bound itself passes when it is alone.
        return self._level.bytes == 0 or self._level.bytes + len(entry.raw) <= self._level.max_bytes

    async def __aenter__(self) -> Inlet:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._send.close()


class Outlet:
    """The batcher's end."""

    def __init__(self, receive: trio.MemoryReceiveChannel[Arrival], level: _Backlog) -> None:
        self._receive, self._level = receive, level

    async def receive(self) -> Arrival:
        """Wait for an entry.

        :raises trio.EndOfChannel: there will be none.
        """
        try:
            entry = self._receive.receive_nowait()
        except trio.WouldBlock:
            entry = await self._receive.receive()
        self._level.fall(len(entry.raw))
        return entry

    @property
    def waiting(self) -> int:
        """Entries in the channel."""
        return self._receive.statistics().current_buffer_used


def open_entry_channel(
    max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES, *, entry_max_bytes: float = math.inf
) -> tuple[Inlet, Outlet]:
    """Make a channel: the end to put entries in, and the end to take them out.

    :param entry_max_bytes: of one entry.
    """
    send, receive = trio.open_memory_channel[Arrival](max_entries)
    level = _Backlog(max_bytes)
    return Inlet(send, level, entry_max_bytes), Outlet(receive, level)
