"""What is scraped: whatever names there are, and whatever fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from godot.pipeline.metrics import COMPONENTS_MAX, Metrics
from godot.service.exposition import Registry

Parse = Callable[[str], Iterable[Metric]]

BOTH = [
    pytest.param("text/plain", parse_text, id="text"),
    pytest.param("application/openmetrics-text", parse_openmetrics, id="openmetrics"),
]


class Failing(Collector):
    """Breaks off behind its first metric, which cannot be written either."""

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        broken = GaugeMetricFamily("broken", "Not UTF-8.", labels=["name"])
        broken.add_metric(["\ud800"], 1)
        yield broken
        yield GaugeMetricFamily("whole", "Behind it.", 1)
        raise RuntimeError("a bug")


def scraped(registry: Registry, accept: str, bugs: list[Exception]) -> str:
    encode, _ = choose_encoder(accept)
    return registry.expose(encode, bugs.append).decode()


@pytest.mark.parametrize(("accept", "parse"), BOTH)
def test_a_metric_that_cannot_be_written_takes_nothing_else_away(accept: str, parse: Parse) -> None:
    """OBS-001."""
    registry = Registry()
    registry.register(Failing())
    Metrics(registry)
    bugs: list[Exception] = []
    names = {family.name for family in parse(scraped(registry, accept, bugs))}
    assert {"whole", "godot_queue_entries", "godot_batch_entries"} <= names
    assert "broken" not in names
    assert [type(bug) for bug in bugs] == [UnicodeEncodeError, RuntimeError]


@pytest.mark.parametrize(("accept", "parse"), BOTH)
def test_a_scrape_names_every_component_as_it_is(accept: str, parse: Parse) -> None:
    """OBS-001: whatever is in a name, and however long and many they are."""
    names = ['a"b', "a\\b", "a\nb", "\r", "\u2028\x85", "\x1b[31m", "{a=b}", " ", "\\n", "\N{ROCKET}" * 255, "other"]
    registry = Registry()
    metrics = Metrics(registry)
    for name in [*names, *map(str, range(2 * COMPONENTS_MAX))]:
        metrics.accepted(name, "INFO")
    bugs: list[Exception] = []
    found: dict[str, Any] = {}
    for family in parse(scraped(registry, accept, bugs)):
        if family.name == "godot_component_last_seen_timestamp_seconds":
            found = {sample.labels["component"]: sample for sample in family.samples}
    assert bugs == []
    assert set(names) <= set(found)
    assert len(found) == COMPONENTS_MAX
