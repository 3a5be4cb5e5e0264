"""A run: start everything, let storms of faults pass over it under load, wait until it is calm, and compare."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any, Final

import attrs
import redis as redis_client
import trio
from trio_websocket import ConnectionClosed, HandshakeError
from wsproto.utilities import ProtocolError

from tests.acceptance.programs import CallFault, Queue, Workplace, connect, until
from tests.chaos.clients import MANNERS, Load
from tests.chaos.faults import Dealer, Recovery, Storms
from tests.chaos.ledger import Ledger, Verdict
from tests.chaos.system import System, running_system

DRY_S: Final = 120.0
"""Within this time after a storm everything has to be stored. The longest pause of the sender is 30 s."""

ACK_S: Final = 60.0
"""Within this time after a storm every call has to be acknowledged."""

SAMPLE_S: Final = 0.25
PROGRESS_S: Final = 10.0


@attrs.frozen
class Plan:
    """What is to be done; the same seed gives the same faults at the same instants.

    :param storms: how many storms; after each one the load pauses until the queue is dry.
    :param storm_s: how long each one takes, and
    :param calm_s: how long after its last fault the load goes on.
    :param faults: in each storm.
    :param rate: entries a second, of all clients together, while nothing holds them up.
    :param longest_hole_s: of the black holes.
    """

    seed: int
    storms: int
    storm_s: float
    calm_s: float
    faults: int
    rate: float
    longest_hole_s: float
    daemons: int = 1

    @classmethod
    def of_seconds(cls, seconds: float, *, seed: int, rate: float, daemons: int = 1) -> Plan:
        """Divide a time into storms of half a minute and more, with a fault every 2 s."""
        storms = max(1, round(seconds / 60))
        storm_s = max(10.0, seconds / storms - CALM_S)
        return cls(
            seed, storms, storm_s, CALM_S, max(4, round(storm_s / 2)), rate, longest_hole_s=20.0, daemons=daemons
        )


CALM_S: Final = 6.0


@attrs.define(eq=False)
class Report:
    """What came of a run."""

    plan: Plan
    faults: Counter[str]
    recovery: Recovery
    verdict: Verdict
    ledger: Ledger
    load: Load
    longest_backlog_s: float
    samples: int
    seconds: float
    counts: dict[str, int]
    starts: dict[str, tuple[int, float]]
    """By program: how often it was started, and the longest time that it took until it was ready."""
    problems: list[str]

    def lines(self) -> Iterator[str]:
        """Yield the report."""
        kinds: Counter[str] = Counter()
        for name, times in self.faults.items():
            kinds[name.split()[0]] += times
        yield f"seed            {self.plan.seed}   (daemons: {self.plan.daemons})"
        yield f"seconds         {self.seconds:.0f}, {self.plan.storms} storms"
        yield f"entries         {self.ledger.entries} acknowledged"
        yield f"calls           {self.ledger.calls} acknowledged, of {self.ledger.tries} that were sent"
        yield f"faults          {self.faults.total()}: " + ", ".join(f"{each} {n}" for each, n in sorted(kinds.items()))
        for name, times in sorted(self.faults.items()):
            yield f"                {name}: {times}"
        yield f"stored          {self.verdict.stored}"
        yield f"lost            {len(self.verdict.lost)}"
        yield f"doubled         {len(self.verdict.doubled)}"
        yield f"order           {len(self.verdict.out_of_order)} out of order, of {self.verdict.in_order} compared"
        yield f"dead, dropped   {self.counts['dead']}, {self.counts['dropped']}"
        yield f"equation        held in {self.samples} samples; at the end {self.counts}"
        yield (
            f"recovery        first acknowledgement {self.recovery.first_ack_s:.1f} s, "
            f"every client {self.recovery.all_acks_s:.1f} s, backlog stored {self.longest_backlog_s:.1f} s "
            f"(the longest of {self.recovery.measured} and {self.plan.storms})"
        )
        for name, (times, slowest) in self.starts.items():
            yield f"starts          {name}: {times}, ready after {slowest:.2f} s at the longest"
        for reason, times in self.load.refusals.most_common():
            yield f"refused         {times} calls: {reason}…"
        for problem in self.problems:
            yield f"PROBLEM         {problem}"


class Watch:
    """Asks each daemon for its state, again and again, and checks the sum each time that it answers."""

    def __init__(self, system: System) -> None:
        self.samples = 0
        self.latest: dict[str, Any] = {}
        self.problems: list[str] = []
        self._system = system
        self._received = 0

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            for url in self._system.status_urls():
                await self._ask(url)
            await trio.sleep(SAMPLE_S)

    async def _ask(self, url: str) -> None:
        status = None
        try:
            with trio.move_on_after(3):
                async with connect(url) as peer:
                    status = await peer.call("logger_status")
        except* (OSError, trio.BrokenResourceError, ConnectionClosed, HandshakeError, ProtocolError, CallFault):
            pass  # it does not answer now
        if status is not None:
            self._check(status)

    def _check(self, status: dict[str, Any]) -> None:
        self.samples += 1
        parts = sum(status[part] for part in ("stored", "queued", "in_flight", "dropped", "dead"))
        if status["received"] != parts:
            self.problems.append(f"the sum is wrong: {status}")
        if status["redis"] == "up":  # else it tells what it last heard of
            if status["received"] < self._received:
                self.problems.append(f"received fell from {self._received}: {status}")
            self._received = status["received"]
            self.latest = status
        if status["dropped"] or status["dead"]:
            self.problems.append(f"entries were dropped or refused: {status}")


async def run_chaos(place: Workplace, plan: Plan, tell: Callable[[str], None]) -> Report:
    """Carry a plan out, and report. Every process is gone when this returns.

    :param tell: gets a line now and then.
    """
    began = trio.current_time()
    rng = random.Random(plan.seed)
    dealer = Dealer(random.Random(rng.random()), longest_s=plan.longest_hole_s, daemons=plan.daemons)
    recovery = Recovery(frozenset(manner.name for manner in MANNERS))
    ledger = Ledger()
    longest_backlog = 0.0

    def say(text: str) -> None:
        tell(f"{trio.current_time() - began:7.1f} s  {text}")

    async with running_system(place, random.Random(rng.random()), daemons=plan.daemons) as system:
        load = Load(plan.rate, ledger, system.client_urls, recovery.acknowledged)
        watch = Watch(system)
        storms = Storms(system, recovery, say)
        problems = watch.problems
        async with trio.open_nursery() as watchers:
            watchers.start_soon(watch.run)
            watchers.start_soon(_tell_progress, say, ledger, storms, watch)
            async with trio.open_nursery() as clients:
                clients.start_soon(load.run, random.Random(rng.random()))
                for number in range(plan.storms):
                    say(f"storm {number + 1} of {plan.storms}")
                    load.resume()
                    await storms.run(dealer.storm(plan.faults, plan.storm_s))
                    ended = trio.current_time()
                    waiting = (await until(partial(_counts, system), DRY_S))["received"]
                    await until(partial(_has_stored, system, waiting), DRY_S)
                    longest_backlog = max(longest_backlog, trio.current_time() - ended)
                    say(f"{trio.current_time() - ended:.1f} s after the storm all that waited then is stored")
                    await trio.sleep_until(ended + plan.calm_s)
                    load.pause()
                    await until(lambda: load.idle, ACK_S)
                    await until(partial(is_dry, system), DRY_S)
                load.stop()
            watchers.cancel_scope.cancel()
        counts = await until(partial(_counts, system), DRY_S)
        if counts["received"] != sum(value for name, value in counts.items() if name != "received"):
            problems.append(f"the sum is wrong at the end: {counts}")
        if counts["stored"] < ledger.entries:
            problems.append(f"fewer stored than acknowledged: {counts}")
        verdict = await trio.to_thread.run_sync(ledger.compare, system.postgres.url)
        problems += verdict.problems()
        problems += load.surprises
    problems += system.problems()
    seconds = trio.current_time() - began
    return Report(
        plan=plan,
        faults=storms.done,
        recovery=recovery,
        verdict=verdict,
        ledger=ledger,
        load=load,
        longest_backlog_s=longest_backlog,
        samples=watch.samples,
        seconds=seconds,
        counts=counts,
        starts={service.name: (service.starts, service.slowest_start) for service in system.services},
        problems=problems,
    )


def _counts(system: System) -> dict[str, int]:
    """Look into Redis, past everything else; {} when it does not answer."""
    try:
        with closing(Queue.at(system.redis.url)) as queue:
            counted = {name.decode(): value for name, value in queue.client.hgetall(f"{queue.name}:counts").items()}
            names = ("received", "stored", "in_flight", "dropped", "dead")
            return {**{name: int(counted.get(name, 0)) for name in names}, "queued": len(queue)}
    except redis_client.RedisError:
        return {}


def _has_stored(system: System, entries: int) -> bool:
    return _counts(system).get("stored", 0) >= entries


def is_dry(system: System) -> bool:
    """Whether all that was ever pushed has left the buffer."""
    counts = _counts(system)
    return bool(counts) and not counts["queued"] and not counts["in_flight"]


async def _tell_progress(say: Callable[[str], None], ledger: Ledger, storms: Storms, watch: Watch) -> None:
    while True:
        await trio.sleep(PROGRESS_S)
        latest = watch.latest
        say(
            f"acknowledged {ledger.entries}, faults {storms.done.total()}, stored {latest.get('stored')}, "
            f"queued {latest.get('queued')}, in flight {latest.get('in_flight')}, dewey {latest.get('dewey')}"
        )
