"""Delivers what the buffer holds to Dewey, oldest first, and never gives a batch up (GOD-003, REL-002)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

import attrs
import trio

from godot.buffer.protocol import Counts, DeadEntry, Drops, Holes, Queue, Taken
from godot.entries.entry import MAX_BATCH, admit_json
from godot.entries.wire import encode_entry, is_ours
from godot.errors import BatchRefused, BufferUnavailable, DeweyFailed, DeweyUnavailable, EntryRejected, NotInFlight
from godot.json.text import NotJSON, loads_as_said
from godot.json.weight import weigh
from godot.mcp.heavy import off_the_loop
from godot.pipeline.dewey import Dewey
from godot.pipeline.guard import Guard
from godot.service.backoff import Jitter, delays, jittered

QUICK_RETRIES: Final = 3
QUICK_FIRST_S: Final = 0.1
"""The quick retries of a batch come after 0.1, 0.2 and 0.4 s."""

PROBE_FIRST_S: Final = 1.0
"""After them Dewey is probed after 1, 2, 4, 8, 16, 30, 30, … s."""

HOLE_COMPONENT: Final = "godot"
"""The component of the entries that Godot itself puts in: those that tell of drops."""

POLL_S: Final = 0.1
"""How often an idle sender asks for what others pushed (GOD-001); our own batcher wakes it at once."""

BUFFER_AGAIN_S: Final = 0.5
"""After so long a buffer that was unavailable is asked again: Redis is near."""

RECOVER_S: Final = 10.0
"""How often the sender looks for what a dead sender had in flight, and for drops that are to be told of."""

IDLE_PROBE_S: Final = 10.0
"""How often Dewey is probed while there is nothing to deliver: the status tells what would become of an entry."""


class Source(Queue, Holes, Protocol):
    """What a sender asks of a buffer."""


@attrs.frozen
class Sender:
    """The station between the buffer and Dewey.

    :param batch_size: entries a batch; up to `MAX_BATCH` while more than that are waiting.
    :param on_counts: gets what the buffer holds, after each change.
    :param on_failure: gets why Dewey or the buffer did not do what they were asked.
    :param on_delivery: is called when Dewey has stored a batch or answered a probe.
    """

    buffer: Source
    dewey: Dewey
    pushed: trio.MemoryReceiveChannel[None]
    batch_size: int
    on_counts: Callable[[Counts], None]
    on_failure: Callable[[BufferUnavailable | DeweyUnavailable], None]
    on_delivery: Callable[[], None]
    jitter: Jitter = jittered
    _guard: Guard = attrs.field(factory=Guard, init=False)

    async def run(self) -> None:
        """Deliver until the batcher has ended and the buffer is empty, then return.

        Cancelled in the middle of a batch, it leaves the batch in flight in the buffer; whoever starts
        next under the same name finds it there. So does this one itself, when the buffer was unavailable.
        """
        while True:
            try:
                await self._deliver_all()
                return
            except BufferUnavailable as exc:
                self.on_failure(exc)
            await trio.sleep(self.jitter(BUFFER_AGAIN_S))

    async def _deliver_all(self) -> None:
        limit = self.batch_size
        recover_at = probe_at = -math.inf
        while True:
            if trio.current_time() >= recover_at:
                self.on_counts(await self.buffer.hand_back())
                await self._tell_of_drops()
                recover_at = trio.current_time() + RECOVER_S
            taken = await self.buffer.take(limit)
            if taken.entries:
                with suppress(NotInFlight):  # it slept, and another has the batch now: nothing of it is its own
                    limit = await self._deliver(taken)
                probe_at = trio.current_time() + IDLE_PROBE_S
            elif not await self._woken():
                await self._tell_of_drops()
                return
            elif trio.current_time() >= probe_at:
                await self._probe_dewey()
                probe_at = trio.current_time() + IDLE_PROBE_S

    async def _probe_dewey(self) -> None:
        """Find out whether Dewey could store a batch, while there is none."""
        try:
            await self._store([])
        except DeweyUnavailable as exc:
            self.on_failure(exc)
        else:
            self.on_delivery()

    async def _woken(self) -> bool:
        """Wait until there may be something to take; False when the batcher has ended."""
        with trio.move_on_after(POLL_S):
            try:
                await self.pushed.receive()
            except trio.EndOfChannel:
                return False
        return True

    async def _deliver(self, taken: Taken) -> int:
        """See one batch through, or hand it back and wait for Dewey; return how many to take next."""
        # Others who pushed and took away as many were not noticed: so the form is looked at in any case.
        unchecked = taken.unchecked or not all(map(is_ours, taken.entries))
        batch = await self._complete(taken.entries) if unchecked else taken.entries
        pauses = delays(QUICK_FIRST_S, jitter=self.jitter)
        retries = 0 if self._guard.alert else QUICK_RETRIES
        while batch:
            try:
                faults = await self._store(batch)
            except DeweyUnavailable as exc:
                self.on_failure(exc)
                if retries:
                    retries -= 1
                    await trio.sleep(next(pauses))
                    continue
                if isinstance(exc, DeweyFailed) and self._guard.failed(batch):
                    reason = f"Dewey failed on it {self._guard.failures} times, and not on probes in between: {exc}"
                    batch = await self._bury(batch, {0: reason})
                    return self._guard.limit(self.batch_size)
                self.on_counts(await self.buffer.hand_back())
                await self._probe()
                return self._guard.limit(self.batch_size)
            if not faults:
                self.on_delivery()
                break
            batch = await self._bury(batch, faults)
        counts = await self.buffer.settle()
        self.on_counts(counts)
        self._guard.settled(len(taken.entries), len(batch))
        return self._guard.limit(MAX_BATCH if counts.queued > self.batch_size else self.batch_size)

    async def _store(self, batch: list[bytes]) -> Mapping[int, str]:
        """Have Dewey store a batch; return what is wrong with which of its entries, if so: then none is stored.

        :raises DeweyUnavailable: there was no answer, or none that says what to do.
        """
        try:
            await self.dewey.store(batch)
        except BatchRefused as refused:
            faults = {index: fault for index, fault in refused.faults if 0 <= index < len(batch)}
            if not faults:
                raise DeweyFailed(f"Dewey refused a batch without naming one of its entries: {refused}") from refused
            return faults
        return {}

    async def _probe(self) -> None:
        """Return when Dewey could store a batch. Nothing is in flight meanwhile, so the bound stays exact."""
        for pause in delays(PROBE_FIRST_S, jitter=self.jitter):
            await trio.sleep(pause)
            try:
                await self._store([])
            except DeweyUnavailable as exc:
                self.on_failure(exc)
                # Others may have pushed beyond the bound meanwhile.
                self.on_counts(await self.buffer.hand_back())
            else:
                self.on_delivery()
                return

    async def _complete(self, batch: list[bytes]) -> list[bytes]:
        """Give entries that others pushed their id and time (GOD-001), and put aside what is no entry.

        Called where others may have pushed some of them; it does not change what Godot itself has serialised.

        The completed batch replaces the one in flight before anything is sent: sent again after a crash,
        it has the same ids.
        """
        completed, dead = await off_the_loop(sum(map(weigh, batch)), _complete_all, batch)
        if completed != batch:
            self.on_counts(await self.buffer.settle(keep=completed, dead=dead))
        return completed

    async def _bury(self, batch: list[bytes], faults: Mapping[int, str]) -> list[bytes]:
        """Put the entries at fault aside with their reasons; return the others."""
        dead = [DeadEntry(raw, faults[index]) for index, raw in enumerate(batch) if index in faults]
        others = [raw for index, raw in enumerate(batch) if index not in faults]
        self.on_counts(await self.buffer.settle(keep=others, dead=dead))
        return others

    async def _tell_of_drops(self) -> None:
        """When a run of drops is over, have an entry stored that tells of it; if Dewey is away, another time."""
        hole = await self.buffer.hole(describe_drops)
        if hole is None:
            return
        try:
            faults = await self._store([hole])
        except DeweyUnavailable as exc:
            self.on_failure(exc)
            return
        self.on_delivery()
        self.on_counts(await self.buffer.hole_told(hole, faults.get(0)))


def describe_drops(drops: Drops) -> bytes:
    """Make the entry that tells readers of a hole, at the place where the hole is: behind the last that is missing."""
    data = {"dropped": drops.dropped, "from": drops.first, "to": drops.last, "components": drops.components}
    bounds = {"MAX_QUEUE_SIZE": drops.dropped - drops.for_bytes, "GODOT_MAX_QUEUE_BYTES": drops.for_bytes}
    full = " and ".join(name for name, number in bounds.items() if number)
    value: dict[str, Any] = {
        "component": HOLE_COMPONENT,
        "level": "WARN",
        "message": f"{drops.dropped:,} entries are missing: the queue was full ({full}), and the oldest went",
        "data": {**data, "others": drops.others, "for_bytes": drops.for_bytes},
    }
    try:
        entry = admit_json({**value, "created_at": drops.last}, [])
    except EntryRejected:  # whoever wrote that one wrote no time
        entry = admit_json(value, [])
    return encode_entry(entry, [])


def _complete_all(batch: list[bytes]) -> tuple[list[bytes], list[DeadEntry]]:
    completed: list[bytes] = []
    dead: list[DeadEntry] = []
    for raw in batch:
        try:
            completed.append(encode_entry(admit_json(loads_as_said(raw), []), []))
        except (NotJSON, EntryRejected) as exc:
            dead.append(DeadEntry(raw, str(exc)))
    return completed, dead
