"""Finds the entry on which Dewey fails without naming it, and sees to it that no other is taken for it.

Dewey names the entries that it refuses. But one may make it crash, or keep it busy until nobody waits any more;
then it answers a probe and fails on the batch, again and again. So fewer are taken: half of those that have such an
entry among them, until it is alone, or all are stored and there was none.
"""

from __future__ import annotations

from typing import Final

import attrs

ALONE_FAILURES: Final = 5
"""How often Dewey has to fail on one entry alone, and to answer a probe in between, until that is put aside."""


@attrs.define
class Guard:
    """What the sender has to know of the failures of the past.

    It is told of batches on which Dewey failed itself (`DeweyFailed`). What is known to be the world's fault, such as
    a full disk under PostgreSQL, suspects no entry.
    """

    _suspects: int = 0
    """Among so many of the oldest entries is one on which Dewey fails, or so it seems."""
    _narrowing: bool = False
    """After one failure Dewey was probably down; after two with a good probe between, it probably was not."""
    _alone: bytes = b""
    _failures: int = 0
    """How often it has failed on the entry `_alone`."""
    _condemned: int = 0
    """How many were put aside since something was stored."""

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

        Each one that is put aside without anything stored in between takes twice as many failures: should Dewey
        fail on whatever it is given, a dozen entries are put aside in a day, and not the whole queue.
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
