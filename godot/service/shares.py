"""Places that callers share, and no caller may hold all of them."""

from __future__ import annotations

from collections import Counter, deque
from itertools import count

import trio


class Shares:
    """Places for calls. A call without one waits behind its caller's earlier calls, but not behind all of another's.

    A free place goes to the caller that has the fewest places, and among these to the one whose last turn is longest
    ago. How many calls wait is not bounded here; the code that accepts calls has to bound it.

    :param places: how many there are.
    :param each: how many one caller may have.
    """

    def __init__(self, places: int, each: int) -> None:
        self._free = places
        self._each = each
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[trio.Event]] = {}
        self._turns = count(1)
        self._last_turn: dict[str, int] = {}
        """Of callers that hold a place or wait for one."""

    async def take(self, caller: str) -> None:
        """Wait for a place. If this is cancelled, none is taken."""
        if self._free and self._held[caller] < self._each:  # then no caller waits that could have it
            await trio.lowlevel.checkpoint_if_cancelled()
            self._hand_to(caller)
            return
        turn = trio.Event()
        self._waiting.setdefault(caller, deque()).append(turn)
        try:
            await turn.wait()
        except trio.Cancelled:
            if turn.is_set():
                self.give_back(caller)
            else:
                self._forget(caller, turn)
            raise

    def give_back(self, caller: str) -> None:
        """Give the place to another call, if one waits."""
        self._free += 1
        self._held[caller] -= 1
        self._tidy(caller)
        while self._free:
            able = [each for each in self._waiting if self._held[each] < self._each]
            if not able:
                return
            following = min(able, key=lambda each: (self._held[each], self._last_turn.get(each, 0)))
            turn = self._waiting[following][0]
            self._hand_to(following)
            self._forget(following, turn)
            turn.set()

    def _hand_to(self, caller: str) -> None:
        self._free -= 1
        self._held[caller] += 1
        self._last_turn[caller] = next(self._turns)

    def _forget(self, caller: str, turn: trio.Event) -> None:
        self._waiting[caller].remove(turn)
        self._tidy(caller)

    def _tidy(self, caller: str) -> None:
        """Forget a caller that neither has a place nor waits for one."""
        if not self._waiting.get(caller):
            self._waiting.pop(caller, None)
            if not self._held[caller]:
                del self._held[caller]
                self._last_turn.pop(caller, None)
