"""Bounds the bytes that connections hold, each of them and all together: pools, and claims on them.

Each connection may always hold `OWN_BYTES`, so a small call never waits for the large calls of others. More than that
is claimed from a pool that all connections share. Claims without room wait in their order. A message is claimed as a
whole, before it is read: connections that each hold half a message would wait for each other for ever.
"""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Final

import attrs
import trio

OWN_BYTES: Final = 64 * 1024
"""Bytes that each connection may hold without the pool, in each direction. Most calls are far smaller."""

HASTE_S: Final = 5.0
"""How long a peer may go on holding bytes of a pool once another one waits for room."""

SHARES: Final = 8
"""One connection may hold one of so many parts of a pool, but always one message of the largest size."""

MAX_BYTES: Final = 128 * 1024 * 1024


@attrs.define(eq=False)
class _Waiting:
    size: int
    granted: trio.Event = attrs.Factory(trio.Event)


class Pool:
    """Bytes that all connections share.

    A claim larger than the pool is granted when it is the only one.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        """Claimed now, the connections' own bytes included."""
        self._pooled = 0
        self._waiting: deque[_Waiting] = deque()
        self._patient: set[trio.CancelScope] = set()

    def is_crowded_by(self, size: int) -> bool:
        """Whether too many bytes wait for room for another claim to join them."""
        return bool(self._waiting) and sum(each.size for each in self._waiting) + size > self.max_bytes

    def claim_nowait(self, size: int) -> bool:
        """Claim bytes if there is room and no other claim waits for it."""
        if self._waiting or not self._fits(size):
            return False
        self._pooled += size
        return True

    async def claim(self, size: int) -> None:
        """Claim bytes; wait behind all claims that wait already."""
        if self.claim_nowait(size):
            return
        waiting = _Waiting(size)
        self._waiting.append(waiting)
        self._hurry()
        try:
            await waiting.granted.wait()
        except BaseException:
            if waiting.granted.is_set():  # it was granted although it is cancelled
                self.release(size)
            else:
                self._waiting.remove(waiting)
                self._grant()  # a smaller claim may have waited behind it
            raise

    def release(self, size: int) -> None:
        """Give bytes back."""
        self._pooled -= size
        self._grant()

    def patience(self, deadline: float) -> Patience:
        """Bound the time of a peer that holds bytes: until `deadline`, or for `HASTE_S` once others wait for room."""
        return Patience(self, trio.CancelScope(deadline=deadline))

    def _fits(self, size: int) -> bool:
        return not self._pooled or self._pooled + size <= self.max_bytes

    def _grant(self) -> None:
        while self._waiting and self._fits(self._waiting[0].size):
            granted = self._waiting.popleft()
            self._pooled += granted.size
            granted.granted.set()

    def _hurry(self) -> None:
        latest = trio.current_time() + HASTE_S
        for scope in self._patient:
            scope.deadline = min(scope.deadline, latest)


@attrs.define(eq=False)
class Patience:
    """A cancel scope that a pool may hurry. A class and not a generator: every frame and every answer has one."""

    pool: Pool
    scope: trio.CancelScope

    def __enter__(self) -> trio.CancelScope:
        self.scope.__enter__()
        self.pool._patient.add(self.scope)
        if self.pool._waiting:
            self.pool._hurry()
        return self.scope

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self.pool._patient.discard(self.scope)
        return self.scope.__exit__(kind, exc, traceback)


@attrs.define(eq=False)
class Claim:
    """Bytes that an account holds for one message, until its last user has released them."""

    account: Account
    size: int
    is_pooled: bool
    users: int = 1

    def keep(self) -> None:
        """Hold it for one more user."""
        self.users += 1

    def release(self) -> None:
        """Note that one user is done with it."""
        self.users -= 1
        if not self.users:
            self.shrink(0)

    def shrink(self, size: int) -> None:
        """Give back the bytes beyond `size`."""
        surplus, self.size = self.size - size, size
        if surplus:
            self.account.give_back(surplus, is_pooled=self.is_pooled)


class Account:
    """The bytes that one connection holds, in one direction.

    :param pool: gives whatever exceeds `OWN_BYTES`.
    :param largest: size of the largest message; the connection's share of the pool is never smaller.
    """

    def __init__(self, pool: Pool, largest: int) -> None:
        self.pool = pool
        self._share = max(largest, pool.max_bytes // SHARES)
        self._own = 0
        self._pooled = 0
        self._fell = trio.lowlevel.ParkingLot()

    def claim_nowait(self, size: int) -> Claim | None:
        """Claim bytes, if there is room."""
        if self._own + size <= OWN_BYTES:
            self._own += size
            is_pooled = False
        elif self._is_within_share(size) and self.pool.claim_nowait(size):
            self._pooled += size
            is_pooled = True
        else:
            return None
        self.pool.bytes += size
        return Claim(self, size, is_pooled)

    async def claim(self, size: int) -> Claim:
        """Claim bytes; wait for room."""
        if size > OWN_BYTES:
            while not self._is_within_share(size):
                await self._fell.park()
            await self.pool.claim(size)
            self._pooled += size
            self.pool.bytes += size
            return Claim(self, size, is_pooled=True)
        # A small claim does not queue in the pool: the connection's own claims soon make room for it.
        while (claim := self.claim_nowait(size)) is None:
            await self._fell.park()
        return claim

    def give_back(self, size: int, *, is_pooled: bool) -> None:
        """Take bytes back from a claim."""
        self.pool.bytes -= size
        if is_pooled:
            self._pooled -= size
            self.pool.release(size)
        else:
            self._own -= size
        if self._fell:
            self._fell.unpark_all()

    def _is_within_share(self, size: int) -> bool:
        return not self._pooled or self._pooled + size <= self._share
