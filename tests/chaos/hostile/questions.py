"""Followers by the hundred, and questions that cost much."""

from __future__ import annotations

from typing import Any, Final

import orjson
import trio

from tests.chaos.hostile.crew import Kind, Visitor, call
from tests.chaos.hostile.messages import fill

ROUNDS_MAX: Final = 8
"""So often a follower asks on at the most, before it goes and comes again."""

HEAVY_PATH: Final = "$.**.**.**.** ? (@ == 7)"


async def follow(visitor: Visitor) -> None:
    """Follow, with a filter that takes time; at times leave in the middle."""
    rng = visitor.rng
    filters: tuple[dict[str, Any], ...] = (
        {"component": "*a*a*a*a*a*a*a*a*a*a*a*a*b"},
        {"component": ["*-v4", "*-*-*-*-*-*-*-*-*x"]},
        {"component": "nobody"},
        {"component": "bystander"},
        {"component": "*", "level": "ERROR"},
        {"component": "hostile", "data": {"a": list(range(300))}},
        {"data": {"filling": "y"}},
        {"last": 20, "component": "one-by-one*"},
    )
    arguments = {**rng.choice(filters), "wait_s": rng.choice((0.5, 5.0, 20.0))}
    async with visitor.websocket() as socket:
        for _ in range(rng.randint(1, ROUNDS_MAX)):
            if rng.random() < 0.1:
                await socket.send(call("logger_tail", orjson.dumps(arguments)))
                await trio.sleep(rng.uniform(0, 1))
                visitor.count("left")
                return
            answer = await visitor.ask(socket, "logger_tail", orjson.dumps(arguments))
            if answer is None:
                return
            arguments = {**arguments, "cursor": answer["cursor"]}
            arguments.pop("last", None)
            await trio.sleep(visitor.crowd.pace)


async def ask_much(visitor: Visitor) -> None:
    """Ask several things at once that take long; take some of them back, or leave."""
    rng = visitor.rng
    questions: tuple[dict[str, Any], ...] = (
        {"data_path": HEAVY_PATH},
        {"data_path": "$.**.**"},
        {"data_path": '$.** ? (@ like_regex "(a*)*(b*)*c")'},
        {"contains": "nowhere to be found"},
        {"contains": "x", "limit": 1000, "max_bytes": 900_000},
        {"search": " or ".join(f"w{number}" for number in range(300)), "limit": 1000},
        {"data": {"a": [[[]]] * 200}},
        {"limit": 1000, "order": "oldest", "max_bytes": 900_000},
        {"component": ["*" + "a*" * 100] * 50},
        {"search": fill(b"word ", visitor.crowd.max_message_bytes // 4).decode()},
    )
    asked = rng.randint(1, 8)
    async with visitor.websocket() as socket:
        for number in range(asked):
            tool = rng.choice(("logger_query",) * 8 + ("logger_stats", "logger_tail"))
            await socket.send(call(tool, orjson.dumps(rng.choice(questions) if tool == "logger_query" else {}), number))
        for number in range(asked):
            if rng.random() < 0.5:
                await trio.sleep(rng.uniform(0, 0.5))
                await socket.send(
                    b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%d}}' % number
                )
                visitor.count("cancelled")
            elif rng.random() < 0.3:
                visitor.count("left")
                return
            else:
                # Of one that was cancelled there is no answer.
                with trio.move_on_after(20):
                    await visitor.outcome(socket)


KINDS: Final = (
    Kind("followers", follow, clients="followers", patience_s=ROUNDS_MAX * 40.0),
    Kind("expensive queries", ask_much, pause_s=4.0, clients=3),
)
