"""What Prometheus scrapes from Godot (OBS-001). All metrics are declared here, by its naming rules.

Counts that change with every entry are kept in plain dictionaries, and become samples at a scrape. Totals that have to
agree with the database over restarts are those that Redis keeps.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from prometheus_client import Histogram
from prometheus_client.metrics_core import InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from godot import __version__
from godot.buffer.protocol import Counts, DeadEntry, Queue, Taken
from godot.errors import BatchRefused, BufferUnavailable, DeweyUnavailable
from godot.json.text import NotJSON, loads
from godot.json.weight import weigh
from godot.mcp.heavy import off_the_loop
from godot.mcp.toolbox import Answer
from godot.pipeline.dewey import Dewey
from godot.pipeline.status import Status
from godot.service.exposition import SECONDS, Declared, Registry, Values, families
from godot.service.lines import lines_dropped
from godot.toolnames import TAIL

COMPONENTS_MAX: Final = 200
"""Components with series of their own; names come from outside, and each series costs the scraper. All others are
`other`."""

BATCH_SIZES: Final = (1, 5, 10, 25, 50, 100, 250, 500, 1_000)

COUNTERS: Final[Declared] = {
    "godot_entries_accepted": ("Entries taken in over MCP and HTTP, since the start.", ["component", "level"]),
    "godot_entries_received": ("Entries that reached the queue, over all runs.", []),
    "godot_entries_stored": ("Entries that Dewey has stored, over all runs.", []),
    "godot_entries_dropped": ("Entries that were dropped, over all runs.", ["reason"]),
    "godot_dead_forgotten": ("Entries put aside that are not kept any more, over all runs.", []),
    "godot_entries_refused": ("Entries not accepted as Redis took nothing, since the start.", []),
    "godot_entries_unconfirmed": ("Durable entries whose callers were told that Redis was late, since the start.", []),
    "godot_entries_filtered": ("Entries below the level of their component, since the start.", []),
    "godot_peers_refused": ("Connections and calls refused for who made them, since the start.", []),
    "godot_lines_dropped": ("Lines for the operator lost as nobody read them, since the start.", []),
    "godot_flush_failures": ("Writes to Redis that failed; each is tried again.", []),
    "godot_store_failures": ("Deliveries to Dewey that failed; each is tried again.", ["reason"]),
}

GAUGES: Final[Declared] = {
    "godot_queue_entries": ("Entries that wait in Redis.", []),
    "godot_queue_bytes": ("Bytes of the entries that wait in Redis.", []),
    "godot_redis_durable": ("Whether what Redis acknowledges is on disk and stays there (1) or not (0).", []),
    "godot_queue_oldest_age_seconds": ("Age of the oldest entry that waits; 0 when none does.", []),
    "godot_in_flight_entries": ("Entries on their way to Dewey.", []),
    "godot_channel_entries": ("Entries accepted and not yet in Redis.", []),
    "godot_dead_entries": ("Entries that could not be stored and are put aside.", []),
    "godot_connections": ("WebSocket connections.", []),
    "godot_bytes_in_flight": (
        "Bytes of messages not yet answered (received), of answers not yet read (answers), of HTTP bodies (http).",
        ["kind"],
    ),
    "godot_followers": (f"Calls of {TAIL} under way.", []),
    "godot_dependency_up": (
        "Whether redis and dewey do what they are asked (1) or not (0).",
        ["dependency"],
    ),
    "godot_component_last_seen_timestamp_seconds": ("When a component logged last.", ["component"]),
}

HISTOGRAMS: Final[Mapping[str, tuple[str, Sequence[str], Sequence[float]]]] = {
    "godot_batch_entries": ("Entries of a batch that is written to Redis.", [], BATCH_SIZES),
    "godot_flush_duration_seconds": ("How long a batch took to be on disk in Redis.", [], SECONDS),
    "godot_store_duration_seconds": ("How long a batch took to be stored by Dewey.", [], SECONDS),
    "godot_query_duration_seconds": ("How long Dewey took to answer a question.", ["tool"], SECONDS),
}


class Metrics(Collector):
    """Everything that Godot counts.

    :param registry: which others may share: Dewey's, when it runs inside.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.status: Status | None = None
        self.counts = Counts()
        self.oldest_age_s = 0.0
        self.connections = 0
        self.bytes_in_flight: Mapping[str, int] = {}
        self.channel = 0
        self.flush_failures = 0
        self.store_failures: Counter[str] = Counter({"unavailable": 0, "refused": 0})
        self._accepted: dict[tuple[str, ...], float] = {}
        self._last_seen: dict[str, float] = {}
        made = {
            name: Histogram(name, text, labels, buckets=buckets, registry=registry)
            for name, (text, labels, buckets) in HISTOGRAMS.items()
        }
        self.batch_entries = made["godot_batch_entries"]
        self.flush_s = made["godot_flush_duration_seconds"]
        self.store_s = made["godot_store_duration_seconds"]
        self.query_s = made["godot_query_duration_seconds"]
        registry.register(self)

    def accepted(self, component: str, level: str) -> None:
        """Count an entry that was taken in. Called for every entry."""
        if component not in self._last_seen and len(self._last_seen) >= COMPONENTS_MAX:
            component = "other"
        self._last_seen[component] = time.time()
        key = component, level
        self._accepted[key] = self._accepted.get(key, 0) + 1

    async def refresh(self, status: Status, buffer: Queue) -> None:
        """Ask Redis for what a scrape shows; it may be away."""
        self.status = status
        await status.snapshot()
        self.counts = status.counts
        try:
            oldest = await buffer.oldest()
        except BufferUnavailable:
            return
        if oldest is None:
            self.oldest_age_s = 0.0
        else:
            self.oldest_age_s = max(0.0, time.time() - await off_the_loop(weigh(oldest), _created_at, oldest))

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the metrics are known when they are collected."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Yield what is counted here."""
        yield InfoMetricFamily("godot_build", "Which Godot this is.", {"version": __version__})
        yield from families(COUNTERS, GAUGES, self._values())

    def _values(self) -> Values:
        status, counts = self.status, self.counts
        return {
            "godot_entries_accepted": self._accepted,
            "godot_entries_received": {(): counts.received},
            "godot_entries_stored": {(): counts.stored},
            "godot_entries_dropped": {
                ("queue_full",): counts.dropped - counts.dropped_for_bytes - counts.vanished,
                ("queue_full_bytes",): counts.dropped_for_bytes,
                ("vanished",): counts.vanished,
            },
            "godot_dead_forgotten": {(): counts.dead_forgotten},
            "godot_entries_refused": {(): status.refused if status else 0},
            "godot_entries_unconfirmed": {(): status.unconfirmed if status else 0},
            "godot_entries_filtered": {(): status.filtered if status else 0},
            "godot_peers_refused": {(): status.refused_peers if status else 0},
            "godot_lines_dropped": {(): lines_dropped()},
            "godot_flush_failures": {(): self.flush_failures},
            "godot_store_failures": {(reason,): count for reason, count in self.store_failures.items()},
            "godot_queue_entries": {(): counts.queued},
            "godot_queue_bytes": {(): counts.queued_bytes},
            "godot_redis_durable": _known({(): status.durable if status else None}),
            "godot_queue_oldest_age_seconds": {(): self.oldest_age_s},
            "godot_in_flight_entries": {(): counts.in_flight},
            "godot_channel_entries": {(): self.channel},
            "godot_dead_entries": {(): counts.dead},
            "godot_connections": {(): self.connections},
            "godot_bytes_in_flight": {(kind,): size for kind, size in self.bytes_in_flight.items()},
            "godot_followers": {(): status.followers if status else 0},
            "godot_dependency_up": _known({("redis",): status.redis_up, ("dewey",): status.dewey_up} if status else {}),
            "godot_component_last_seen_timestamp_seconds": {
                (component,): seen for component, seen in self._last_seen.items()
            },
        }


