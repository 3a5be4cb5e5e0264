"""Turns the metrics of a daemon into text for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Buckets of durations."""

Declared: TypeAlias = Mapping[str, tuple[str, Sequence[str]]]
"""Name (of a counter without _total) -> help, labels."""

Values: TypeAlias = Mapping[str, Mapping[tuple[str, ...], float]]
"""Name -> values of its labels -> value."""


def families(counters: Declared, gauges: Declared, values: Values) -> Iterator[Metric]:
    """Yield all declared metrics, with their values."""
    for kind, declared in ((CounterMetricFamily, counters), (GaugeMetricFamily, gauges)):
        for name, (text, labels) in declared.items():
            family = kind(name, text, labels=labels)
            for label_values, value in values[name].items():
                family.add_metric(label_values, value)
            yield family


class Registry(CollectorRegistry):
    """The metrics of a daemon. One that fails leaves the others intact: without any, the daemon would look dead."""

    def __init__(self) -> None:
        super().__init__()
        self._collectors: list[Collector] = []

    def register(self, collector: Collector) -> None:
        """See `CollectorRegistry.register`."""
        super().register(collector)
        self._collectors.append(collector)

    def expose(self, encode: Callable[[Collector], bytes], on_bug: Callable[[Exception], None]) -> bytes:
        """Return the text of all metrics that can be written.

        :param encode: writes the metrics of a collector; `choose_encoder` of prometheus_client returns it.
        :param on_bug: called with the error that kept a metric, or all of a collector, from being written.
        """

        @contextmanager
        def told() -> Iterator[None]:
            try:
                yield
            except Exception as exc:  # noqa: BLE001 - the other metrics are not affected
                on_bug(exc)

        end = encode(_Found([]))  # the end of the text, if it has one
        text = []
        for collector in self._collectors:
            with told():
                for metric in collector.collect():
                    with told():
                        text.append(encode(_Found([metric])).removesuffix(end))
        return b"".join(text) + end


class _Found(Collector):
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics
