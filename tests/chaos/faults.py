"""What is done to the system: kinds of faults, the plan that a seed gives, and the carrying out of it."""

from __future__ import annotations

import math
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import attrgetter
from typing import Final

import attrs
import trio

from tests.chaos.system import System

PARTS: Final = ("godot", "redis", "postgres", "dewey")
LINKS: Final = ("client", "redis", "dewey", "postgres")

OUTAGES: Final = ("redis", "dewey", "postgres")

STOP_MAX_S: Final = 5.0
"""For so long a process is suspended, at the longest."""

LONG_SHARE: Final = 0.1
"""How many of the black holes are as long as is allowed; the others are as short as a suspension."""


@attrs.frozen
class Fault:
    """One thing that is done.

    :param at: seconds after the beginning of its storm.
    :param kind: `kill`, `stop` (SIGSTOP), `term`, `delay`, `cut` or `hole`.
    :param target: a part of the system, or a link.
    :param duration_s: 0 for what happens in an instant.
    :param dice: a number from 0 to 1, for what else is to be decided.
    """

    at: float
    kind: str
    target: str
    duration_s: float
    dice: float

    def __str__(self) -> str:
        return f"{self.kind} {self.target}" + (f" {self.duration_s:.1f} s" if self.duration_s else "")


KINDS: Final = (
    *(("kill", part) for part in PARTS),
    *(("stop", part) for part in PARTS),
    ("term", "godot"),
    *((kind, link) for kind in ("delay", "cut", "hole") for link in LINKS),
)


class Dealer:
    """Deals the kinds like a shuffled pack of cards: each one comes up once before any comes up again."""

    def __init__(self, rng: random.Random, *, longest_s: float, daemons: int = 1) -> None:
        self._rng, self._longest_s, self._daemons = rng, longest_s, daemons
        self._pack: list[tuple[str, str]] = []

    def storm(self, faults: int, duration_s: float) -> list[Fault]:
        """Return a plan: so many faults, the last of which is over by the end.

        That one is the longest outage that there may be, so that there is something to recover from.
        """
        if not faults:
            return []
        moments = sorted(self._rng.uniform(0, duration_s) for _ in range(faults - 1))
        dealt = [self._deal(at, duration_s) for at in moments]
        last_s = min(self._longest_s, duration_s)
        outage = Fault(duration_s - last_s, "hole", self._rng.choice(OUTAGES), last_s, 0.0)
        return sorted((*dealt, outage), key=attrgetter("at"))

    def _deal(self, at: float, end: float) -> Fault:
        if not self._pack:
            self._pack = self._rng.sample(KINDS, len(KINDS))
        kind, target = self._pack.pop()
        longest = self._longest_s if kind == "hole" and self._rng.random() < LONG_SHARE else STOP_MAX_S
        duration = 0.0 if kind in ("kill", "term", "cut") else min(self._rng.uniform(0.3, longest), end - at)
        number = self._rng.randint(1, self._daemons)
        if target in ("godot", "client") and number > 1:
            target += str(number)
        return Fault(at, kind, target, duration, self._rng.random())


@attrs.define(eq=False)
class Recovery:
    """How long it takes after the last of the faults that go on until things work again."""

    clients: frozenset[str]
    active: int = 0
    first_ack_s: float = 0.0
    """The longest time until a client was acknowledged."""
    all_acks_s: float = 0.0
    """The longest time until every client was."""
    measured: int = 0
    """How often there was no other fault before the first acknowledgement."""
    _ended: float = -math.inf
    _waiting: set[str] = attrs.Factory(set)

    @contextmanager
    def fault(self) -> Iterator[None]:
        """Enter when a fault begins, leave when it ends."""
        self.active += 1
        self._waiting.clear()
        try:
            yield
        finally:
            self.active -= 1
            if not self.active:
                self._ended = trio.current_time()
                self._waiting = set(self.clients)

    def acknowledged(self, client: str) -> None:
        """Take note of an acknowledgement."""
        if client in self._waiting:
            since = trio.current_time() - self._ended
            if len(self._waiting) == len(self.clients):
                self.measured += 1
                self.first_ack_s = max(self.first_ack_s, since)
            self._waiting.discard(client)
            if not self._waiting:
                self.all_acks_s = max(self.all_acks_s, since)


@attrs.define(eq=False)
class Storms:
    """Carries plans out."""

    system: System
    recovery: Recovery
    tell: Callable[[str], None]
    done: Counter[str] = attrs.Factory(Counter)
    """By kind and target, what found something to be done to."""
    _active: Counter[str] = attrs.Factory(Counter)
    _ended: dict[str, float] = attrs.Factory(dict)

    def disturbed(self, targets: Sequence[str]) -> float:
        """Return when the last fault of one of these targets ended; now, while there is one."""
        if any(self._active[target] for target in targets):
            return trio.current_time()
        return max((self._ended[target] for target in targets if target in self._ended), default=-math.inf)

    async def run(self, plan: Sequence[Fault]) -> None:
        """Return when all of it has happened and is over."""
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for fault in plan:
                await trio.sleep_until(began + fault.at)
                nursery.start_soon(self._inflict, fault, name=str(fault))

    async def _inflict(self, fault: Fault) -> None:
        self.tell(str(fault))
        with self.recovery.fault(), self._noted(fault.target):
            if fault.kind in ("kill", "stop", "term"):
                await self._signal(fault)
                return
            link = self.system.links[fault.target]
            self._count(fault)
            if fault.kind == "delay":
                await link.delay(0.02 + 0.4 * fault.dice, fault.duration_s)
            elif fault.kind == "cut":
                await link.cut()
            else:
                await link.black_hole(fault.duration_s)

    async def _signal(self, fault: Fault) -> None:
        pids = self.system.pids(fault.target)
        if not pids:
            return  # it is just being started again, after another fault
        self._count(fault)
        services = [service for service in self.system.services if service.name == fault.target]
        if fault.kind == "stop":
            _send(signal.SIGSTOP, pids)
            try:
                await trio.sleep(fault.duration_s)
            finally:
                _send(signal.SIGCONT, pids)
        elif services:
            services[0].send(signal.SIGKILL if fault.kind == "kill" else signal.SIGTERM)
        elif fault.dice < 0.5:
            _send(signal.SIGKILL, pids[:1])  # the server, whose children notice it
        elif fault.dice < 0.75:
            _send(signal.SIGKILL, pids)
        else:
            _send(signal.SIGKILL, pids[-1:])  # one that serves a client: PostgreSQL starts all others anew

    @contextmanager
    def _noted(self, target: str) -> Iterator[None]:
        self._active[target] += 1
        try:
            yield
        finally:
            self._active[target] -= 1
            self._ended[target] = trio.current_time()

    def _count(self, fault: Fault) -> None:
        self.done[f"{fault.kind} {fault.target}"] += 1


def _send(number: signal.Signals, pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
