"""How long a connection to Redis may take: more for a larger command, and never more than that in all.

redis-py has one timeout for everything, and counts it anew for each part of a command. With that, a large entry on a
slow way was never sent to its end, and held up all others for ever.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from typing import Any, Final

import redis
from redis.connection import AbstractConnection

SOCKET_TIMEOUT_S: Final = 2.0
"""A deadline cannot interrupt a worker thread, so this bounds it: once for sending, with the time for what is sent, and
once more for the answer."""

SLOWEST_BYTES_PER_S: Final = 1024 * 1024
"""A way to Redis that is slower than this counts as none."""

_LEAST_S: Final = 0.001
"""0 would put the socket into another mode, in which it does not wait at all."""


class _Patient(AbstractConnection):
    def send_packed_command(self, command: str | bytes | Iterable[bytes], check_health: bool = True) -> None:
        parts = [command] if isinstance(command, str | bytes) else list(command)
        deadline = time.monotonic() + SOCKET_TIMEOUT_S + sum(map(len, parts)) / SLOWEST_BYTES_PER_S
        try:
            for part in parts:
                self._allow(deadline - time.monotonic())
                super().send_packed_command([part], check_health)  # type: ignore[no-untyped-call]
        finally:
            # What was sent may still be on its way, in buffers of the network.
            self._allow(max(deadline - time.monotonic(), SOCKET_TIMEOUT_S))

    def _allow(self, seconds: float) -> None:
        connected: socket.socket | None = self._sock
        if connected is not None:
            connected.settimeout(max(seconds, _LEAST_S))


def be_patient(client: redis.Redis) -> redis.Redis:
    """Let the connections of a client take the time that their commands need; return the client."""
    pool: Any = client.connection_pool
    pool.connection_class = type("Patient", (_Patient, pool.connection_class), {})
    return client
