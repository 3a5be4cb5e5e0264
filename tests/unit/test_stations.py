"""The stations, before they run."""

from __future__ import annotations

from dewey_logs.store.memory import MemoryStore
from dewey_logs.tools import DEFINITIONS, dewey_tools
from godot.buffer.memory import MemoryBuffer
from godot.mcp.access import Gate
from godot.mcp.toolbox import Toolbox
from godot.pipeline.dewey import DirectDewey
from godot.settings import GodotSettings
from godot.stations import Dependencies, build


def test_stations_are_built_where_nothing_can_wait_and_say_nothing_yet() -> None:
    lines: list[str] = []
    dewey = DirectDewey(Toolbox(dewey_tools(MemoryStore())))
    stations = build(GodotSettings(), Dependencies(MemoryBuffer(10), dewey, [], Gate(), DEFINITIONS, lines.append))
    assert stations.batcher.unwritten == 0
    assert not lines
