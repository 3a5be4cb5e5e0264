"""TCP ports: bound at the start, so that a port in use ends the start; and their URLs."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

import trio

from godot.errors import ConfigError


async def open_listeners(host: str, port: int, prefix: str = "GODOT") -> list[trio.SocketListener]:
    """Bind a TCP address.

    :param port: 0 picks a free one.
    :param prefix: of the settings that an error names.
    :raises ConfigError: the address is in use, not ours, or not allowed.
    """
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except socket.gaierror as exc:
        raise ConfigError(f"{prefix}_HOST: there is no host {host}: {exc.strerror}") from exc
    except OSError as exc:
        if exc.errno == errno.EADDRNOTAVAIL:
            raise ConfigError(f"{prefix}_HOST: {host} is no address of this machine") from exc
        raise ConfigError(f"cannot listen on {host} port {port}: {exc.strerror or exc}; choose another port") from exc


def listening_url(listeners: Sequence[trio.SocketListener]) -> str:
    """Return the WebSocket URL of the listeners, with the port that was really bound."""
    host, port = listeners[0].socket.getsockname()[:2]
    return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"


def http_url(listeners: Sequence[trio.SocketListener]) -> str:
    """Return the HTTP URL of the listeners, with the port that was really bound."""
    host, port = listeners[0].socket.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
