"""Those who read: many at once, slow ones, and ones that ask for too much. Nobody else is harmed by any of them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import psycopg
import pytest
import trio

from tests.acceptance.test_http import request
from tests.programs import (
    ENOUGH,
    CallFault,
    Peer,
    Program,
    Workplace,
    connect,
    frame,
    until,
    until_asked,
)

FOLLOWERS: Final = 200
WAIT_S: Final = 30

DEEP: Any = 7
for _ in range(60):
    DEEP = {"a": DEEP, "b": [1, 2]}
SLOW: Final = {"data_path": "$.**.**.**.** ? (@ == 8)", "component": "deep"}
"""Takes minutes on one entry, and would be stopped after `DEWEY_QUERY_TIMEOUT_S`."""


@pytest.fixture(scope="module")
def godot(shared_place: Workplace) -> Program:
    program = shared_place.up(DEWEY_QUERY_TIMEOUT_S=100, DEWEY_TIMEOUT_S=90)
    trio.run(program.ready)
    return program


async def following(godot: Program) -> int:
    """Return how many calls of logger_tail Dewey has."""

    metrics = await trio.to_thread.run_sync(request, f"{godot.http}/metrics")
    found = re.search(r"^dewey_followers (\d+)", metrics.body, re.MULTILINE)
    assert found is not None
    return int(found[1])


async def until_following(godot: Program, count: int) -> None:
    async def ask() -> bool:
        return await following(godot) == count

    await until_asked(ask)


async def test_two_hundred_followers_all_get_the_entry_and_none_gets_it_twice(godot: Program) -> None:
    pages: list[dict[str, Any]] = []

    async def follow(peer: Peer, cursor: str | None) -> None:
        page = await peer.call("logger_tail", component="seen", wait_s=WAIT_S, cursor=cursor)
        pages.append(page)

    with trio.fail_after(2 * ENOUGH):
        async with AsyncExitStack() as stack:
            peers = [await stack.enter_async_context(connect(godot.mcp)) for _ in range(FOLLOWERS + 1)]
            *followers, other = peers
            await until_following(godot, 0)
            async with trio.open_nursery() as nursery:
                for peer in followers[: FOLLOWERS // 2]:
                    nursery.start_soon(follow, peer, None)
                await until_following(godot, FOLLOWERS // 2)
                # Dewey finds the present for one after the other: all of them have theirs, when this one has.
                begun = (await other.call("logger_tail", wait_s=0))["cursor"]
                for peer in followers[FOLLOWERS // 2 :]:
                    nursery.start_soon(follow, peer, begun)
                await until_following(godot, FOLLOWERS)
                with pytest.raises(CallFault, match="there are 200 followers already, which is the most"):
                    await other.call("logger_tail", wait_s=0)
                await other.log("here", component="seen")
            woken = [[each["message"] for each in page["entries"]] for page in pages]
            assert woken == [["here"]] * FOLLOWERS, "one that is ended by its time has no entry"
            again = []
            for peer, page in zip(followers[:20], pages, strict=False):
                again += (await peer.call("logger_tail", component="seen", wait_s=0, cursor=page["cursor"]))["entries"]
            assert again == []


async def _query(peer: Peer) -> Any:
    return await peer.call("logger_query", limit=1)


async def _clear(peer: Peer) -> Any:
    return await peer.call("logger_clear", component="nobody")


async def _stats(peer: Peer) -> Any:
    return await peer.call("logger_stats")


async def _set_level(peer: Peer) -> Any:
    return await peer.call("logger_set_level", component="nobody", level="INFO")


@pytest.mark.parametrize("call", [_query, _clear, _stats, _set_level])
@pytest.mark.parametrize("asked", [{"wait_s": None}, {}, {"wait_s": WAIT_S}])
async def test_followers_who_wait_keep_no_call_of_another_client_waiting(
    godot: Program, asked: dict[str, object], call: Callable[[Peer], Awaitable[Any]]
) -> None:
    """Four calls with `wait_s: null` were enough, and Dewey looked down."""
    with trio.fail_after(ENOUGH):
        async with connect(godot.mcp) as follower, connect(godot.mcp) as other:
            await until_following(godot, 0)
            for _ in range(16):
                await follower.send(frame("logger_tail", component="nobody", **asked))
            await until_following(godot, 16)
            await call(other)
            assert await following(godot) == 16, "none of them had to end for it"
            assert (await other.status())["dewey"] == "up"
    assert not any("event=dewey_down" in line for line in godot.out)


def running(database: str) -> int:
    """Count the slow queries that PostgreSQL works on."""
    with psycopg.connect(database) as connection:
        ((count,),) = connection.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE state = 'active' AND query LIKE '%%jsonpath%%' AND pid <> pg_backend_pid()"
        )
        return int(count)


@pytest.mark.parametrize("way", ["goes", "cancels"])
async def test_slow_queries_of_one_client_fail_no_query_of_another_and_end_when_nobody_waits_for_them(
    shared_place: Workplace, godot: Program, way: str
) -> None:
    database = shared_place.endpoints()["database"]
    with trio.fail_after(2 * ENOUGH):
        async with connect(godot.mcp) as slow, connect(godot.mcp) as other:
            await other.call("logger_log", component="deep", level="INFO", message="deep", data={"deep": DEEP})
            await other.found(component="deep")
            frames = [frame("logger_query", **SLOW) for _ in range(8)]
            for each in frames:
                await slow.send(each)
            await until(lambda: running(database) == 2)
            for _ in range(20):
                await _query(other)
                await _stats(other)
            assert running(database) == 2, "two of one client at once, and they have not ended"
            assert (await other.status())["dewey"] == "up"
            if way == "cancels":
                for each in frames:
                    number = re.search(r'"id": (\d+)', each)
                    assert number is not None
                    await slow.send(
                        '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%s}}' % number[1]  # noqa: UP031
                    )
            else:
                await slow.connection.aclose()
            await until(lambda: running(database) == 0)
            await _query(other)
    assert not any("event=dewey_down" in line for line in godot.out)


@pytest.mark.parametrize(
    ("filters", "entry"),
    [
        ({"component": "*a" * 14 + "*b"}, {"component": "a" * 60}),
        ({"component": ["*a*" * 80 + "b"] * 100}, {"component": "a" * 255}),
        ({"data": {"a": list(range(900))}}, {"component": "lists", "data": {"a": list(range(300_000))}}),
        ({"data": {"a": [[-1]]}}, {"component": "lists", "data": {"a": [[each] for each in range(120_000)]}}),
        ({"contains": "b" * 10_000}, {"component": "long", "message": "a" * 4_000_000}),
        ({"search": "x " * 500}, {"component": "long", "message": "a " * 30_000}),
    ],
)
async def test_no_filter_of_a_follower_keeps_the_others_from_being_answered(
    godot: Program, filters: dict[str, object], entry: dict[str, object]
) -> None:
    """A pattern with many stars once stopped the daemon for ever."""
    answered = 0

    async def log_on(peer: Peer) -> None:
        nonlocal answered
        while True:
            await peer.log("still here")
            answered += 1

    with trio.fail_after(ENOUGH):
        async with connect(godot.mcp) as follower, connect(godot.mcp) as writer, connect(godot.mcp) as other:
            await until_following(godot, 0)
            for _ in range(4):
                await follower.send(frame("logger_tail", wait_s=5, **filters))
            await until_following(godot, 4)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(log_on, other)
                await writer.call("logger_log", **{"level": "INFO", "message": "m"} | entry)
                for _ in range(4):
                    await follower.receive()
                before = answered
                await until(lambda: answered > before + 20)
                nursery.cancel_scope.cancel()
