"""`python -m tests.bench.kill`: kill -9 of the daemon in the middle of 200,000 entries, a poison record among them.

Every entry has an id of its own and is logged durably; what was not acknowledged is sent again, with the same id.
None may be lost and none doubled, and the record that cannot be stored has to be kept, with the reason.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import Final

import trio
from trio_websocket import ConnectionClosed, HandshakeError

from godot.embedded import EmbeddedPostgres, EmbeddedRedis
from godot.entries.entry import IdSource
from tests.bench.measures import BATCH, ENTRY, inserts_per_s, say
from tests.programs import Program, Queue, Workplace, answer, connect, frame, select, until, workplace

ENTRIES: Final = 200_000
CLIENTS: Final = 2

BAR_PER_S: Final = 10_400
"""Rows a second of syslog-ng in the same case (reliable queue, explicit commits); it lost and doubled none, too."""

POISON: Final = {
    **ENTRY,
    "id": "0197a9a8-0000-7000-8000-000000000000",
    "created_at": "2026-11-20T08:30:00Z",
    "level": "LOUD",
}

LONGEST_S: Final = 300.0


async def kill(place: Workplace, seconds: float) -> int:
    """Measure, say what came of it, and return the exit code.

    :param seconds: for the measurement of the limit.
    """
    new_id = IdSource().next
    ids = [new_id() for _ in range(ENTRIES)]
    calls = deque(
        frame("logger_log_batch", ack="durable", logs=[{**ENTRY, "id": each} for each in ids[first : first + BATCH]])
        for first in range(0, ENTRIES, BATCH)
    )
    half = len(calls) // 2
    async with _servers(place) as (redis, postgres):

        def start() -> Program:
            return place.start(
                *("godot", "serve", "--port", 0),
                REDIS_URL=redis.url,
                DATABASE_URL=postgres.url,
                GODOT_DAEMON="bench",
                MAX_QUEUE_SIZE=10 * ENTRIES,
            )

        program = start()
        await program.ready()
        began = trio.current_time()
        async with trio.open_nursery() as clients:
            for _ in range(CLIENTS):
                clients.start_soon(_log, lambda: program.mcp, calls)
            await until(lambda: len(calls) <= half, LONGEST_S)
            with closing(Queue.at(redis.url)) as queue:
                queue.push(POISON)
            await program.kill()
            program = start()
            await program.ready()
        async with connect(program.mcp) as peer:
            with trio.fail_after(LONGEST_S):
                status = await peer.status_with(queued=0, in_flight=0)
        rate = ENTRIES / (trio.current_time() - began)
        with closing(Queue.at(redis.url)) as queue:
            kept = [grave["reason"] for grave in queue.dead()]
        rows = [row[0] for row in select(postgres.url, "SELECT id::text FROM logs WHERE component <> 'godot'")]
        await program.stop()
        limit = await trio.to_thread.run_sync(inserts_per_s, postgres.url, seconds)
    lost, doubled = len(set(ids) - set(rows)), len(rows) - len(set(rows))
    say(
        f"kill -9 in the middle of {ENTRIES:,}, until all is stored",
        f"{rate:,.0f}/s",
        f"{rate / limit:.0%} of the inserts",
    )
    say("  the same with syslog-ng", f"{BAR_PER_S:,}/s")
    say("  lost, doubled", f"{lost}, {doubled}", f"started again in {program.ready_after:.2f} s")
    say("  the poison record", "kept" if len(kept) == 1 else f"{len(kept)} dead", "; ".join(kept))
    return 0 if (lost, doubled, len(kept), status["dead"], status["dropped"]) == (0, 0, 1, 1, 0) else 1


@asynccontextmanager
async def _servers(place: Workplace) -> AsyncIterator[tuple[EmbeddedRedis, EmbeddedPostgres]]:
    """Run the servers, which go on while the daemon is dead."""
    redis = EmbeddedRedis(place.path / "redis", notify=lambda _: None, on_change=lambda: None)
    postgres = EmbeddedPostgres(place.path / "postgres", notify=lambda _: None, on_change=lambda: None)
    async with trio.open_nursery() as servers:
        for server in (redis, postgres):
            await servers.start(partial(server.run))
        yield redis, postgres
        servers.cancel_scope.cancel()


async def _log(url: Callable[[], str], calls: deque[str]) -> None:
    """Make calls until there are none left; one that was not acknowledged is made again, on another connection."""
    while calls:
        address = await until(url)
        try:
            async with connect(address) as peer:
                while calls:
                    call = calls.popleft()
                    acknowledged = False
                    try:
                        acknowledged = answer(await peer.ask(call))["accepted"] == BATCH
                    finally:
                        if not acknowledged:
                            calls.appendleft(call)
        except* (OSError, ConnectionClosed, HandshakeError):
            await trio.sleep(0.01)


def main() -> int:
    """Measure, on servers of its own."""
    with workplace() as place:
        return trio.run(kill, place, 10)


if __name__ == "__main__":
    sys.exit(main())
