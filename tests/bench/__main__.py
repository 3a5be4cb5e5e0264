"""`make bench`: how much the pipeline takes, as ratios to limits measured in the same run.

The machine is shared and noisy, so a figure alone says little; a ratio to what the same machine does at
the same time without us says more. The load generator shares the two cores with everything else.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import trio

from tests.bench.kill import kill
from tests.bench.measures import BATCH, ENTRY, inserts_per_s, say
from tests.bench.promises import promises
from tests.programs import Peer, Socket, Workplace, connect, dial, frame, select, workplace

CONNECTIONS: Final = 4
WINDOW: Final = 32
"""Calls of a connection that are under way at once."""


async def calls_per_s(url: str, request: bytes, seconds: float) -> float:
    """Send the same frame on some connections, with some answers outstanding on each."""
    answered = 0

    async def one() -> None:
        nonlocal answered
        async with dial(url) as peer:
            await peer.upgrade()
            for _ in range(WINDOW):
                await peer.send(request)
            while True:
                await peer.receive()
                answered += 1
                await peer.send(request)

    began = trio.current_time()
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(CONNECTIONS):
                nursery.start_soon(one)
    return answered / (trio.current_time() - began)


async def latencies(peer: Socket, request: bytes, count: int) -> list[float]:
    """Ask one thing after the other; return how long each answer took in seconds, sorted."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        await peer.send(request)
        await peer.receive()
        took.append(time.perf_counter() - began)
    return sorted(took)


async def entries_per_s_in_batches(url: str, seconds: float) -> tuple[float, int]:
    """Send batches one after the other on two connections; return the rate until all is stored, and how many."""
    sent = 0

    async def one() -> None:
        nonlocal sent
        async with connect(url) as peer:
            request = frame("logger_log_batch", logs=[ENTRY] * BATCH)
            while trio.current_time() < ends:
                await peer.ask(request)
                sent += BATCH

    async with connect(url) as watcher:
        before = (await watcher.status())["stored"]
        began = trio.current_time()
        ends = began + seconds
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)
        await watcher.status_with(stored=before + sent)
        return sent / (trio.current_time() - began), sent


async def sustain(peer: Peer, rate: int, seconds: float) -> tuple[int, float]:
    """Log at a steady rate; return how many entries were logged, and the slowest answer in seconds."""
    began = trio.current_time()
    slowest = 0.0
    count = int(rate * seconds)
    for number in range(count):
        await trio.sleep_until(began + number / rate)
        asked = trio.current_time()
        await peer.call("logger_log", **ENTRY)
        slowest = max(slowest, trio.current_time() - asked)
    return count, slowest


async def with_echo(measure: Callable[[str], Awaitable[float]]) -> float:
    """Measure against a server that sends every frame back: trio-websocket and nothing of ours."""
    command = [sys.executable, "-m", "tests.bench.echo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as echo:  # noqa: ASYNC220 - nothing else runs
        assert echo.stdout is not None
        try:
            return await measure(echo.stdout.readline().strip())
        finally:
            echo.terminate()


async def bench(place: Workplace, seconds: float, sustained_s: float) -> int:
    # What is sent faster than it is stored waits: dropped, it would never be stored.
    program = place.up(MAX_QUEUE_SIZE=1_000_000)
    url = await program.ready()
    database = place.endpoints()["database"]
    one = frame("logger_log", **ENTRY).encode()

    limit = await with_echo(partial(calls_per_s, request=one, seconds=seconds))
    rate = await calls_per_s(url, one, seconds)
    say("frames echoed by trio-websocket alone", f"{limit:,.0f}/s")
    say("logger_log, one entry a call", f"{rate:,.0f}/s", f"{rate / limit:.0%} of the echo")
    async with connect(url) as peer:
        await peer.status_with(queued=0, in_flight=0)
    async with dial(url) as socket:
        await socket.upgrade()
        took = await latencies(socket, one, 2_000)
        say("  answered, one after the other: p50, p99", f"{took[1000] * 1e3:.2f}, {took[1980] * 1e3:.2f} ms")
        durable = frame("logger_log", **ENTRY, ack="durable").encode()
        took = await latencies(socket, durable, 500)
        say("  with ack=durable: p50, p99", f"{took[250] * 1e3:.2f}, {took[495] * 1e3:.2f} ms")

    inserted = await trio.to_thread.run_sync(inserts_per_s, database, seconds)
    rate, _ = await entries_per_s_in_batches(url, seconds)
    say("rows inserted by psycopg alone, 1,000 a statement", f"{inserted:,.0f}/s")
    say("logger_log_batch, until all is in PostgreSQL", f"{rate:,.0f}/s", f"{rate / inserted:.0%} of the inserts")

    async with connect(url) as peer:
        before = (await peer.status())["stored"]
        count, slowest = await sustain(peer, 1_000, sustained_s)
        status = await peer.status_with(stored=before + count)
    lost = status["received"] - status["stored"]
    say(f"1,000 entries/s for {sustained_s:g} s (PERF-002): lost", f"{lost}", f"slowest answer {slowest * 1e3:.0f} ms")
    rows = select(database, "SELECT count(*) FROM logs WHERE message = %s", ENTRY["message"])[0][0]
    say("rows in PostgreSQL at the end", f"{rows:,}")
    return 1 if lost else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="for each measurement (default: 10)")
    parser.add_argument("--sustained", type=float, default=60, help="seconds at 1,000 entries/s (default: 60)")
    options = parser.parse_args()
    with workplace() as place:
        failed = trio.run(bench, place, options.seconds, options.sustained)
    with workplace() as place:
        trio.run(promises, place)
    with workplace() as place:
        return trio.run(kill, place, options.seconds) or failed


if __name__ == "__main__":
    sys.exit(main())
