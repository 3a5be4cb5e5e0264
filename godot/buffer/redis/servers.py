"""Which server has the queue: the one in the URL, the master that Sentinels name, or the primary of the queue's slot.

All keys of a queue are in one slot of a cluster, so that there is one such server at a time.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry
from redis.sentinel import Sentinel

from godot.buffer.redis.sending import SOCKET_TIMEOUT_S
from godot.errors import ConfigError

FIND_TIMEOUT_S: Final = 0.5
"""How long a Sentinel, or a node of a cluster, may take to say where the queue is, before the next one is asked."""

SENTINEL_PORT: Final = 26379
REDIS_PORT: Final = 6379

Greet = Callable[[Any], None]
"""Gets a connection of redis-py that is logged in and was not used yet. An error of its own ends that connection."""


class Servers(ABC):
    """The servers behind a URL."""

    replicated = True
    """Whether another server takes over when the one that has the queue dies."""

    doubts = 0
    """How often a client of theirs has failed. So all lanes learn what one of them has found out."""

    @abstractmethod
    def connect(self, greet: Greet | None = None) -> redis.Redis:
        """Return a client of the server that has the queue now. Blocks.

        :param greet: called with each connection of that client. A client makes new ones by itself.
        :raises redis.RedisError: nobody says which server that is.
        """


class OneServer(Servers):
    """`redis://`, `rediss://` or `unix://`, as redis-py takes them."""

    replicated = False

    def __init__(self, url: str) -> None:
        self._url = url
        self.connect()  # this checks the URL, and does not connect yet

    def connect(self, greet: Greet | None = None) -> redis.Redis:
        """See `Servers.connect`."""
        client: redis.Redis = redis.Redis.from_url(self._url, **_options(SOCKET_TIMEOUT_S, greet))
        return client


class SentinelServers(Servers):
    """`redis+sentinel://[user:password@]host[:port][,host[:port]]/<service>[/<db>]`; the password is Redis's."""

    def __init__(self, url: str) -> None:
        self._sentinels, login = _hosts(url, SENTINEL_PORT)
        service, _, db = urlsplit(url).path.strip("/").partition("/")
        if not service or not (db or "0").isdecimal():
            raise ValueError("must look like redis+sentinel://host:26379/mymaster or …/mymaster/0")
        self._service = unquote(service)
        self._options = {**login, **_options(SOCKET_TIMEOUT_S), "db": int(db or 0)}

    def connect(self, greet: Greet | None = None) -> redis.Redis:
        """See `Servers.connect`. The client asks the Sentinels anew whenever it connects."""
        asked = Sentinel(self._sentinels, sentinel_kwargs=_options(FIND_TIMEOUT_S))  # type: ignore[no-untyped-call]
        client: redis.Redis = asked.master_for(  # type: ignore[no-untyped-call]
            self._service, **self._options, **_greeting(greet)
        )
        return client


class ClusterServers(Servers):
    """`redis+cluster://[user:password@]host[:port][,host[:port]]`.

    redis-py's own `RedisCluster` is for many keys in many slots. Besides, it raises no `RedisError` when it reaches no
    node.

    :param key: has a hash tag, and is in the slot of all keys.
    """

    def __init__(self, url: str, key: str) -> None:
        self._nodes, self._login = _hosts(url, REDIS_PORT)
        if urlsplit(url).path.strip("/"):
            raise ValueError("a cluster has no databases: nothing may follow the port")
        tag, closed, _ = key.partition("{")[2].partition("}")
        if not (tag and closed):
            raise ConfigError(
                "LOG_QUEUE_NAME: on a Redis Cluster it needs a hash tag, which keeps all its keys on one node, such as "
                f"{{logs}}:queue; not {key!r:.80}"
            )
        self._slot = key_slot(key.encode())

    def connect(self, greet: Greet | None = None) -> redis.Redis:
        """See `Servers.connect`. All known nodes are asked: those of the URL, and those that were found before."""
        faults = []
        # In a random order: a node that is cut off from the others knows only what was true before, and must not be
        # asked first for ever.
        for asked in random.sample(self._nodes, len(self._nodes)):
            try:
                with closing(self._client(asked, FIND_TIMEOUT_S)) as client:
                    ranges = client.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
            except redis.RedisError as exc:
                faults.append(f"{asked[0]}:{asked[1]}: {exc}")
                continue
            for first, last, *nodes in ranges:
                if first <= self._slot <= last:
                    # A node that does not know its own address leaves it out.
                    found = [((host or b"").decode() or asked[0], int(port)) for host, port, *_ in nodes]
                    self._nodes = list(dict.fromkeys([*found, *self._nodes]))
                    return self._client(found[0], SOCKET_TIMEOUT_S, greet)
            faults.append(f"{asked[0]}:{asked[1]}: no node has the slot {self._slot} of the queue")
        raise redis.RedisError(f"no node of the cluster says where the queue is: {'; '.join(faults)}")

    def _client(self, node: tuple[str, int], timeout_s: float, greet: Greet | None = None) -> redis.Redis:
        host, port = node
        return redis.Redis(host=host, port=port, **self._login, **_options(timeout_s, greet))


def find_servers(url: str, queue: str) -> Servers:
    """Return the servers behind a URL.

    :raises ConfigError: it cannot be read, or the queue's name is not possible on a cluster.
    """
    try:
        for each in urlsplit(url).netloc.rpartition("@")[2].split(","):
            _ = urlsplit(f"//{each}").port
    except ValueError:  # its text would show a part of a password that was not escaped
        raise ConfigError("REDIS_URL: a host or a port cannot be read; in a password @ / : are %40 %2F %3A") from None
    try:
        if url.startswith("redis+sentinel://"):
            return SentinelServers(url)
        if url.startswith("redis+cluster://"):
            return ClusterServers(url, queue)
        return OneServer(url)
    except ValueError as exc:
        raise ConfigError(f"REDIS_URL: {exc}") from exc


def _greeting(greet: Greet | None) -> dict[str, Any]:
    if greet is None:
        return {}

    def connected(connection: Any) -> None:
        connection.on_connect()
        greet(connection)

    return {"redis_connect_func": connected}


def _options(timeout_s: float, greet: Greet | None = None) -> dict[str, Any]:
    return {
        **_greeting(greet),
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
    }


def _hosts(url: str, port: int) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """Return the hosts of a URL that may have several, and the login."""
    if urlsplit(url).query:
        raise ValueError("takes no options behind a question mark")
    login, _, hosts = urlsplit(url).netloc.rpartition("@")
    user, _, password = login.partition(":")
    named = {"username": unquote(user), "password": unquote(password)}
    found = []
    for each in hosts.split(","):
        parts = urlsplit(f"//{each}")
        if not parts.hostname:
            raise ValueError(
                "must name a host, such as redis+sentinel://host:26379/mymaster or redis+cluster://host:6379"
            )
        found.append((parts.hostname, parts.port or port))
    return found, {name: value for name, value in named.items() if value}
