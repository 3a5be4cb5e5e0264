"""One connection to the server that has the queue, in one worker thread, and the scripts that run there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final, TypeVar

import attrs
import redis
import trio
from redis.backoff import NoBackoff
from redis.retry import Retry

from godot.errors import BufferUnavailable, ConfigError

T = TypeVar("T")

SOCKET_TIMEOUT_S: Final = 2.0
"""A deadline cannot interrupt a worker thread, so this is what bounds one."""


@attrs.frozen
class Script:
    """A script, and the digest by which Redis knows it."""

    source: str
    digest: str


@cache
def script(name: str) -> Script:
    """Read a script of `lua/`."""
    folder = files("godot.redis_buffer") / "lua"
    source = "".join((folder / f"{each}.lua").read_text("utf-8") for each in ("prelude", name))
    return Script(source, sha1(source.encode(), usedforsecurity=False).hexdigest())


class Lane:
    """One client in one worker thread: what runs in one lane waits for nothing that runs in another.

    :raises ConfigError: the URL is none.
    """

    def __init__(self, url: str) -> None:
        try:
            self._client: redis.Redis = redis.Redis.from_url(
                url,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=SOCKET_TIMEOUT_S,
                socket_connect_timeout=SOCKET_TIMEOUT_S,
            )
        except ValueError as exc:
            raise ConfigError(f"REDIS_URL: {exc}") from exc
        self._limiter = trio.CapacityLimiter(1)

    async def run(self, name: str, keys: Sequence[str], argv: Sequence[Any] = ()) -> Any:
        """Run a script and return what it does.

        :raises BufferUnavailable: it did not run, or it did and nobody knows.
        """
        return await self.call(lambda client: _run(client, script(name), keys, argv))

    async def call(self, work: Callable[[redis.Redis], T]) -> T:
        """Do something with the client.

        :raises BufferUnavailable: Redis did not.
        """
        try:
            return await trio.to_thread.run_sync(work, self._client, limiter=self._limiter)
        except redis.RedisError as exc:
            raise BufferUnavailable(f"Redis: {exc}") from exc


def _run(client: redis.Redis, script: Script, keys: Sequence[str], argv: Sequence[Any]) -> Any:
    try:
        return client.evalsha(script.digest, len(keys), *keys, *argv)
    except redis.exceptions.NoScriptError:
        return client.eval(script.source, len(keys), *keys, *argv)
