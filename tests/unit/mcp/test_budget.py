"""Bytes that connections share: in order, without waiting for each other for ever, never at the cost of small calls."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from godot.mcp.budget import HASTE_S, OWN_BYTES, SHARES, Account, Claim, Pool

MB = 1024 * 1024
POOL = 64 * MB
LARGEST = 16 * MB


def account(pool: Pool) -> Account:
    return Account(pool, LARGEST)


class Waiter:
    """A claim that is made in a task."""

    def __init__(self, nursery: trio.Nursery, account: Account, size: int) -> None:
        self._claimed: list[Claim] = []
        self.scope = trio.CancelScope()
        nursery.start_soon(self._claim, account, size)

    async def _claim(self, account: Account, size: int) -> None:
        with self.scope:
            self._claimed.append(await account.claim(size))

    def claim(self) -> Claim | None:
        """Return what was claimed, if it was."""
        return self._claimed[0] if self._claimed else None


async def test_a_message_larger_than_the_pool_passes_when_it_is_alone() -> None:
    pool = Pool(MB)
    claim = await account(pool).claim(LARGEST)
    assert pool.bytes == LARGEST
    claim.release()
    assert pool.bytes == 0


async def test_who_waits_is_served_in_order_and_a_smaller_one_does_not_overtake() -> None:
    pool = Pool(POOL)
    held = [await account(pool).claim(LARGEST) for _ in range(4)]
    async with trio.open_nursery() as nursery:
        large = Waiter(nursery, account(pool), LARGEST)
        await trio.testing.wait_all_tasks_blocked()
        smaller = Waiter(nursery, account(pool), MB)
        await trio.testing.wait_all_tasks_blocked()
        assert large.claim() is None
        assert smaller.claim() is None
        held[0].release()
        await trio.testing.wait_all_tasks_blocked()
        assert large.claim() is not None
        assert smaller.claim() is None
        held[1].release()


async def test_a_small_call_of_another_connection_passes_however_full_the_pool_is() -> None:
    pool = Pool(POOL)
    for _ in range(4):
        await account(pool).claim(LARGEST)
    async with trio.open_nursery() as nursery:
        Waiter(nursery, account(pool), LARGEST)
        waiting = Waiter(nursery, account(pool), LARGEST)
        await trio.testing.wait_all_tasks_blocked()
        assert account(pool).claim_nowait(OWN_BYTES) is not None
        assert waiting.claim() is None
        nursery.cancel_scope.cancel()


async def test_small_calls_of_a_busy_connection_go_on_as_its_own_are_answered() -> None:
    pool, busy = Pool(POOL), None
    for _ in range(4):
        await account(pool).claim(LARGEST)
    busy = account(pool)
    own = await busy.claim(OWN_BYTES)
    async with trio.open_nursery() as nursery:
        Waiter(nursery, account(pool), LARGEST)
        small = Waiter(nursery, busy, 300)
        await trio.testing.wait_all_tasks_blocked()
        assert small.claim() is None
        own.release()
        await trio.testing.wait_all_tasks_blocked()
        assert small.claim() is not None
        nursery.cancel_scope.cancel()


async def test_one_connection_takes_no_more_than_its_share() -> None:
    pool = Pool(SHARES * LARGEST)
    greedy = account(pool)
    first = await greedy.claim(LARGEST)
    async with trio.open_nursery() as nursery:
        second = Waiter(nursery, greedy, LARGEST)
        await trio.testing.wait_all_tasks_blocked()
        assert second.claim() is None
        (await account(pool).claim(LARGEST)).release()  # there is room, for others
        first.release()


async def test_who_gives_up_keeps_nobody_waiting() -> None:
    pool = Pool(POOL)
    held = [await account(pool).claim(LARGEST) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        large = Waiter(nursery, account(pool), POOL)
        await trio.testing.wait_all_tasks_blocked()
        smaller = Waiter(nursery, account(pool), LARGEST)
        await trio.testing.wait_all_tasks_blocked()
        large.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        claimed = smaller.claim()
        assert claimed is not None
        for claim in (*held, claimed):
            claim.release()
    assert pool.bytes == 0
    assert (await account(pool).claim(LARGEST)).size == LARGEST


async def test_a_claim_is_given_back_when_its_last_user_is_done() -> None:
    pool = Pool(POOL)
    claim = await account(pool).claim(LARGEST)
    claim.keep()
    claim.shrink(MB)
    claim.release()
    assert pool.bytes == MB
    claim.release()
    assert pool.bytes == 0


@pytest.mark.parametrize("waits_before", [True, False])
async def test_a_peer_has_less_time_while_others_wait_for_what_it_holds(
    autojump_clock: trio.testing.MockClock, waits_before: bool
) -> None:
    pool = Pool(POOL)
    for _ in range(4):
        await account(pool).claim(LARGEST)

    async def wait_for_the_peer(done: Callable[[float], None]) -> None:
        with pool.patience(trio.current_time() + 30):
            await trio.Event().wait()
        done(trio.current_time())

    times: list[float] = []
    async with trio.open_nursery() as nursery:
        if waits_before:
            Waiter(nursery, account(pool), LARGEST)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait_for_the_peer, times.append)
        await trio.testing.wait_all_tasks_blocked()
        if not waits_before:
            await trio.sleep(10)
            Waiter(nursery, account(pool), LARGEST)
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    assert times == [HASTE_S if waits_before else 10 + HASTE_S]


async def test_room_that_is_granted_to_one_who_has_just_given_up_goes_to_the_next() -> None:
    """A query that was cancelled in that instant was reported as a bug, and its bytes were never given back."""
    pool = Pool(POOL)
    held = [await account(pool).claim(LARGEST) for _ in range(4)]
    async with trio.open_nursery() as nursery:
        first = Waiter(nursery, account(pool), LARGEST)
        await trio.testing.wait_all_tasks_blocked()
        second = Waiter(nursery, account(pool), LARGEST)
        await trio.testing.wait_all_tasks_blocked()
        first.scope.cancel()
        held[0].release()
        await trio.testing.wait_all_tasks_blocked()
        assert first.claim() is None
        assert second.claim() is not None
    assert pool.bytes == 4 * LARGEST
