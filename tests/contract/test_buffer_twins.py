"""The twins side by side: on any way they do the same."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import count
from typing import Any

import attrs
import pytest

from godot.buffer.protocol import (
    Counts,
    DeadEntry,
    Drops,
)
from tests.contract.buffers import Bench, MemoryBench, RedisBench, assert_balanced
from tests.programs import bounded


class Walk:
    """A random walk of a batcher, a sender and strangers."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.fresh = count()
        self.last: list[bytes] = []

    def new(self, most: int) -> list[bytes]:
        return [
            self.choose.choice((b"e%d", b'{"component":"a","message":"%d"}')) % next(self.fresh)
            + b" " * self.choose.choice((0, 0, 0, 0, 90, 90, 250, 450))
            for _ in range(self.choose.randint(1, most))
        ]

    def step(
        self, in_flight: Sequence[bytes], queued: int, dead: Sequence[DeadEntry], hole: bytes | None
    ) -> tuple[str, Any]:
        """Return what to do, and with what; the same for both twins."""
        match self.choose.choice(
            [
                "push",
                "push",
                "again",
                "take",
                "take",
                "done",
                "mend",
                "bury",
                "back",
                "in",
                "out",
                "retry",
                "purge",
                "hole",
                "told",
            ]
        ):
            case "push":
                self.last = self.new(8)
                return "push", (self.last,)
            case "again" if self.last:
                return "push", (self.last,)
            case "take":
                return "take", (self.choose.randint(1, 6),)
            case "done":
                return "settle", ()
            case "mend":
                return "settle", ([raw + b"'" for raw in in_flight],)
            case "bury":
                dying = [raw for raw in in_flight if self.choose.random() < 0.4]
                keep = [raw for raw in in_flight if raw not in dying]
                return "settle", (keep, [DeadEntry(raw, "no") for raw in dying])
            case "back":
                return "hand_back", ()
            case "in":
                return "stranger_pushes", tuple(self.new(3))
            case "retry" | "purge" as what:
                return what, ([each.id for each in dead if self.choose.random() < 0.4],)
            case "hole":
                return "hole", (as_bytes,)
            case "told" if hole:
                return "hole_told", (hole,)
            case "out" if queued:
                return "stranger_takes", (self.choose.randint(1, queued),)
        return "counts", ()


def as_bytes(drops: Drops) -> bytes:
    return repr(attrs.evolve(drops, components=dict(sorted(drops.components.items())))).encode()


@pytest.mark.parametrize("seed", range(8))
@bounded
async def test_the_twins_do_the_same_on_any_way_and_the_equation_holds_after_every_step(
    seed: int, redis_bench: RedisBench
) -> None:
    """REL-004, GOD-005: received = stored + queued + in flight + dropped + dead."""
    memory_bench = MemoryBench()
    max_bytes = (200, 900, 10_000)[seed % 3]
    benches: tuple[Bench, Bench] = (memory_bench, redis_bench)
    twins = [
        (each, each.make(max_size=20, max_bytes=max_bytes, dead_max_bytes=900, entry_max_bytes=400)) for each in benches
    ]
    walk = Walk(seed)
    in_flight: list[bytes] = []
    strange: set[bytes] = set()
    received = 0
    hole: bytes | None = None
    for _ in range(160):
        what, arguments = walk.step(in_flight, len(memory_bench.queue()), list(memory_bench.buffer.dead), hole)
        results: list[Any] = []
        for each, buffer in twins:
            if what.startswith("stranger"):
                getattr(each, what)(*arguments)
                strange.update(arguments if what == "stranger_pushes" else ())
                results.append(await buffer.counts())
            else:
                results.append(await getattr(buffer, what)(*arguments))
            if isinstance(results[-1], Counts):
                results[-1] = attrs.evolve(results[-1], began=0)
        assert results[0] == results[1], what
        if what == "take":
            in_flight = results[0].entries
            assert results[0].unchecked or strange.isdisjoint(in_flight)
        elif what == "settle":
            in_flight = list(arguments[0]) if arguments else []
        elif what == "hand_back":
            in_flight = []
        elif what == "hole":
            hole = results[0]
        counts = await twins[0][1].counts()
        assert counts == attrs.evolve(await twins[1][1].counts(), began=0)
        assert_balanced(counts)
        assert counts.in_flight == len(in_flight)
        if what == "push" and counts.received > received:  # a push again is none
            assert counts.queued <= 20
            assert counts.queued_bytes <= max_bytes
        received = counts.received
        assert memory_bench.queue() == redis_bench.queue()
    assert memory_bench.records() == redis_bench.records()
