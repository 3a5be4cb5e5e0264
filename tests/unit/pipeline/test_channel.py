"""The channel between listener and batcher: bounded in entries and in bytes, patient for one second."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from godot.errors import ChannelFull, EntryRejected
from godot.pipeline.channel import PATIENCE_S, Arrival, Inlet, Outlet, open_entry_channel


async def refused_after(inlet: Inlet, raw: bytes) -> float:
    """Return how long an entry waited before it was refused."""
    started = trio.current_time()
    with pytest.raises(ChannelFull):
        await inlet.accept(raw)
    return trio.current_time() - started


async def accept_and_note(inlet: Inlet, raw: bytes, accepted: list[bytes]) -> None:
    await inlet.accept(raw)
    accepted.append(raw)


async def take_all(outlet: Outlet) -> list[bytes]:
    taken = []
    while outlet.waiting:
        taken.append((await outlet.receive()).raw)
    return taken


async def test_an_entry_comes_out_as_it_went_in_with_the_time_of_its_arrival(
    autojump_clock: trio.testing.MockClock,
) -> None:
    inlet, outlet = open_entry_channel()
    await trio.sleep(2.5)
    await inlet.accept(b"{}")
    await trio.sleep(4)
    assert await outlet.receive() == Arrival(b"{}", arrived=2.5)


async def test_entries_come_out_in_the_order_they_went_in(autojump_clock: trio.testing.MockClock) -> None:
    inlet, outlet = open_entry_channel()
    for number in range(5):
        await inlet.accept(b"%d" % number)
    assert await take_all(outlet) == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_channel_full_of_entries_refuses_the_next_after_exactly_one_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    inlet, outlet = open_entry_channel(max_entries=2)
    await inlet.accept(b"1")
    await inlet.accept(b"2")
    assert await refused_after(inlet, b"3") == PATIENCE_S == 1.0
    assert await take_all(outlet) == [b"1", b"2"]


async def test_the_refusal_says_what_to_do(autojump_clock: trio.testing.MockClock) -> None:
    assert issubclass(ChannelFull, EntryRejected)  # so it becomes an answer, not a broken connection
    inlet, _outlet = open_entry_channel(max_entries=1)
    await inlet.accept(b"1")
    with pytest.raises(ChannelFull, match=r"send it again later .*status"):
        await inlet.accept(b"2")


async def test_room_that_comes_within_the_second_is_used(autojump_clock: trio.testing.MockClock) -> None:
    inlet, outlet = open_entry_channel(max_entries=1)
    await inlet.accept(b"1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inlet.accept, b"2")
        await trio.sleep(0.9)
        assert (await outlet.receive()).raw == b"1"
    assert trio.current_time() == 0.9
    assert await outlet.receive() == Arrival(b"2", arrived=0)


async def test_a_channel_full_of_bytes_refuses_the_next_after_exactly_one_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    inlet, outlet = open_entry_channel(max_bytes=10)
    await inlet.accept(b"123456")
    assert await refused_after(inlet, b"12345") == 1.0
    await inlet.accept(b"1234")  # exactly what is left
    assert await take_all(outlet) == [b"123456", b"1234"]


async def test_an_entry_waits_until_there_is_room_for_all_of_its_bytes(autojump_clock: trio.testing.MockClock) -> None:
    inlet, outlet = open_entry_channel(max_bytes=10)
    await inlet.accept(b"12")
    await inlet.accept(b"1234567")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inlet.accept, b"abcdef")
        await trio.sleep(0.25)
        await outlet.receive()
        await trio.testing.wait_all_tasks_blocked()
        assert outlet.waiting == 1  # 7 of 10 bytes: no room for 6 more
        await trio.sleep(0.25)
        await outlet.receive()
    assert trio.current_time() == 0.5
    assert await take_all(outlet) == [b"abcdef"]


async def test_of_many_that_wait_for_the_same_bytes_only_as_many_get_in_as_there_is_room_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    inlet, outlet = open_entry_channel(max_bytes=10)
    accepted: list[bytes] = []
    await inlet.accept(b"0123456789")
    async with trio.open_nursery() as nursery:
        for letter in b"abc":
            nursery.start_soon(accept_and_note, inlet, bytes([letter]) * 10, accepted)
        await trio.testing.wait_all_tasks_blocked()
        await outlet.receive()
        await trio.testing.wait_all_tasks_blocked()
        assert outlet.waiting == len(accepted) == 1
        nursery.cancel_scope.cancel()


async def test_an_entry_larger_than_the_bound_passes_when_it_is_alone(autojump_clock: trio.testing.MockClock) -> None:
    inlet, outlet = open_entry_channel(max_bytes=10)
    await inlet.accept(b"x" * 1000)
    assert await refused_after(inlet, b"1") == 1.0
    assert len((await outlet.receive()).raw) == 1000
    await inlet.accept(b"1")
    assert await refused_after(inlet, b"x" * 1000) == 1.0


async def test_an_entry_whose_sender_gave_up_takes_no_room(autojump_clock: trio.testing.MockClock) -> None:
    inlet, outlet = open_entry_channel(max_entries=1, max_bytes=10)
    await inlet.accept(b"12345")
    with trio.move_on_after(0.5) as gave_up:
        await inlet.accept(b"12345")
    assert gave_up.cancelled_caught
    assert await take_all(outlet) == [b"12345"]
    await inlet.accept(b"1234567890")
    assert await take_all(outlet) == [b"1234567890"]


async def test_what_was_accepted_before_the_inlet_closed_still_comes_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """REL-005: a stop closes the inlet, and the batcher still gets everything."""
    inlet, outlet = open_entry_channel()
    async with inlet:
        await inlet.accept(b"1")
        await inlet.accept(b"2")
    assert [(await outlet.receive()).raw for _ in range(2)] == [b"1", b"2"]
    with pytest.raises(trio.EndOfChannel):
        await outlet.receive()


async def test_closing_the_inlet_ends_a_receive_that_waits(autojump_clock: trio.testing.MockClock) -> None:
    inlet, outlet = open_entry_channel()

    async def close_later() -> None:
        async with inlet:
            await trio.sleep(3)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close_later)
        with pytest.raises(trio.EndOfChannel):
            await outlet.receive()
        assert trio.current_time() == 3


async def test_a_closed_inlet_takes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    inlet, _outlet = open_entry_channel()
    async with inlet:
        pass
    with pytest.raises(trio.ClosedResourceError):
        await inlet.accept(b"1")


async def test_waiting_counts_the_entries_in_the_channel(autojump_clock: trio.testing.MockClock) -> None:
    inlet, outlet = open_entry_channel()
    for _ in range(3):
        await inlet.accept(b"1")
    await outlet.receive()
    assert outlet.waiting == 2
