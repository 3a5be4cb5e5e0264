"""One connection to the server that has the queue, in one worker thread, and the scripts that run there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final, TypeVar

import attrs
import redis
import trio

from godot.buffer.redis.sending import be_patient
from godot.buffer.redis.servers import Greet, Servers
from godot.errors import BufferUnavailable

T = TypeVar("T")

REPLICAS_WAIT_MS: Final = 1_000
"""How long replicas may take to confirm a write. Shorter than a socket may take."""


@attrs.frozen
class Script:
    """A script, and the digest by which Redis knows it."""

    source: str
    digest: str


def _read_scripts() -> dict[str, Script]:
    sources = {each.name: each.read_text("utf-8") for each in (files("godot.buffer.redis") / "lua").iterdir()}
    prelude = sources.pop("prelude.lua")
    return {
        name.removesuffix(".lua"): Script(
            prelude + source, sha1((prelude + source).encode(), usedforsecurity=False).hexdigest()
        )
        for name, source in sources.items()
    }


SCRIPTS: Final = _read_scripts()
"""All of `lua/`, by name. Read at import: at first use there may be no descriptor left to open a file."""


class RedisLane:
    """One client in one worker thread: work in one lane does not wait for work in another.

    :param replicas: how many have to have what `run_confirmed` writes before it returns.
    :param greet: called with each new connection before its first use.
    """

    def __init__(self, servers: Servers, *, replicas: int, greet: Greet | None = None) -> None:
        self._servers = servers
        self._replicas = replicas
        self._greet = greet
        self._client: redis.Redis | None = None
        self._doubts = 0
        self._limiter = trio.CapacityLimiter(1)

    async def run(self, name: str, keys: Sequence[str], argv: Sequence[Any] = ()) -> Any:
        """Run a script and return its answer.

        :raises BufferUnavailable: it did not run, or it ran and its answer was lost.
        """
        return await self.call(lambda client: _run(client, SCRIPTS[name], keys, argv))

    async def run_confirmed(self, name: str, keys: Sequence[str], argv: Sequence[Any] = ()) -> Any:
        """Run a script, wait until enough replicas have what it wrote, and return its answer.

        :raises BufferUnavailable: they have not confirmed it in time. It may be written all the same: run it again.
        """
        return await self.call(lambda client: self.confirm(client, name, keys, argv))

    def confirm(self, client: redis.Redis, name: str, keys: Sequence[str], argv: Sequence[Any]) -> Any:
        """Do what `run_confirmed` does, inside of a `call`."""
        if not self._replicas:
            return _run(client, SCRIPTS[name], keys, argv)
        return _run_confirmed(client, SCRIPTS[name], keys, argv, self._replicas)

    async def call(self, work: Callable[[redis.Redis], T]) -> T:
        """Do some work with the client, in the thread of this lane.

        :raises BufferUnavailable: Redis failed.
        """
        try:
            return await trio.to_thread.run_sync(self._call, work, limiter=self._limiter)
        except redis.exceptions.AskError as exc:
            raise BufferUnavailable(f"Redis: the queue moves to {exc.host}:{exc.port}") from exc
        except redis.RedisError as exc:
            raise BufferUnavailable(f"Redis: {exc}") from exc

    def _call(self, work: Callable[[redis.Redis], T]) -> T:
        try:
            return work(self._current())
        except redis.RedisError:
            self._servers.doubts += 1
            raise

    def _current(self) -> redis.Redis:
        """Return a client of the server that has the queue; after a failure that may be another server."""
        if self._client is None or self._doubts != self._servers.doubts:
            if self._client is not None:
                self._client.close()
                self._client = None
            self._doubts = self._servers.doubts
            self._client = be_patient(self._servers.connect(self._greet))
        return self._client


def _run(client: redis.Redis, script: Script, keys: Sequence[str], argv: Sequence[Any]) -> Any:
    try:
        return client.evalsha(script.digest, len(keys), *keys, *argv)
    except redis.exceptions.NoScriptError:
        return client.eval(script.source, len(keys), *keys, *argv)


def _run_confirmed(client: redis.Redis, script: Script, keys: Sequence[str], argv: Sequence[Any], replicas: int) -> Any:
    # WAIT is about what its own connection has written. A pipeline is sure to use one connection for both.
    with client.pipeline(transaction=False) as pipeline:
        pipeline.eval(script.source, len(keys), *keys, *argv)
        pipeline.wait(replicas, REPLICAS_WAIT_MS)
        done, confirmed = pipeline.execute(raise_on_error=False)
    for each in (done, confirmed):
        if isinstance(each, redis.RedisError):
            raise each
    if confirmed < replicas:
        # A master that was cut off from the others looks like this: the next call asks anew for the master.
        raise redis.RedisError(
            f"{confirmed} of {replicas} replicas confirmed the write within {REPLICAS_WAIT_MS / 1000:g} s"
        )
    return done
