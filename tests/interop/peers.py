"""One `godot up` for all these tests, and the programs that are run against it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from tests.interop import install

GODOT: Final = Path(sys.executable).parent / "godot"
START_S: Final = 60.0
STOP_S: Final = 30.0
PROGRAM_S: Final = 60.0
"""For a program that takes two seconds; a test machine may be busy."""


@pytest.fixture(scope="session")
def installed() -> Path:
    """Return `.interop/`, with what the lock files say in it (`make interop` puts it there)."""
    if not install.complete():
        install.install()
    return install.ROOT


@pytest.fixture(scope="session")
def godot() -> Iterator[str]:
    """Start Godot, yield its URL, stop it; it must not have met a bug of its own, and leaves no process."""
    directory = Path(tempfile.mkdtemp(prefix="godot-interop-"))
    directory.chmod(0o711)  # as root PostgreSQL runs as nobody, who has to get through
    complaints = directory / "stderr"
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("GODOT_", "DEWEY_"))}
    with complaints.open("wb") as stderr:
        process = subprocess.Popen(
            [GODOT, "up", "--data-dir", directory / "data", "--port", "0", "--http-port", "0"],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=ours,
            text=True,
            start_new_session=True,
        )
    assert process.stdout is not None
    late = threading.Timer(START_S, process.kill)
    late.start()
    ready = process.stdout.readline()
    late.cancel()
    try:
        assert ready.startswith("ready mcp="), f"godot up said {ready!r} and {complaints.read_text()}"
        yield ready.split()[1].removeprefix("mcp=")
    finally:
        process.terminate()
        try:
            said, _ = process.communicate(timeout=STOP_S)
        finally:
            left = _kill_the_rest(process.pid)
        shutil.rmtree(directory, ignore_errors=True)
    assert process.returncode == 0
    assert not left, "godot up ended and left processes behind"
    assert "event=bug" not in said, said


def _kill_the_rest(group: int) -> bool:
    """Kill what is left of a process group; return whether there was anything."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


async def run(command: Sequence[str | Path], directory: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, which is within `PROGRAM_S`."""
    cache = {"NODE_COMPILE_CACHE": str(install.ROOT / "node-compile-cache")}
    with trio.fail_after(PROGRAM_S):
        return await trio.run_process(
            command,
            cwd=directory,
            env={**os.environ, **cache},
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )


async def report(command: Sequence[str | Path], directory: Path) -> dict[str, Any]:
    """Run a program that ends well and prints one JSON object; return that."""
    ended = await run(command, directory)
    assert ended.returncode == 0, ended.stderr.decode()
    said = json.loads(ended.stdout)
    assert isinstance(said, dict)
    return said
