"""The batcher, to the exact instant of trio's virtual clock."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from godot.buffer.protocol import Counts
from godot.errors import BufferUnavailable
from godot.pipeline.batcher import BATCH_MAX_BYTES, Batcher
from godot.pipeline.channel import Inlet, Receipt, open_entry_channel
from tests.fakes import FakeBuffer, Held


class Bench:
    """A batcher between an inlet and a buffer, and what it reports."""

    def __init__(self, *, batch_size: int = 100) -> None:
        self.buffer = FakeBuffer()
        self.inlet: Inlet
        self.inlet, outlet = open_entry_channel()
        wake, self.woken = trio.open_memory_channel[None](1)
        self.counts: list[Counts] = []
        self.failures: list[tuple[float, str]] = []
        self.batcher = Batcher(
            outlet,
            self.buffer,
            wake,
            batch_size=batch_size,
            batch_timeout_s=0.1,
            on_counts=self.counts.append,
            on_failure=lambda exc: self.failures.append((trio.current_time(), str(exc))),
            jitter=lambda delay: delay,
        )

    async def accept(self, count: int, first: int = 0) -> list[bytes]:
        entries = numbered(count, first)
        for raw in entries:
            await self.inlet.accept(raw)
        return entries


def numbered(count: int, first: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


async def test_one_entry_is_flushed_after_100_ms(autojump_clock: trio.testing.MockClock) -> None:
    """GOD-002."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.batcher.run)
        await bench.accept(1)
        await trio.sleep(5)
        assert bench.buffer.pushed == [(0.1, [b"0"])]
        nursery.cancel_scope.cancel()


async def test_a_hundred_entries_are_flushed_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """GOD-002."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.batcher.run)
        entries = await bench.accept(100)
        await trio.sleep(5)
        assert bench.buffer.pushed == [(0, entries)]
        nursery.cancel_scope.cancel()


async def test_the_hundredth_entry_ends_the_wait(autojump_clock: trio.testing.MockClock) -> None:
    """GOD-002: whichever comes first."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.batcher.run)
        await bench.accept(99)
        await trio.sleep(0.0625)
        await bench.accept(1, first=99)
        await trio.sleep(5)
        assert bench.buffer.sizes == [(0.0625, 100)]
        nursery.cancel_scope.cancel()


async def test_a_burst_of_250_is_flushed_as_100_and_100_at_once_and_50_after_100_ms(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """GOD-002."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.batcher.run)
        entries = await bench.accept(250)
        await trio.sleep(5)
        assert bench.buffer.pushed == [(0, entries[:100]), (0, entries[100:200]), (0.1, entries[200:])]
        nursery.cancel_scope.cancel()


async def test_the_window_begins_with_the_first_entry_and_later_ones_do_not_move_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """GOD-002: after the FIRST entry of the batch."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.batcher.run)
        await trio.sleep(3)
        for number in range(3):
            await bench.accept(1, first=number)
            await trio.sleep(0.03125)
        await trio.sleep(5)
        assert bench.buffer.sizes == [(3.1, 3)]
        nursery.cancel_scope.cancel()


async def test_an_entry_that_comes_with_the_end_of_the_window_begins_the_next_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.batcher.run)
        await bench.accept(1)
        await trio.sleep(0.1)
        await trio.testing.wait_all_tasks_blocked()
        await bench.accept(1, first=1)
        await trio.sleep(5)
        assert bench.buffer.pushed == [(0.1, [b"0"]), (pytest.approx(0.2), [b"1"])]
        nursery.cancel_scope.cancel()


async def test_an_entry_that_waited_through_a_slow_push_is_flushed_100_ms_after_it_arrived(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """GOD-002: the time that it waited in the channel counts."""
    bench = Bench()
    bench.buffer.takes_s = 0.75
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.batcher.run)
        await bench.accept(100)  # is being pushed until 0.75
        await trio.sleep(0.0625)
        await bench.accept(2, first=100)  # their window ends in the middle of that push
        await trio.sleep(0.65625)
        await bench.accept(3, first=102)  # their own window would end at 0.81875
        await trio.sleep(5)
        # At 0.75 the window of the oldest is over: all that waits goes at once, full or not.
        assert bench.buffer.asked_at == [0, 0.75]
        assert bench.buffer.sizes == [(0.75, 100), (1.5, 5)]
        nursery.cancel_scope.cancel()


async def test_an_entry_that_waited_for_a_part_of_its_window_waits_for_the_rest_only(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """GOD-002."""
    bench = Bench()
    bench.buffer.takes_s = 0.0625
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.batcher.run)
        await bench.accept(101)
        await trio.sleep(5)
        assert bench.buffer.asked_at == [0, 0.1]  # and not 0.1625
        nursery.cancel_scope.cancel()


