"""Finds the entry on which Dewey fails without naming it, and blames no other.

Dewey names the entries that it refuses. But an entry may also make it crash, or keep it busy until its caller gives
up: then it answers a probe and fails on the batch, again and again. So the sender takes fewer entries: half of the
suspects each time, until the one at fault is alone, or until all are stored and there was none.
"""

from __future__ import annotations

from typing import Final

import attrs

ALONE_FAILURES: Final = 5
"""How often Dewey has to fail on one entry alone, and to answer a probe in between, until the entry is put aside."""


@attrs.define
class Guard:
    """What the sender remembers of failures.

    Only failures of Dewey itself count (`DeweyFailed`). One that is known to be the world's fault, such as a full disk
    under PostgreSQL, makes no entry suspect.
    """

    _suspects: int = 0
    """How many of the oldest entries may hold the one on which Dewey fails."""
    _narrowing: bool = False
    """Whether suspects are halved. After one failure Dewey was probably down; after two with a good probe in between,
    it probably was not."""
    _alone: bytes = b""
    _failures: int = 0
    """How often it has failed on the entry `_alone`."""
    _condemned: int = 0
    """How many were put aside since an entry was last stored."""

    @property
    def alert(self) -> bool:
        """Whether one failure says enough: a batch is not retried before the next probe."""
        return self._suspects > 0

    def limit(self, usual: int) -> int:
        """Return how many entries to take next."""
        if self._narrowing:
            return max(1, self._suspects // 2)
        return usual

    def settled(self, taken: int, stored: int) -> None:
        """Note that a batch is done.

        :param taken: entries that it had.
        :param stored: how many of them were stored; the others were refused.
        """
        if stored:
            self._condemned = 0
        self._suspects = max(0, self._suspects - taken) if self._narrowing else 0
        self._narrowing = self._suspects > 0

    def failed(self, batch: list[bytes]) -> bool:
        """Note that Dewey failed on a batch, and return whether its only entry is to be put aside.

        As long as nothing is stored, each further entry takes twice as many failures. So a Dewey that fails on
        everything costs a dozen entries a day, and not the whole queue.
        """
        self._narrowing = self.alert
        self._suspects = len(batch)
        if len(batch) > 1:
            return False
        if self._alone != batch[0]:
            self._alone, self._failures = batch[0], 0
        self._failures += 1
        if self._failures < ALONE_FAILURES * 2**self._condemned:
            return False
        self._condemned += 1
        self._suspects, self._narrowing, self._alone = 0, False, b""
        return True

    @property
    def failures(self) -> int:
        """How often Dewey failed on the entry that was put aside."""
        return self._failures
