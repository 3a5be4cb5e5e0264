"""What the contracts are tested on: the twins of the buffer, and those of the store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any

import pytest
import trio

from dewey_logs.postgres import PostgresStore
from dewey_logs.store.memory import MemoryStore
from dewey_logs.store.protocol import LogStore
from tests.contract.buffers import Bench, MemoryBench, RedisBench
from tests.postgres_servers import VERSIONS, Database, Servers
from tests.redis_servers import RedisServer


@pytest.fixture
def redis_bench(redis_server: RedisServer, stranger: Any) -> RedisBench:
    return RedisBench(redis_server, stranger)


@pytest.fixture(params=["memory", "redis"])
def bench(request: pytest.FixtureRequest) -> Bench:
    made: Bench = MemoryBench() if request.param == "memory" else request.getfixturevalue("redis_bench")
    return made


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
