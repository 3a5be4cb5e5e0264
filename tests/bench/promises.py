"""What is promised in seconds, on this machine: how soon it is ready, answers, finds, wakes who waits, helps."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from statistics import median
from typing import Final

import trio

from tests.bench.measures import ENTRY, say
from tests.programs import Peer, Workplace, connect, dial

TIMES: Final = 11
IDLE: Final = 500
BUSY: Final = 50


async def promises(place: Workplace) -> None:
    """Measure them, and say each beside what is promised."""
    cold, warm = [await _ready_after(place) for _ in range(2)]
    _say("godot up: ready with nothing there", cold, 3.0)
    _say("  and with data", warm, 1.5)
    helps = [await _took(partial(_help, place)) for _ in range(TIMES)]
    _say("godot --help", median(helps), 0.1)
    url = await place.up().ready()
    _say("first frame of a connection: answered", median([await _first_frame(url) for _ in range(TIMES)]), 0.020)
    async with connect(url) as peer, connect(url) as other:
        _say("  and its entry found", median([await _took(partial(_log_and_find, peer)) for _ in range(TIMES)]), 1.0)
        _say("who follows is woken", median([await _woken_after(peer, other) for _ in range(TIMES)]), 0.3)
        await _say_beside_a_crowd(url, peer)


def _say(what: str, seconds: float, promised: float) -> None:
    say(what, f"{seconds * 1e3:,.1f} ms", f"promised: {promised * 1e3:,.0f} ms")


async def _took(do: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await do()
    return time.perf_counter() - began


async def _ready_after(place: Workplace) -> float:
    program = place.up()
    await program.ready()
    await program.stop()
    return program.ready_after


async def _help(place: Workplace) -> None:
    await place.start("godot", "--help").exit()


async def _first_frame(url: str) -> float:
    async with connect(url) as peer:
        return await _took(partial(peer.call, "logger_log", **ENTRY))


async def _log_and_find(peer: Peer) -> None:
    said = await peer.call("logger_log", **ENTRY)
    while (await peer.found(component=ENTRY["component"]))["id"] != said["id"]:
        pass


async def _woken_after(follower: Peer, other: Peer) -> float:
    """Return the seconds from a call that logs to the answer of one who waits for the entry."""
    cursor = (await follower.call("logger_tail", component="followed", wait_s=0))["cursor"]
    began = 0.0

    async def log() -> None:
        nonlocal began
        await trio.sleep(0.5)  # the follower waits by then
        began = time.perf_counter()
        await other.log("now", component="followed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(log)
        await follower.call("logger_tail", component="followed", wait_s=20, cursor=cursor)
        return time.perf_counter() - began


async def _say_beside_a_crowd(url: str, peer: Peer) -> None:
    async def be_busy() -> None:
        async with connect(url) as busy:
            while True:
                await busy.log("busy", component="busy")
                await trio.sleep(0.1)

    async with AsyncExitStack() as idle, trio.open_nursery() as nursery:
        for _ in range(IDLE):
            await (await idle.enter_async_context(dial(url))).upgrade()
        for _ in range(BUSY):
            nursery.start_soon(be_busy)
        took = sorted([await _took(partial(peer.log, "still here")) for _ in range(500)])
        nursery.cancel_scope.cancel()
    _say(f"logger_log beside {IDLE} idle and {BUSY} busy connections: p99", took[len(took) * 99 // 100], 0.020)
