"""A stream that is read no further than there is room: half a message ends, and no peer fills memory with pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, Ping

from godot.mcp.budget import HASTE_S, OWN_BYTES, Account, Pool
from godot.mcp.websocket.meter import FRAMES_AT_ONCE, PART_BYTES, SLOWEST_BYTES_PER_S, Meter

MB = 1024 * 1024
LARGEST = 4 * MB
TIMEOUT_S = 30.0
UPGRADE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@attrs.define
class Peer:
    """The other end of a metered stream, and what became of it."""

    stream: trio.testing.MemorySendStream
    meter: Meter
    client: Connection = attrs.Factory(lambda: Connection(ConnectionType.CLIENT))
    dropped: list[tuple[int, str]] = attrs.Factory(list)
    ended: trio.Event = attrs.Factory(trio.Event)
    read: int = 0
    turns: int = 0

    def give_up(self, code: int, reason: str) -> None:
        self.dropped.append((code, reason))
        self.ended.set()

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    def part(self, size: int, *, final: bool) -> bytes:
        return self.client.send(BytesMessage(b"x" * size, message_finished=final))


@asynccontextmanager
async def metered(pool: Pool) -> AsyncIterator[Peer]:
    """Read all that comes, as trio-websocket does."""
    ours, theirs = trio.testing.memory_stream_pair()
    meter = Meter(
        ours,
        Account(pool, LARGEST),
        setting="GODOT_MAX_MESSAGE_BYTES",
        largest=LARGEST,
        timeout_s=TIMEOUT_S,
        give_up=lambda code, reason: peer.give_up(code, reason),
    )
    peer = Peer(theirs.send_stream, meter)

    async def read() -> None:
        while data := await meter.receive_some():
            peer.read += len(data)
            peer.turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await peer.send(UPGRADE)
        yield peer
        nursery.cancel_scope.cancel()
    meter.release()


async def test_room_is_claimed_for_a_message_before_it_is_read_and_kept_until_it_is_answered() -> None:
    pool = Pool(16 * MB)
    async with metered(pool) as peer:
        message = peer.part(LARGEST, final=True)
        await peer.send(message[:20])
        await trio.testing.wait_all_tasks_blocked()
        assert pool.bytes == LARGEST
        await peer.send(message[20:])
        await trio.testing.wait_all_tasks_blocked()
        claim = peer.meter.claim()
        assert (pool.bytes, claim.size) == (LARGEST, LARGEST)
        claim.release()
        assert pool.bytes == 0


async def test_a_message_in_parts_keeps_no_more_than_it_turned_out_to_be() -> None:
    pool = Pool(16 * MB)
    async with metered(pool) as peer:
        await peer.send(peer.part(1_000, final=False) + peer.client.send(Ping(b"?")) + peer.part(500, final=False))
        await trio.testing.wait_all_tasks_blocked()
        assert pool.bytes == LARGEST, "nobody knows how long it will be"
        await peer.send(peer.part(0, final=True))
        await trio.testing.wait_all_tasks_blocked()
        assert pool.bytes == 1_500


async def test_half_sent_messages_of_many_connections_are_left_unread_when_there_is_no_room() -> None:
    pool = Pool(2 * LARGEST)
    async with metered(pool) as first, metered(pool) as second, metered(pool) as third:
        for peer in (first, second, third):
            await peer.send(peer.part(LARGEST, final=True)[:MB])
            await trio.testing.wait_all_tasks_blocked()
        assert pool.bytes == 2 * LARGEST
        assert (first.read, second.read) == (len(UPGRADE) + MB, len(UPGRADE) + MB)
        assert third.read < OWN_BYTES
        first.meter.release()
        await trio.testing.wait_all_tasks_blocked()
        assert third.read == len(UPGRADE) + MB


async def test_small_messages_before_one_that_has_no_room_are_handed_over() -> None:
    pool = Pool(LARGEST)
    async with metered(pool) as holder, metered(pool) as peer:
        await holder.send(holder.part(LARGEST, final=True)[:MB])
        await trio.testing.wait_all_tasks_blocked()
        small = peer.part(100, final=True)
        await peer.send(small * 3 + peer.part(LARGEST, final=True)[:100])
        await trio.testing.wait_all_tasks_blocked()
        assert [peer.meter.claim().size for _ in range(3)] == [100] * 3


@pytest.mark.parametrize("size", [100, MB, LARGEST])
async def test_a_message_that_is_not_finished_ends_its_connection(
    autojump_clock: trio.testing.MockClock, size: int
) -> None:
    async with metered(Pool(16 * MB)) as peer:
        await peer.send(peer.part(size, final=True)[:50])
        await peer.ended.wait()
        assert TIMEOUT_S <= trio.current_time() <= TIMEOUT_S + size / SLOWEST_BYTES_PER_S + 1
        assert peer.dropped == [(1008, "a message was begun and not finished in time")]


async def test_a_half_sent_message_has_less_time_while_another_waits(autojump_clock: trio.testing.MockClock) -> None:
    pool = Pool(LARGEST)
    async with metered(pool) as peer, metered(pool) as other:
        await peer.send(peer.part(LARGEST, final=True)[:50])
        await trio.sleep(1)
        await other.send(other.part(LARGEST, final=True)[:50])
        await trio.sleep(HASTE_S + 0.1)
        assert peer.dropped
        peer.meter.release()
        await trio.sleep(0.1)
        assert not other.dropped
        assert pool.bytes == LARGEST


@pytest.mark.parametrize("size", [0, 1, 2])
async def test_a_message_of_endless_tiny_parts_ends_its_connection(size: int) -> None:
    async with metered(Pool(16 * MB)) as peer:
        await peer.send(peer.part(1, final=False))
        parts = 0
        while not peer.dropped:
            await peer.send(b"".join(peer.part(size, final=False) for _ in range(10_000)))
            await trio.testing.wait_all_tasks_blocked()
            parts += 10_000
            assert parts <= 3 * LARGEST // PART_BYTES
        assert peer.dropped[0][0] == 1009


async def test_a_large_message_in_parts_of_4_kib_is_taken() -> None:
    async with metered(Pool(16 * MB)) as peer:
        count = LARGEST // 4096
        for number in range(count):
            await peer.send(peer.part(4096, final=number == count - 1))
        await trio.testing.wait_all_tasks_blocked()
        assert not peer.dropped
        assert peer.meter.claim().size == LARGEST


@pytest.mark.parametrize("count", [1, 49, 50, 51, 1_500])
async def test_thousands_of_tiny_messages_are_handed_over_in_turns_with_a_claim_for_each(count: int) -> None:
    async with metered(Pool(16 * MB)) as peer:
        await peer.send(peer.part(0, final=True) * count + peer.client.send(Ping(b"")) * count)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(count):
            peer.meter.claim().release()


@pytest.mark.parametrize("kind", ["parts", "pings", "messages"])
async def test_frames_with_nothing_in_them_do_not_come_eleven_thousand_at_once(kind: str) -> None:
    async with metered(Pool(16 * MB)) as peer:
        frames = {
            "parts": peer.part(1, final=False) + peer.part(0, final=False) * 10_000,
            "pings": peer.client.send(Ping(b"")) * 10_000,
            "messages": peer.part(0, final=True) * 10_000,
        }
        await peer.send(frames[kind])
        await trio.testing.wait_all_tasks_blocked()
        assert peer.turns >= 10_000 // FRAMES_AT_ONCE
