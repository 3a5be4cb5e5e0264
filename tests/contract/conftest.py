"""A real Redis for the contract tests: the oldest that is supported, with every write on disk."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from godot.embedded import find_redis


class RedisServer:
    """One redis-server on a unix socket, started and ended synchronously."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[str] | None = None
        self.url = f"unix://{directory}/s"

    def start(self) -> None:
        """Return when it takes connections."""
        self._process = subprocess.Popen(
            [
                str(find_redis()),
                *("--port", "0", "--unixsocket", f"{self._directory}/s", "--dir", str(self._directory)),
                *("--save", "", "--appendonly", "yes", "--appendfsync", "always"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "ready to accept connections" in line.lower():
                return
        raise RuntimeError(f"redis-server did not start: {''.join(said)}")

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it, if it runs, and wait until it is gone."""
        if self._process is not None:
            with self._process:
                self._process.kill()
            self._process = None

    def client(self) -> redis.Redis:
        """Return what any other local process would use (GOD-001)."""
        client: redis.Redis = redis.Redis.from_url(self.url, socket_timeout=5)
        return client


def _running() -> Iterator[RedisServer]:
    directory = Path(tempfile.mkdtemp(prefix="godot-", dir="/tmp"))  # the path of a unix socket has 108 bytes
    server = RedisServer(directory)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The Redis that tests share; each takes a queue of its own."""
    yield from _running()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis that a test may kill."""
    yield from _running()


@pytest.fixture
def stranger(redis_server: RedisServer) -> Iterator[Any]:
    """Another client of the shared Redis."""
    with closing(redis_server.client()) as client:
        yield client
