"""How long a connection to Redis may take: longer for what is large, and never longer than that in all.

redis-py has one timeout for everything, and takes it anew for each part of a command. So a large entry on a slow way
was never sent to its end, and stood in the way of all others for ever.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from typing import Any, Final

import redis
from redis.connection import AbstractConnection

SOCKET_TIMEOUT_S: Final = 2.0
"""A deadline cannot interrupt a worker thread, so this is what bounds one: to send, with the time for what is sent, and
once more to get the answer."""

SLOWEST_BYTES_PER_S: Final = 1024 * 1024
"""A way to Redis that is slower than this is as good as none."""

_LEAST_S: Final = 0.001
"""0 would mean not to wait at all, which is another mode of a socket."""


class _Patient(AbstractConnection):
    def send_packed_command(self, command: str | bytes | Iterable[bytes], check_health: bool = True) -> None:
        parts = [command] if isinstance(command, str | bytes) else list(command)
        deadline = time.monotonic() + SOCKET_TIMEOUT_S + sum(map(len, parts)) / SLOWEST_BYTES_PER_S
        try:
            for part in parts:
                self._allow(deadline - time.monotonic())
                super().send_packed_command([part], check_health)  # type: ignore[no-untyped-call]
        finally:
            # What was sent may still be on its way, in the buffers between.
            self._allow(max(deadline - time.monotonic(), SOCKET_TIMEOUT_S))

    def _allow(self, seconds: float) -> None:
        connected: socket.socket | None = self._sock
        if connected is not None:
            connected.settimeout(max(seconds, _LEAST_S))


def be_patient(client: redis.Redis) -> redis.Redis:
    """Have the connections of a client take the time that their commands need; return it."""
    pool: Any = client.connection_pool
    pool.connection_class = type("Patient", (_Patient, pool.connection_class), {})
    return client
