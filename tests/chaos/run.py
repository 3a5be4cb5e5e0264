"""A run: start everything, let storms of faults pass over it under load, wait until it is calm, and compare."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, Final

import attrs
import orjson
import redis as redis_client
import trio
from trio_websocket import ConnectionClosed, HandshakeError
from wsproto.utilities import ProtocolError

from tests.chaos.clients import MANNERS, Load
from tests.chaos.faults import Dealer, Recovery, Storms
from tests.chaos.hostile import KINDS, Crew
from tests.chaos.hostile.crew import Crowd
from tests.chaos.ledger import Ledger, Verdict
from tests.chaos.probe import Probe, Record
from tests.chaos.series import Series
from tests.chaos.system import System, running_system
from tests.programs import CallFault, Queue, Workplace, connect, until

DRY_S: Final = 120.0
"""Within this time after a storm everything has to be stored. The longest pause of the sender is 30 s."""

ACK_S: Final = 60.0
"""Within this time after a storm every call has to be acknowledged."""

SAMPLE_S: Final = 0.25
PROGRESS_S: Final = 10.0
LAGS_MAX: Final = 5
"""Calls that kept an event loop, which the report names for each program."""

MEMORY_S: Final = 1.0
MEMORY_MAX_MIB: Final = 1536
"""Of each program, whatever is done to it. Three times 128 MiB may be in flight (`GODOT_MAX_BYTES_IN_FLIGHT`), and what
is being parsed takes several times its bytes."""


@attrs.frozen
class Plan:
    """What is to be done; the same seed gives the same faults at the same instants.

    :param storms: how many storms; after each one the load pauses until the queue is dry.
    :param storm_s: how long each one takes, and
    :param calm_s: how long after its last fault the load goes on.
    :param faults: in each storm.
    :param rate: entries a second, of all clients together, while nothing holds them up.
    :param longest_hole_s: of the black holes.
    :param crowd: the hostile clients; None for a run without them.
    :param silence_s: the longest time that the bystander may hear nothing, outside of faults.
    """

    seed: int
    storms: int
    storm_s: float
    calm_s: float
    faults: int
    rate: float
    longest_hole_s: float
    daemons: int = 1
    crowd: Crowd | None = None
    silence_s: float = 5.0

    @classmethod
    def of_seconds(
        cls, seconds: float, *, seed: int, rate: float, daemons: int = 1, crowd: Crowd | None = None
    ) -> Plan:
        """Divide a time into storms of half a minute and more, with a fault every 2 s."""
        storms = max(1, round(seconds / 60))
        storm_s = max(10.0, seconds / storms - CALM_S)
        return cls(
            seed=seed,
            storms=storms,
            storm_s=storm_s,
            calm_s=CALM_S,
            faults=max(4, round(storm_s / 2)),
            rate=rate,
            longest_hole_s=20.0,
            daemons=daemons,
            crowd=crowd,
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
    probe: Probe
    crew: Crew | None
    series: Sequence[Series]
    starts: dict[str, tuple[int, float]]
    """By program: how often it was started, and the longest time that it took until it was ready."""
    lags: dict[str, dict[str, list[float]]]
    """By program: see `Service.lags`."""
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
        yield f"dead, dropped   {self.counts['dead']} ({len(self.verdict.buried)} hostile), {self.counts['dropped']}"
        yield f"equation        held in {self.samples} samples; at the end {self.counts}"
        yield (
            f"recovery        first acknowledgement {self.recovery.first_ack_s:.1f} s, "
            f"every client {self.recovery.all_acks_s:.1f} s, backlog stored {self.longest_backlog_s:.1f} s "
            f"(the longest of {self.recovery.measured} and {self.plan.storms})"
        )
        for name, (times, slowest) in self.starts.items():
            yield f"starts          {name}: {times}, ready after {slowest:.2f} s at the longest"
        yield from self.probe.lines()
        if self.crew is not None:
            yield from self.crew.lines()
        for series in self.series:
            yield f"memory          {series.peak()}"
        for name, lags in self.lags.items():
            for call, seconds in sorted(lags.items(), key=lambda each: max(each[1]), reverse=True)[:LAGS_MAX]:
                longest = f"{max(seconds):.1f} s at the longest"
                yield f"loop lag        {name}: {len(seconds)} times, {longest}, in {call:.100}"
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
        if status["dropped"]:
            self.problems.append(f"entries were dropped: {status}")


async def run_chaos(place: Workplace, plan: Plan, tell: Callable[[str], None]) -> Report:
    """Carry a plan out, and report. Every process is gone when this returns.

    :param tell: gets a line now and then.
    """
    began = trio.current_time()
    rng = random.Random(plan.seed)
    dealer = Dealer(random.Random(rng.random()), longest_s=plan.longest_hole_s, daemons=plan.daemons)
    recovery = Recovery(frozenset(manner.name for manner in MANNERS))
    ledger = Ledger()

    def say(text: str) -> None:
        tell(f"{trio.current_time() - began:7.1f} s  {text}")

    settings = {} if plan.crowd is None else plan.crowd.settings
    async with running_system(place, random.Random(rng.random()), daemons=plan.daemons, **settings) as system:
        load = Load(plan.rate, ledger, system.client_urls, recovery.acknowledged)
        watch = Watch(system)
        storms = Storms(system, recovery, say)
        crew = None if plan.crowd is None else Crew(system.daemons[0], plan.crowd, ledger, KINDS)

        probe = Probe(system.daemons[0], storms, ledger, Record(plan.silence_s), partial(_tell_silence, say, crew))
        series = [Series(name) for name in ("godot", "dewey", "redis")]
        async with trio.open_nursery() as watchers:
            watchers.start_soon(watch.run)
            watchers.start_soon(_sample, system, series)
            watchers.start_soon(_tell_progress, say, ledger, storms, watch, probe)
            if crew is not None:
                watchers.start_soon(crew.run, random.Random(rng.random()), load.permit)
            with _telling_why(tell, probe, crew, series):
                async with trio.open_nursery() as clients:
                    clients.start_soon(load.run, random.Random(rng.random()))
                    clients.start_soon(probe.run, load.going_on)
                    longest_backlog = max(
                        [await _storm(plan, n, dealer, storms, load, say) for n in range(plan.storms)]
                    )
                    load.stop()
            watchers.cancel_scope.cancel()
        counts, verdict, problems = await _compare(system, ledger)
    problems += [*watch.problems, *load.surprises, *probe.record.problems(), *system.problems()]
    problems += [problem for each in series for problem in each.over(MEMORY_MAX_MIB)]
    return Report(
        plan=plan,
        faults=storms.done,
        recovery=recovery,
        verdict=verdict,
        ledger=ledger,
        load=load,
        longest_backlog_s=longest_backlog,
        samples=watch.samples,
        seconds=trio.current_time() - began,
        counts=counts,
        probe=probe,
        crew=crew,
        series=series,
        starts={service.name: (service.starts, service.slowest_start) for service in system.services},
        lags={service.name: service.lags for service in system.services},
        problems=problems,
    )


@contextmanager
def _telling_why(
    tell: Callable[[str], None], probe: Probe, crew: Crew | None, series: Sequence[Series]
) -> Iterator[None]:
    """Tell what is known when the run ends before its time: it may say why."""
    try:
        yield
    except BaseException:
        for line in (*probe.lines(), *([] if crew is None else crew.lines()), *map(Series.peak, series)):
            tell(line)
        raise


async def _compare(system: System, ledger: Ledger) -> tuple[dict[str, int], Verdict, list[str]]:
    """Wait until all is stored; return the counts, what the comparison of ids says, and what is wrong with them."""
    await until(partial(is_dry, system), DRY_S)  # the bystander was the last to leave
    counts = await until(partial(_counts, system), DRY_S)
    verdict = await trio.to_thread.run_sync(ledger.compare, system.postgres.url, _dead(system))
    problems = list(verdict.problems())
    if counts["received"] != sum(value for name, value in counts.items() if name != "received"):
        problems.append(f"the sum is wrong at the end: {counts}")
    if counts["stored"] + len(verdict.buried) < ledger.entries:
        problems.append(f"fewer stored than acknowledged: {counts}")
    return counts, verdict, problems


async def _storm(
    plan: Plan, number: int, dealer: Dealer, storms: Storms, load: Load, say: Callable[[str], None]
) -> float:
    """Let a storm pass; return how long it took until all was stored that had been received at its end.

    Returns when the load pauses and the buffer is dry.
    """
    say(f"storm {number + 1} of {plan.storms}")
    load.resume()
    ended = trio.current_time() + plan.storm_s
    await storms.run(dealer.storm(plan.faults, plan.storm_s))
    await trio.sleep_until(ended)  # there may be no fault in it
    waiting = (await until(partial(_counts, storms.system), DRY_S))["received"]
    await until(partial(_has_stored, storms.system, waiting), DRY_S)
    backlog_s = trio.current_time() - ended
    await trio.sleep_until(ended + plan.calm_s)
    load.pause()
    await until(lambda: load.idle, ACK_S)
    await until(partial(is_dry, storms.system), DRY_S)
    say(f"{backlog_s:.1f} s after the storm all that waited then was stored")
    return backlog_s


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
    counts = _counts(system)
    return counts.get("stored", 0) + counts.get("dead", 0) >= entries


def _dead(system: System) -> list[str]:
    """Return the ids of the entries that could not be stored."""
    with closing(Queue.at(system.redis.url)) as queue:
        graves = queue.client.lrange(f"{queue.name}:dead", 0, -1)
    return [orjson.loads(orjson.loads(grave)["entry"])["id"] for grave in graves]


def is_dry(system: System) -> bool:
    """Whether all that was ever pushed has left the buffer."""
    counts = _counts(system)
    return bool(counts) and not counts["queued"] and not counts["in_flight"]


async def _sample(system: System, series: Sequence[Series]) -> None:
    while True:
        for each in series:
            # Not what Redis forks to write its log anew: it shares the memory.
            each.take(trio.current_time(), system.pids(each.name)[:1])
        await trio.sleep(MEMORY_S)


def _tell_silence(say: Callable[[str], None], crew: Crew | None) -> None:
    busy = "" if crew is None else ", ".join(f"{name} {n}" for name, n in crew.busy.items() if n)
    say(f"the bystander is not answered; hostile clients meanwhile: {busy}")


async def _tell_progress(
    say: Callable[[str], None], ledger: Ledger, storms: Storms, watch: Watch, probe: Probe
) -> None:
    while True:
        await trio.sleep(PROGRESS_S)
        latest = watch.latest
        say(
            f"acknowledged {ledger.entries}, faults {storms.done.total()}, stored {latest.get('stored')}, "
            f"queued {latest.get('queued')}, in flight {latest.get('in_flight')}, dewey {latest.get('dewey')}, "
            f"bystander {len(probe.record.acknowledged)} acknowledged, {probe.record.unanswered} unanswered"
        )
