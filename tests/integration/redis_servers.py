"""Several real Redis servers on TCP: a master with replicas and a Sentinel, or a cluster."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import redis
import trio

from godot.embedded import find_redis

POLL_S: Final = 0.02
BUS: Final = 10_000
"""Redis 6.2 speaks to the rest of its cluster on its own port and this."""

SLOTS: Final = 16_384
DURABLE: Final = 'save ""\nappendonly yes\nappendfsync always\nrepl-diskless-sync-delay 0\n'
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
    """Look again and again until something true is seen; what cannot be asked yet is not true yet."""
    while True:
        try:
            if look():
                return
        except redis.RedisError:
            pass
        await trio.sleep(POLL_S)


class RedisServers:
    """Servers in one directory, which end with it."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, *options: str, config: str = "") -> int:
        """Start a server, or with `--sentinel` a Sentinel; return its port."""
        port = free_port()
        folder = self._place / str(port)
        folder.mkdir()
        (folder / "redis.conf").write_text(f"port {port}\nbind 127.0.0.1\ndir {folder}\n{config}")
        self.start_again(port, *options)
        return port

    def start_again(self, port: int, *options: str) -> None:
        """Start one that was killed, as it was."""
        folder = self._place / str(port)
        with (folder / "log").open("ab") as log:
            self._processes[port] = subprocess.Popen(
                [str(find_redis()), str(folder / "redis.conf"), *options], stdout=log, stderr=log
            )

    def ask(self, port: int, *command: Any) -> Any:
        """Say something to one of them, as `redis-cli` does."""
        with closing(redis.Redis("127.0.0.1", port, socket_timeout=5, decode_responses=True)) as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def signal(self, port: int, number: signal.Signals) -> None:
        """Send a signal to one of them."""
        self._processes[port].send_signal(number)

    def kill(self, port: int) -> None:
        """End one of them as a power failure would."""
        with self._processes.pop(port) as process:
            process.kill()

    def close(self) -> None:
        """End all."""
        for port in list(self._processes):
            self.kill(port)

    async def follow(self, port: int) -> None:
        """Wait until a replica has all that its master has."""
        await until(lambda: self.ask(port, "INFO", "replication")["master_link_status"] == "up")


@contextmanager
def redis_servers() -> Iterator[RedisServers]:
    """Make a place for servers, and remove it with them."""
    place = Path(tempfile.mkdtemp(prefix="godot-redis-", dir="/tmp"))
    servers = RedisServers(place)
    try:
        yield servers
    finally:
        servers.close()
        shutil.rmtree(place)


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
