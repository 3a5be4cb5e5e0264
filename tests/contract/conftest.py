"""What the contracts are tested on: the twins of the buffer, and those of the store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

import pytest
import trio

from dewey_logs.postgres import PostgresStore
from dewey_logs.store.memory import MemoryStore
from dewey_logs.store.protocol import LogStore
from tests.contract.buffers import Bench, MemoryBench, RedisBench
from tests.postgres_servers import VERSIONS, Database, Servers
from tests.redis_servers import RedisServer

REDIS: Final = {"redis": "redis_server", "redis 6.2": "oldest_redis_server"}
"""What Godot starts, and the oldest that it speaks to: scripts keep to its commands."""


@contextmanager
def bench_on(server: RedisServer) -> Iterator[RedisBench]:
    with closing(server.client()) as client:
        yield RedisBench(server, client)


@pytest.fixture(params=REDIS)
def redis_bench(request: pytest.FixtureRequest) -> Iterator[RedisBench]:
    with bench_on(request.getfixturevalue(REDIS[request.param])) as made:
        yield made


@pytest.fixture
def stranger(redis_bench: RedisBench) -> Any:
    """Another client of the same server."""
    return redis_bench.client


@pytest.fixture(params=["memory", *REDIS])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "memory":
        yield MemoryBench()
        return
    with bench_on(request.getfixturevalue(REDIS[request.param])) as made:
        yield made


@pytest.fixture
def own_stranger(own_redis: RedisServer) -> Iterator[Any]:
    with closing(own_redis.client()) as client:
        yield client


@pytest.fixture(params=["memory", *VERSIONS])
async def store(request: pytest.FixtureRequest, postgres_servers: Servers) -> AsyncIterator[LogStore]:
    """A store with nothing in it."""
    with trio.fail_after(60):
        if request.param == "memory":
            yield MemoryStore()
        else:
            with (
                Database(postgres_servers[request.param]) as database,
                closing(PostgresStore(database.url)) as store,
            ):
                yield store
