"""What a buffer holds in entries, for tests that are not about its bytes."""

from __future__ import annotations

from operator import attrgetter

from godot.buffer.protocol import Counts

ENTRIES = attrgetter("queued", "in_flight", "received", "stored", "dropped", "dead")


class Held(Counts):
    """`Counts` that equal all others with the same numbers of entries."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counts) and ENTRIES(self) == ENTRIES(other)
