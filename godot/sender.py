"""Delivers what the buffer holds to Dewey, oldest first, and never gives a batch up (GOD-003, REL-002)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import attrs
import trio

from godot import codec
from godot.backoff import Jitter, delays, jittered
from godot.buffer import Buffer, Counts, DeadEntry
from godot.dewey import Dewey
from godot.entries import MAX_BATCH, admit_json
from godot.errors import BatchRefused, BufferUnavailable, DeweyUnavailable, EntryRejected

QUICK_RETRIES: Final = 3
QUICK_FIRST_S: Final = 0.1
"""The quick retries of a batch come after 0.1, 0.2 and 0.4 s."""

PROBE_FIRST_S: Final = 1.0
"""After them Dewey is probed after 1, 2, 4, 8, 16, 30, 30, … s."""

LOOK_S: Final = 0.1
"""How often an idle sender looks for what others pushed (GOD-001); our own batcher wakes it at once."""

RECOVER_S: Final = 10.0
"""How often the sender looks for what a dead sender had in flight."""


@attrs.frozen
class Sender:
    """The station between the buffer and Dewey.

    :param batch_size: entries a batch; up to `MAX_BATCH` while more than that are waiting.
    :param on_counts: gets what the buffer holds, after each change.
    :param on_failure: gets why Dewey or the buffer did not do what they were asked.
    :param on_delivery: is called when Dewey has stored a batch or answered a probe.
    """

    buffer: Buffer
    dewey: Dewey
    pushed: trio.MemoryReceiveChannel[None]
    batch_size: int
    on_counts: Callable[[Counts], None]
    on_failure: Callable[[BufferUnavailable | DeweyUnavailable], None]
    on_delivery: Callable[[], None]
    jitter: Jitter = jittered

    async def run(self) -> None:
        """Deliver until the batcher has ended and the buffer is empty, then return.

        Cancelled in the middle of a batch, it leaves the batch in flight in the buffer; whoever starts
        next under the same name finds it there.

        :raises BufferUnavailable: the supervisor starts it again.
        :raises DeweyUnavailable: the same; Dewey refused a batch and did not say which entry is at fault.
        """
        try:
            limit = self.batch_size
            recover_at = -math.inf
            while True:
                if trio.current_time() >= recover_at:
                    self.on_counts(await self.buffer.hand_back())
                    recover_at = trio.current_time() + RECOVER_S
                batch = await self.buffer.take(limit)
                if batch:
                    limit = await self._deliver(batch)
                elif not await self._woken():
                    return
        except (BufferUnavailable, DeweyUnavailable) as exc:
            self.on_failure(exc)
            raise

    async def _woken(self) -> bool:
        """Wait until there may be something to take; False when the batcher has ended."""
        with trio.move_on_after(LOOK_S):
            try:
                await self.pushed.receive()
            except trio.EndOfChannel:
                return False
        return True

    async def _deliver(self, batch: list[bytes]) -> int:
        """See one batch through, or hand it back and wait for Dewey; return how many to take next."""
        batch = await self._complete(batch)
        pauses = delays(QUICK_FIRST_S, jitter=self.jitter)
        retries = QUICK_RETRIES
        while batch:
            try:
                await self.dewey.store(batch)
            except BatchRefused as refused:
                batch = await self._bury(batch, refused)
                continue
            except DeweyUnavailable as exc:
                self.on_failure(exc)
                if not retries:
                    self.on_counts(await self.buffer.hand_back())
                    await self._probe()
                    return self.batch_size
                retries -= 1
                await trio.sleep(next(pauses))
                continue
            self.on_delivery()
            break
        counts = await self.buffer.settle()
        self.on_counts(counts)
        return MAX_BATCH if counts.queued > self.batch_size else self.batch_size

    async def _probe(self) -> None:
        """Return when Dewey could store a batch. Nothing is in flight meanwhile, so the bound stays exact."""
        for pause in delays(PROBE_FIRST_S, jitter=self.jitter):
            await trio.sleep(pause)
            try:
                await self.dewey.store([])
            except DeweyUnavailable as exc:
                self.on_failure(exc)
                # Others may have pushed beyond the bound meanwhile.
                self.on_counts(await self.buffer.hand_back())
            else:
                self.on_delivery()
                return

    async def _complete(self, batch: list[bytes]) -> list[bytes]:
        """Give entries that others pushed their id and time (GOD-001), and put aside what is no entry.

        The completed batch replaces the one in flight before anything is sent: sent again after a crash,
        it has the same ids.
        """
        completed: list[bytes] = []
        dead: list[DeadEntry] = []
        for raw in batch:
            try:
                completed.append(_completed(raw))
            except (codec.NotJSON, EntryRejected) as exc:
                dead.append(DeadEntry(raw, str(exc)))
        if completed != batch:
            self.on_counts(await self.buffer.settle(keep=completed, dead=dead))
        return completed

    async def _bury(self, batch: list[bytes], refused: BatchRefused) -> list[bytes]:
        """Put the entries at fault aside with their reasons; return the others."""
        reasons = dict(refused.faults)
        dead = [DeadEntry(raw, reasons[index]) for index, raw in enumerate(batch) if index in reasons]
        if not dead:
            raise DeweyUnavailable(f"Dewey refused a batch without naming one of its entries: {refused}")
        others = [raw for index, raw in enumerate(batch) if index not in reasons]
        self.on_counts(await self.buffer.settle(keep=others, dead=dead))
        return others


def _completed(raw: bytes) -> bytes:
    """Return an entry with an id and a time: as it is when it has both.

    :raises NotJSON: it is not JSON.
    :raises EntryRejected: it is no entry.
    """
    value = codec.loads(raw)
    if type(value) is dict and type(value.get("id")) is str and type(value.get("created_at")) is str:
        codec.check_bounds(raw, value)
        return raw
    return codec.encode_entry(admit_json(value, []), [])
