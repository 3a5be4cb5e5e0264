"""Embedded servers, and a directory that they may work in."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from godot.embedded import (
    EmbeddedServer,
    places,
)
from godot.embedded.processes import processes_in
from tests.integration.embedded_servers import (
    SERVERS,
    Told,
)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that everyone can reach, with one for root's state in it; afterwards no server works in it."""
    path = Path(tempfile.mkdtemp(prefix="godot-test-")).resolve()
    path.chmod(0o711)
    monkeypatch.setattr(places, "STATE_ROOT", path / "state")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    yield path
    left = processes_in(path, SERVERS)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(path)
    assert not left


@pytest.fixture(params=["redis", "postgres"])
def make(request: pytest.FixtureRequest, told: Told) -> Callable[[Path], EmbeddedServer]:
    """Make a server of each of the two kinds."""
    makers: dict[str, Callable[[Path], EmbeddedServer]] = {"redis": told.redis, "postgres": told.postgres}
    return makers[request.param]
