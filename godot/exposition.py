"""What the metrics of both daemons have in common: how a table of them becomes what Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Buckets of durations."""

Declared: TypeAlias = Mapping[str, tuple[str, Sequence[str]]]
"""Name (of a counter without _total) -> help, labels."""

Values: TypeAlias = Mapping[str, Mapping[tuple[str, ...], float]]
"""Name -> values of its labels -> value."""


def families(counters: Declared, gauges: Declared, values: Values) -> Iterator[Metric]:
    """Yield everything that is declared, with its values."""
    for kind, declared in ((CounterMetricFamily, counters), (GaugeMetricFamily, gauges)):
        for name, (text, labels) in declared.items():
            family = kind(name, text, labels=labels)
            for label_values, value in values[name].items():
                family.add_metric(label_values, value)
            yield family
