"""Batches: 100 entries, or 100 ms after the first one of the batch, whichever comes first (GOD-002)."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import attrs
import trio

from godot.buffer.protocol import Counts, Queue
from godot.errors import BufferUnavailable
from godot.pipeline.channel import Arrival, Outlet
from godot.service.backoff import Jitter, delays, jittered

BATCH_MAX_BYTES: Final = 8 * 1024 * 1024
"""A batch is also full with the entry that passes this: Redis drops a client that sends 1 GB at once."""

RETRY_FIRST_S: Final = 0.1
RETRY_LONGEST_S: Final = 2.0
"""A push that failed is tried again after 0.1, 0.2, … 2 s: Redis is near, and callers are waiting."""


@attrs.define(eq=False)
class Batcher:
    """The station between the channel and the buffer.

    :param pushed: wakes the sender; closed at the end, which tells it that nothing more will come.
    :param on_counts: gets what the buffer holds, after each push.
    :param on_failure: gets why a push failed.
    """

    outlet: Outlet
    buffer: Queue
    pushed: trio.MemorySendChannel[None]
    batch_size: int
    batch_timeout_s: float
    on_counts: Callable[[Counts], None]
    on_failure: Callable[[BufferUnavailable], None]
    jitter: Jitter = jittered
    _batch: list[Arrival] = attrs.field(factory=list, init=False)
    _counts: Counts = attrs.field(factory=Counts, init=False)

    @property
    def unwritten(self) -> int:
        """Entries that were accepted and are not in the buffer: what the end of the process would lose."""
        return self.outlet.waiting + len(self._batch)

    async def run(self) -> None:
        """Collect entries into batches and push them. Returns when every producer has closed and all is pushed.

        While the buffer is unavailable the batch in hand is tried again for ever, and entries wait in the
        channel; when that is full, the listener refuses calls. Nothing accepted is given up.
        """
        async with self.pushed:
            while await self._collect():
                counts = await self._push([entry.raw for entry in self._batch])
                self.on_counts(counts)
                dropped = self._dropped_by_itself(counts)
                for index, entry in enumerate(self._batch):
                    if entry.receipt is None:
                        continue
                    if index < dropped:
                        entry.receipt.note_dropped()
                    else:
                        entry.receipt.note_written(counts.weakness)
                self._batch.clear()
                with suppress(trio.WouldBlock):  # the sender has not yet looked since it was last woken
                    self.pushed.send_nowait(None)

    async def _collect(self) -> bool:
        """Fill the batch; False when there will be no other.

        The window begins with the arrival of the first entry, not with this call, and what already waits
        is taken even when the window is over: under load batches are full, not late. An entry that
        somebody waits for ends the window: it shares this write with what is there, and no more.
        """
        try:
            self._batch.append(await self.outlet.receive())
        except trio.EndOfChannel:
            return False
        (first,) = self._batch
        room = BATCH_MAX_BYTES - len(first.raw)
        window = trio.CancelScope(deadline=-math.inf if first.receipt else first.arrived + self.batch_timeout_s)
        with window, suppress(trio.EndOfChannel):
            while len(self._batch) < self.batch_size and room > 0:
                entry = await self.outlet.receive()
                self._batch.append(entry)
                room -= len(entry.raw)
                if entry.receipt is not None:
                    window.deadline = -math.inf
        return True

    def _dropped_by_itself(self, counts: Counts) -> int:
        """Return how many entries, from the first one on, the push of this batch has dropped of the batch itself.

        The oldest go: so all that waited before went, too, and the queue holds fewer than the batch has. A push that is
        answered only when it is tried again may find a queue that was delivered meanwhile; then as many as were dropped
        since the push before, by whomever, may be called dropped.
        """
        before = self._counts.dropped if counts.began == self._counts.began else 0
        self._counts = counts
        return max(0, min(len(self._batch) - counts.queued, counts.dropped - before))

    async def _push(self, entries: list[bytes]) -> Counts:
        pauses = delays(RETRY_FIRST_S, longest=RETRY_LONGEST_S, jitter=self.jitter)
        while True:
            try:
                return await self.buffer.push(entries)
            except BufferUnavailable as exc:
                self.on_failure(exc)
            await trio.sleep(next(pauses))
