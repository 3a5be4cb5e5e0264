"""One connection, a query that takes long, and what else is said meanwhile."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import trio

from tests.programs import ENOUGH, Peer, Workplace, connect, until


async def request(peer: Peer, request_id: str, tool: str, **arguments: object) -> None:
    params = {"name": tool, "arguments": arguments}
    await peer.send(json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}))


def reading(connection: psycopg.Connection[Any]) -> int:
    """Count the statements that wait for the table."""
    found = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%ORDER BY%%'"
    ).fetchone()
    assert found is not None
    return int(found[0])


async def test_a_slow_query_holds_nothing_up_and_a_cancelled_one_ends_in_postgresql_too(place: Workplace) -> None:
    with trio.fail_after(ENOUGH):
        program = place.up()
        async with connect(await program.ready()) as peer:
            database = place.endpoints()["database"]
            with psycopg.connect(database) as locker, psycopg.connect(database, autocommit=True) as watcher:
                locker.execute("LOCK TABLE logs IN ACCESS EXCLUSIVE MODE")
                await request(peer, "slow", "logger_query")
                await until(lambda: reading(watcher) == 1)

                await request(peer, "quick", "logger_log", component="gates", level="INFO", message="meanwhile")
                assert (await peer.receive())["id"] == "quick"

                await request(peer, "other", "logger_query", component="gates")
                await until(lambda: reading(watcher) == 2)
                cancelled = {"method": "notifications/cancelled", "params": {"requestId": "slow"}}
                await peer.send(json.dumps({"jsonrpc": "2.0", **cancelled}))
                await until(lambda: reading(watcher) == 1)
                locker.rollback()

            assert (await peer.receive())["id"] == "other", "nothing is said to the call that was cancelled"
            await request(peer, "last", "logger_status")
            assert (await peer.receive())["id"] == "last"
            assert (await peer.found(component="gates"))["message"] == "meanwhile"
