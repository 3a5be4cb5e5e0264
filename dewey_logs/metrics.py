"""What Prometheus scrapes from Dewey (OBS-001). All metrics are declared here, by its naming rules."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import attrs
from prometheus_client import Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dewey_logs.store.protocol import Stored
from godot.errors import StoreBusy, StoreFailed, StoreUnavailable
from godot.mcp.toolbox import Answer, Later, Tool
from godot.service.exposition import SECONDS, Declared, Registry, Values, families
from godot.service.lines import lines_dropped
from godot.toolnames import DEWEY_TAIL

COUNTERS: Final[Declared] = {
    "dewey_entries_stored": ("Entries that were new, since the start.", []),
    "dewey_entries_duplicate": ("Entries that were there already, since the start.", []),
    "dewey_lines_dropped": ("The same as godot_lines_dropped, of the process that Dewey runs in.", []),
    "dewey_database_errors": ("Calls that PostgreSQL failed, by class of SQLSTATE.", ["sqlstate_class"]),
}

GAUGES: Final[Declared] = {
    "dewey_database_up": ("Whether PostgreSQL answers (1) or not (0).", []),
    "dewey_partitions": ("Daily partitions that there are.", []),
    "dewey_followers": (f"Calls of {DEWEY_TAIL} under way.", []),
}

HISTOGRAMS: Final[Mapping[str, tuple[str, Sequence[str], Sequence[float]]]] = {
    "dewey_tool_duration_seconds": ("How long a tool took to answer.", ["tool", "outcome"], SECONDS),
}


class DeweyMetrics(Collector):
    """Everything that Dewey counts.

    :param on_change: called when the database goes up or down: whether it is up, and why it is not.
    """

    def __init__(
        self, registry: Registry, on_change: Callable[[bool, str], None] = lambda _is_up, _reason: None
    ) -> None:
        self.registry = registry
        self.partitions = 0
        self.database_up = True
        self._on_change = on_change
        self._stored = Stored(0, 0)
        self._followers = 0
        self._errors: Counter[str] = Counter()
        ((name, (text, labels, buckets)),) = HISTOGRAMS.items()
        self._tool_s = Histogram(name, text, labels, buckets=buckets, registry=registry)
        registry.register(self)

    def state(self) -> dict[str, Any]:
        """Return the state for a status line."""
        return {
            "stored": self._stored.stored,
            "duplicates": self._stored.duplicates,
            "followers": self._followers,
            "database": "up" if self.database_up else "down",
        }

    def _database(self, *, is_up: bool, reason: str = "") -> None:
        if is_up is not self.database_up:
            self.database_up = is_up
            self._on_change(is_up, reason)

    def stored(self, result: Stored) -> None:
        """Count a batch."""
        self._stored = Stored(self._stored.stored + result.stored, self._stored.duplicates + result.duplicates)

    def measured(self, tool: Tool) -> Tool:
        """Return a tool whose answers are measured. Of one that waits for entries, waiting calls are counted."""

        async def wait(arguments: Any) -> Answer | Later:
            self._followers += 1
            try:
                return await tool.run(arguments)
            finally:
                self._followers -= 1

        async def run(arguments: Any) -> Answer | Later:
            with self.measuring(tool.name):
                return await tool.run(arguments)

        return attrs.evolve(tool, run=wait if tool.name == DEWEY_TAIL else run)

    @contextmanager
    def measuring(self, name: str) -> Iterator[None]:
        """Measure a call, and learn from it whether the database answers.

        :param name: of the tool that is called, or whose place the call takes.
        """
        began = time.perf_counter()
        outcome = "refused"
        try:
            yield
            outcome = "ok"
            self._database(is_up=True)
        except StoreUnavailable as exc:
            outcome = "unavailable"
            self._errors[(getattr(exc.__cause__, "sqlstate", None) or "none")[:2]] += 1
            if not isinstance(exc, StoreBusy | StoreFailed):  # then it has answered
                self._database(is_up=False, reason=str(exc))
            raise
        finally:
            self._tool_s.labels(name, outcome).observe(time.perf_counter() - began)

    async def refresh(self, count_partitions: Callable[[], Awaitable[int]]) -> None:
        """Ask the database for the numbers of a scrape. It may be away."""
        try:
            self.partitions = await count_partitions()
            self._database(is_up=True)
        except StoreUnavailable as exc:
            self._database(is_up=False, reason=str(exc))

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what is collected is known only when it is."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Yield what is counted here."""
        values: Values = {
            "dewey_entries_stored": {(): self._stored.stored},
            "dewey_entries_duplicate": {(): self._stored.duplicates},
            "dewey_lines_dropped": {(): lines_dropped()},
            "dewey_database_errors": {(name,): count for name, count in self._errors.items()},
            "dewey_database_up": {(): float(self.database_up)},
            "dewey_partitions": {(): self.partitions},
            "dewey_followers": {(): self._followers},
        }
        yield from families(COUNTERS, GAUGES, values)
