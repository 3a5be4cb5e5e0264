"""Places that callers share."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from godot.service.shares import Shares


class Bench:
    """Callers who hold what they get until they are told."""

    def __init__(self, places: int, each: int) -> None:
        self.shares = Shares(places, each)
        self.got: list[str] = []

    async def hold(self, caller: str, seconds: float = 10.0) -> None:
        await self.shares.take(caller)
        self.got.append(caller)
        try:
            await trio.sleep(seconds)
        finally:
            self.shares.give_back(caller)


async def test_a_caller_with_many_calls_leaves_places_to_the_others(autojump_clock: MockClock) -> None:
    bench = Bench(places=4, each=2)
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(bench.hold, "slow")
        await trio.testing.wait_all_tasks_blocked()
        assert bench.got == ["slow"] * 2
        await bench.hold("quick", 0)
        assert trio.current_time() == 0
    assert trio.current_time() == 40
    assert bench.got.count("slow") == 8


async def test_a_place_goes_to_who_has_fewest_and_then_in_turn(autojump_clock: MockClock) -> None:
    bench = Bench(places=2, each=2)
    async with trio.open_nursery() as nursery:
        for caller in ["a"] * 6 + ["b"] * 4 + ["c"] * 2:
            nursery.start_soon(bench.hold, caller, 1)
            await trio.testing.wait_all_tasks_blocked()
    assert bench.got[:2] == ["a", "a"]
    assert sorted(bench.got[2:4]) == ["b", "c"], "each comes before the other has its second"
    assert bench.got.index("c") < 4
    assert sorted(bench.got) == ["a"] * 6 + ["b"] * 4 + ["c"] * 2
    assert trio.current_time() == 6


@pytest.mark.parametrize("others", [1, 3, 10])
async def test_who_comes_last_waits_for_one_turn_of_each_other_caller_at_most(
    others: int, autojump_clock: MockClock
) -> None:
    bench = Bench(places=1, each=1)
    async with trio.open_nursery() as nursery:
        for number in range(others):
            for _ in range(5):
                nursery.start_soon(bench.hold, f"other {number}", 1)
        await trio.testing.wait_all_tasks_blocked()
        await bench.hold("last", 0)
        assert trio.current_time() <= others
        nursery.cancel_scope.cancel()


async def test_who_goes_while_waiting_or_at_its_turn_has_taken_nothing(autojump_clock: MockClock) -> None:
    bench = Bench(places=1, each=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.hold, "first", 5)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await bench.hold("impatient")
        async with trio.open_nursery() as goes:
            goes.start_soon(bench.hold, "unlucky")
            await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(3.5)
            goes.cancel_scope.cancel()
            bench.shares.give_back("first")  # in the same instant its turn comes
        await bench.shares.take("first")
        nursery.start_soon(bench.hold, "next", 0)
    assert bench.got == ["first", "next"]
    assert trio.current_time() == 5