class MeasuredBuffer:
    """A buffer whose pushes are measured."""

    def __init__(self, buffer: Queue, metrics: Metrics) -> None:
        self._buffer, self._metrics = buffer, metrics

    async def push(self, entries: Sequence[bytes]) -> Counts:
        """See `Queue.push`."""
        began = time.perf_counter()
        try:
            counts = await self._buffer.push(entries)
        except BufferUnavailable:
            self._metrics.flush_failures += 1
            raise
        self._metrics.flush_s.observe(time.perf_counter() - began)
        self._metrics.batch_entries.observe(len(entries))
        return counts

    async def take(self, limit: int) -> Taken:
        """See `Queue.take`."""
        return await self._buffer.take(limit)

    async def settle(self, keep: Sequence[bytes] = (), dead: Sequence[DeadEntry] = ()) -> Counts:
        """See `Queue.settle`."""
        return await self._buffer.settle(keep, dead)

    async def hand_back(self) -> Counts:
        """See `Queue.hand_back`."""
        return await self._buffer.hand_back()

    async def counts(self) -> Counts:
        """See `Queue.counts`."""
        return await self._buffer.counts()

    async def oldest(self) -> bytes | None:
        """See `Queue.oldest`."""
        return await self._buffer.oldest()

    async def weakness(self) -> str | None:
        """See `Queue.weakness`."""
        return await self._buffer.weakness()


class MeasuredDewey:
    """A Dewey whose answers are measured."""

    def __init__(self, dewey: Dewey, metrics: Metrics) -> None:
        self._dewey, self._metrics = dewey, metrics

    async def store(self, entries: Sequence[bytes]) -> None:
        """See `Dewey.store`."""
        began = time.perf_counter()
        try:
            await self._dewey.store(entries)
        except DeweyUnavailable:
            self._metrics.store_failures["unavailable"] += 1
            raise
        except BatchRefused:
            self._metrics.store_failures["refused"] += 1
            raise
        if entries:
            self._metrics.store_s.observe(time.perf_counter() - began)

    async def ask(self, tool: str, arguments: Mapping[str, Any], *, wait_s: float = 0.0) -> Answer:
        """See `Dewey.ask`."""
        began = time.perf_counter()
        answer = await self._dewey.ask(tool, arguments, wait_s=wait_s)
        if not wait_s:
            self._metrics.query_s.labels(tool).observe(time.perf_counter() - began)
        return answer


def _known(states: Mapping[tuple[str, ...], bool | None]) -> dict[tuple[str, ...], float]:
    """Return the states that are known: a missing sample raises no alarm, and claims no health."""
    return {labels: float(state) for labels, state in states.items() if state is not None}


def _created_at(raw: bytes) -> float:
    """Return when an entry happened, in seconds since 1970; now, when it does not say."""
    try:
        return datetime.fromisoformat(loads(raw)["created_at"]).timestamp()
    except (NotJSON, LookupError, TypeError, ValueError):
        return time.time()