async def test_when_the_producers_close_the_rest_is_flushed_at_once_and_the_batcher_returns(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-005: a stop flushes the channel without waiting for any window."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.batcher.run)
        await trio.sleep(1)
        async with bench.inlet:
            entries = await bench.accept(150)
    assert trio.current_time() == 1
    assert bench.buffer.pushed == [(1, entries[:100]), (1, entries[100:])]


async def test_without_any_entry_nothing_is_pushed_and_the_end_is_passed_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    async with bench.inlet:
        pass
    await bench.batcher.run()
    assert bench.buffer.asked_at == []
    with pytest.raises(trio.EndOfChannel):
        await bench.woken.receive()


async def test_each_push_wakes_the_sender_and_a_sender_that_sleeps_delays_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.batcher.run)
        async with bench.inlet:
            await bench.accept(500)
    assert trio.current_time() == 0
    assert len(bench.buffer.pushed) == 5
    await bench.woken.receive()  # many pushes, one wake-up
    with pytest.raises(trio.EndOfChannel):
        await bench.woken.receive()


async def test_what_the_buffer_holds_is_reported_after_each_push(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.batcher.run)
        async with bench.inlet:
            await bench.accept(130)
    assert bench.counts == [Held(queued=100, received=100), Held(queued=130, received=130)]


async def test_a_buffer_that_is_away_is_asked_again_ever_later_up_to_two_seconds_and_nothing_is_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-004: Redis can fail at any instant."""
    bench = Bench(batch_size=10)
    bench.buffer.away_until = 8.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.batcher.run)
        async with bench.inlet:
            entries = await bench.accept(25)
    tries = [0, 0.1, 0.3, 0.7, 1.5, 3.1, 5.1, 7.1, 9.1]
    assert bench.buffer.asked_at == pytest.approx([*tries, 9.1, 9.1])
    assert [when for when, _ in bench.failures] == pytest.approx(tries[:-1])
    assert {why for _, why in bench.failures} == {"Redis: away"}
    assert list(bench.buffer.queue) == entries
    assert [len(batch) for _, batch in bench.buffer.pushed] == [10, 10, 5]


async def test_the_next_failure_is_retried_as_quickly_as_the_first(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench(batch_size=1)
    bench.buffer.away_until = 0.5
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.batcher.run)
        await bench.accept(1)
        await trio.sleep(10)
        bench.buffer.away_until = 10.25
        await bench.accept(1, first=1)
        await trio.sleep(10)
        assert bench.buffer.asked_at == pytest.approx([0, 0.1, 0.3, 0.7, 10, 10.1, 10.3])
        nursery.cancel_scope.cancel()


async def test_entries_that_come_while_the_buffer_is_away_follow_in_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    bench.buffer.away_until = 2.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.batcher.run)
        async with bench.inlet:
            for number in range(300):
                await bench.accept(1, first=number)
                await trio.sleep(0.0078125)
    assert list(bench.buffer.queue) == numbered(300)


async def test_a_batch_is_full_with_the_entry_that_passes_its_bound_in_bytes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    third = bytes(BATCH_MAX_BYTES // 3 + 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.batcher.run)
        for _ in range(4):
            await bench.inlet.accept(third)
        await trio.sleep(5)
        assert bench.buffer.sizes == [(0, 3), (0.1, 1)]
        nursery.cancel_scope.cancel()


async def test_unwritten_counts_what_waits_and_what_is_in_hand_until_it_is_written(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-005: it is what the last status line calls lost."""
    bench = Bench(batch_size=10)
    bench.buffer.away_until = 1.0
    assert bench.batcher.unwritten == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.batcher.run)
        await bench.accept(25)
        await trio.sleep(0.5)
        assert bench.batcher.unwritten == 25
        await trio.sleep(0.5)
        assert bench.batcher.unwritten == 25
        await trio.sleep(5)
        assert bench.batcher.unwritten == 0
        nursery.cancel_scope.cancel()


async def test_cancelled_while_the_buffer_is_away_it_still_knows_what_is_unwritten(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-005."""
    bench = Bench(batch_size=10)
    bench.buffer.away_until = 100.0
    await bench.accept(25)
    with trio.move_on_after(8) as drain:
        await bench.batcher.run()
    assert drain.cancelled_caught
    assert trio.current_time() == 8
    assert bench.batcher.unwritten == 25
    with pytest.raises(trio.EndOfChannel):  # the sender is told even then
        await bench.woken.receive()


class Forgetful(FakeBuffer):
    """Its first answer is lost, and what was pushed is delivered before it is asked again."""

    async def push(self, entries: Sequence[bytes]) -> Counts:
        counts = await super().push(entries)
        if len(self.pushed) == 1:
            self.queue.clear()
            self._expected = 0
            raise BufferUnavailable("Redis: the connection broke")
        return counts


async def test_what_was_delivered_before_its_push_was_answered_is_not_called_dropped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    bench.batcher.buffer = bench.buffer = Forgetful()
    receipt = Receipt()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.batcher.run)
        await bench.inlet.accept(b"1", receipt)
        await receipt.wait()
        nursery.cancel_scope.cancel()
    assert len(bench.failures) == 1
    assert receipt.dropped == 0
