"""What the pipeline knows of itself, and the lines in which it tells an operator (MAINT-001).

A line is logfmt (or JSON) on stdout: one a minute, and one at every change of state. Godot never logs through
its own `logger_log` (MAINT-002).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import attrs
import trio

from godot.buffer.protocol import QUEUE_MAX_BYTES, Counts, Queue, has_room_again
from godot.errors import BufferUnavailable, DeweyUnavailable, Unavailable
from godot.service.lines import REPEAT_S, PeerLog, status_line

UNKNOWN: Final = "unknown"
"""The state of what has not been checked yet."""

_ASKED: Final = "asked"
"""Stands for Redis being asked for the state. That is no station, and never the only one that Redis fails."""


@attrs.frozen
class Since:
    """When something went wrong, and what had been lost by then.

    :param began: on trio's clock.
    """

    began: float
    refused: int
    unconfirmed: int
    dropped: int


class Status:
    """The state of the pipeline, as its stations report it.

    :param write: gets each line.
    :param max_size: the bound of the queue in entries.
    :param max_bytes: the bound of the queue in bytes.
    """

    def __init__(
        self, write: Callable[[str], None], buffer: Queue, *, max_size: int, max_bytes: int = QUEUE_MAX_BYTES
    ) -> None:
        self._write = write
        self._buffer = buffer
        self._max_size, self._max_bytes = max_size, max_bytes
        self.counts = Counts()
        """As last answered; `received` and the fields after it are totals over all runs."""
        self.refused = 0
        """Entries that were not accepted because the channel was full, in this run."""
        self.unconfirmed = 0
        """Accepted entries, in this run, whose callers asked for `durable` and were told that Redis did not have them
        in time. They may still get there, and count as `received` then."""
        self.filtered = 0
        """Entries that were below the level of their component, in this run. They are not `received`."""
        self.followers = 0
        """Calls of `logger_tail` that are under way."""
        self.refused_peers = 0
        """Connections and calls that were refused because of who made them, in this run."""
        self._redis_down: Since | None = None
        self._failing: set[str] = set()
        """The stations that Redis fails: one that is full answers questions, and takes nothing."""
        self._dewey_down: Since | None = None
        self._dewey_asked = False
        self._unmaintained: Since | None = None
        self._dropping: Since | None = None
        self.weakness: str | None = None
        """Why what Redis acknowledges may be lost, as last seen; None: it is durable, or was not checked yet."""
        self._weak: Since | None = None
        self._checked = False
        self._forgotten_said = -REPEAT_S
        self._peers = PeerLog(write)
        self._heard = False
        self._began = self._began_before = 0
        """When counting began (`Counts.began`); and when it had begun before, if the counts were lost since."""
        self._dropped = 0
        """Entries that were dropped in this run, as far as known."""

    @property
    def redis_up(self) -> bool:
        """Whether Redis does what it is asked."""
        return self._redis_down is None

    @property
    def durable(self) -> bool | None:
        """Whether what Redis acknowledges was found to be on disk, and to stay; None: it was not checked yet."""
        return self.weakness is None if self._checked else None

    @property
    def dewey_up(self) -> bool | None:
        """Whether Dewey stores; None: not asked yet. Questions that fail, or take long, do not count."""
        return self._dewey_down is None if self._dewey_asked else None

    def line(self, event: str, **fields: Any) -> None:
        """Write a line: the event, its fields, and the state as last known."""
        self.write(event, **fields, **self._state(self.counts))

    def write(self, event: str, **fields: Any) -> None:
        """Write a line of just these fields; None: not known yet."""
        self._write(status_line(event, **{name: UNKNOWN if value is None else value for name, value in fields.items()}))

    async def ask_first(self) -> None:
        """Find out how Redis is and what it holds, before anything is said of it."""
        try:
            self.counted(await self._buffer.counts(), _ASKED)
            self.checked(await self._buffer.weakness())
        except BufferUnavailable as exc:
            self.failed(exc, _ASKED)

    async def snapshot(self) -> dict[str, Any]:
        """Return the state as it is now: what `logger_status` answers."""
        try:
            counts = await self._buffer.counts()
        except BufferUnavailable as exc:
            self.failed(exc, _ASKED)
            counts = self.counts
        else:
            self._redis_answered(_ASKED)
        return self._state(counts) | ({} if self.weakness is None else {"not_durable": self.weakness})

    def _state(self, counts: Counts) -> dict[str, Any]:
        return {
            **attrs.asdict(counts, filter=lambda field, _: field.name not in ("began", "weakness")),
            "refused": self.refused,
            "unconfirmed": self.unconfirmed,
            "filtered": self.filtered,
            "refused_peers": self.refused_peers,
            "redis": "up" if self.redis_up else "down",
            "durable": self.durable,
            "dewey": {True: "up", False: "down", None: UNKNOWN}[self.dewey_up],
        }

    def peer(self, event: str, address: str, reason: str) -> None:
        """Take note of what happened with a peer: `refused`, or a `bug` of ours."""
        self.refused_peers += event == "refused"
        self._peers.note(event, address, reason)

    def counted(self, counts: Counts, by: str = "") -> None:
        """Take note of what the buffer holds: Redis has done what a station asked of it.

        :param by: the station, where there are several.
        """
        full = self._since()
        # The totals hold over restarts: what the first answer shows was dropped before, and told then.
        before = self.counts if self._heard else counts
        if self._began and counts.began != self._began:
            if counts.began in (0, self._began_before):  # nothing is counted yet, or answers came out of order
                self._redis_answered(by)
                return
            self.line("counts_lost", reason="the totals in Redis were evicted, or deleted by somebody; they begin anew")
            self._began_before = self._began
            before = Counts()
        self._began = counts.began
        dropped = counts.dropped - before.dropped
        self._dropped += dropped
        self._heard = True
        self.counts = counts
        self._redis_answered(by)
        if dropped > 0 and self._dropping is None:
            self._dropping = full
            self.line("dropping", reason=self._why_dropped(before, counts))
        elif self._dropping is not None and has_room_again(
            counts.queued, counts.queued_bytes, self._max_size, self._max_bytes
        ):
            since, self._dropping = self._dropping, None
            self._over("dropping_ended", since)
        if counts.dead_forgotten > before.dead_forgotten and trio.current_time() >= self._forgotten_said + REPEAT_S:
            self._forgotten_said = trio.current_time()
            self.line("dead_forgotten", reason="too many entries could not be stored; the oldest are not kept any more")

    def _why_dropped(self, before: Counts, now: Counts) -> str:
        if now.vanished > before.vanished:
            return "entries are gone from the queue in Redis: evicted, or taken by somebody else"
        if now.dropped_for_bytes > before.dropped_for_bytes:
            return f"the queue is full ({self._max_bytes} bytes, GODOT_MAX_QUEUE_BYTES); the oldest entries go"
        return f"the queue is full ({self._max_size} entries, MAX_QUEUE_SIZE); the oldest entries go"

    def pushed(self, counts: Counts, by: str) -> None:
        """Take note of what a push answered, its durability included."""
        self.counted(counts, by)
        self.checked(counts.weakness)

    def checked(self, weakness: str | None) -> None:
        """Take note of whether what Redis acknowledges is durable.

        :param weakness: why it may be lost; None: it is durable.
        """
        self._checked = True
        if weakness == self.weakness:
            return
        self.weakness = weakness
        if weakness is not None:
            self._weak = self._weak or self._since()
            self.line("redis_not_durable", reason=weakness)
        elif self._weak is not None:
            since, self._weak = self._weak, None
            self._over("redis_durable", since)

    def _redis_answered(self, by: str) -> None:
        self._failing -= {by, _ASKED}  # a station tries again by itself; who asks for the state may not
        if self._redis_down is not None and not self._failing:
            since, self._redis_down = self._redis_down, None
            self._over("redis_back", since)

    def delivered(self) -> None:
        """Take note that Dewey has stored something, or said that it could."""
        self._dewey_asked = True
        if self._dewey_down is not None:
            since, self._dewey_down = self._dewey_down, None
            self._over("dewey_back", since)

    def failed(self, exc: Unavailable, by: str = "") -> None:
        """Take note that Redis or Dewey has not done what a station asked.

        :param by: the station, where there are several.
        """
        if isinstance(exc, BufferUnavailable):
            self._failing.add(by)
            if self._redis_down is None:
                self._redis_down = self._since()
                self.line("redis_down", reason=exc)
            return
        self._dewey_asked = True
        if self._dewey_down is None:
            self._dewey_down = self._since()
            self.line("dewey_down", reason=exc)

    def maintained(self) -> None:
        """Take note that maintenance was done."""
        if self._unmaintained is not None:
            since, self._unmaintained = self._unmaintained, None
            self._over("maintenance_back", since)

    def not_maintained(self, exc: DeweyUnavailable) -> None:
        """Take note that maintenance was not done. That does not make Dewey down: only storing tells."""
        if self._unmaintained is None:
            self._unmaintained = self._since()
            self.line("maintenance_failed", reason=exc)

    def _since(self) -> Since:
        return Since(trio.current_time(), self.refused, self.unconfirmed, self._dropped)

    def _over(self, event: str, since: Since) -> None:
        """Write that something is over, how long it lasted and what it cost; the line has the totals, too."""
        self.line(
            event,
            lasted=f"{trio.current_time() - since.began:.1f}s",
            refused_meanwhile=self.refused - since.refused,
            unconfirmed_meanwhile=self.unconfirmed - since.unconfirmed,
            dropped_meanwhile=self._dropped - since.dropped,
        )


async def run_status_line(status: Status, interval_s: float) -> None:
    """Write the status line at every interval. Runs until cancelled."""
    while True:
        await trio.sleep(interval_s)
        status.write("status", **await status.snapshot())


async def run_durability_check(status: Status, buffer: Queue, interval_s: float) -> None:
    """Check at every interval whether what Redis acknowledges is durable: a setting may change. Runs until cancelled.

    The stations notice a Redis that is away.
    """
    while True:
        with suppress(BufferUnavailable):
            status.checked(await buffer.weakness())
        await trio.sleep(interval_s)


async def readiness(status: Status) -> tuple[int, dict[str, Any]]:
    """Tell for /readyz whether entries are taken in.

    Without Redis they are refused: `down`, 503. While Dewey is away they are kept, and a client that stopped sending
    would lose them: `degraded`, 200; the same while Redis may lose them. Before both were checked: `starting`.
    """
    state = await status.snapshot()
    if not status.redis_up:
        return 503, {"status": "down", **state}
    known = (status.dewey_up, status.durable)
    return 200, {"status": "degraded" if False in known else "starting" if None in known else "ready", **state}
