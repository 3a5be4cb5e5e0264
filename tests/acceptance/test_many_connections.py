"""One daemon and many clients, some of whom do not behave: nobody else notices."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from statistics import median
from typing import Final

import trio

from tests.programs import ENOUGH, Peer, Workplace, connect, dial, frame, until

IDLE: Final = 500
BUSY: Final = 50
NOT_READING: Final = 100
CALLS: Final = 300
"""Answers to the observer that are compared: before the crowd came, while it is there, and when it is gone."""

PAUSE_S: Final = 0.002
SLOWER: Final = 10
"""How many times as long as without the crowd the median answer may take with it."""

PEER_TIMEOUT_S: Final = 2.0
OWN: Final = 10
"""Descriptors that the daemon may open for itself meanwhile: to Redis and PostgreSQL, and the observer's."""

KEPT_BYTES: Final = 400 * 2**20
"""What Python's allocator may keep of what the answers took: 100 were seen. Without a bound it is 10 GB."""


class Observer:
    """Logs all the time, and notes how long each answer took."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.took: list[float] = []

    async def run(self) -> None:
        while True:
            began = trio.current_time()
            await self._peer.log("still here", component="observer")
            self.took.append(trio.current_time() - began)
            await trio.sleep(PAUSE_S)

    async def median_of_next(self, calls: int) -> float:
        """Wait for so many more answers; return the median of the time that they took."""
        first = len(self.took)
        await until(lambda: len(self.took) >= first + calls)
        return median(self.took[first:])


@asynccontextmanager
async def observing(url: str, asking: int = 1) -> AsyncIterator[Observer]:
    """Have another client log before, during and after what the block does; it may become slower only so much.

    :param asking: how many clients of the block ask at once: on a busy machine their calls wait for each other.
    """
    async with connect(url) as peer, trio.open_nursery() as nursery:
        observer = Observer(peer)
        nursery.start_soon(observer.run)
        before = await observer.median_of_next(CALLS)
        first = len(observer.took)
        yield observer
        during = median(observer.took[first:])
        after = await observer.median_of_next(CALLS)
        nursery.cancel_scope.cancel()
    assert during <= SLOWER * asking * max(before, after)


async def test_500_idle_and_50_busy_connections_do_not_slow_another_client_down(place: Workplace) -> None:
    with trio.fail_after(ENOUGH):
        program = place.up()
        url = await program.ready()
        before = program.descriptors
        async with AsyncExitStack() as idle:
            async with observing(url) as observer:
                for _ in range(IDLE):
                    await (await idle.enter_async_context(dial(url))).upgrade()
                await observer.median_of_next(CALLS)
            async with observing(url, BUSY) as observer, trio.open_nursery() as nursery:

                async def be_busy() -> None:
                    async with connect(url) as peer:
                        while True:
                            await peer.log("busy", component="busy")
                            await trio.sleep(0.1)

                for _ in range(BUSY):
                    nursery.start_soon(be_busy)
                await observer.median_of_next(CALLS)
                nursery.cancel_scope.cancel()
        await until(lambda: program.descriptors <= before + OWN)


async def test_clients_that_stop_reading_are_dropped_and_what_they_held_is_given_back(place: Workplace) -> None:
    with trio.fail_after(ENOUGH):
        program = place.up(GODOT_PEER_TIMEOUT_S=PEER_TIMEOUT_S)
        url = await program.ready()
        async with connect(url) as peer:
            await peer.log_batch(["x" * 10_000] * 100)
            await peer.status_with(stored=100)
        before, bytes_before = program.descriptors, program.resident_bytes
        async with observing(url, NOT_READING) as observer, AsyncExitStack() as silent:
            for _ in range(NOT_READING):
                peer_that_asks = await silent.enter_async_context(dial(url))
                peer_that_asks.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                await peer_that_asks.upgrade()
                for _ in range(5):
                    await peer_that_asks.send(frame("logger_query").encode())
            await until(lambda: program.descriptors <= before + OWN)
            await observer.median_of_next(10)
        assert program.resident_bytes - bytes_before < KEPT_BYTES


async def test_1_000_connections_aborted_in_the_handshake_are_forgotten(place: Workplace) -> None:
    with trio.fail_after(ENOUGH):
        program = place.up()
        url = await program.ready()
        before = program.descriptors
        async with observing(url) as observer:
            for number in range(1_000):
                with suppress(OSError):
                    async with dial(url) as peer:
                        await peer.stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgr"[: number % 40])
            await observer.median_of_next(100)
        await until(lambda: program.descriptors <= before + OWN)
        assert not program.events("bug")
