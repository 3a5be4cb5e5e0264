"""The two doors of a daemon, MCP and HTTP: where it listens, whom it lets in, and how many."""

from __future__ import annotations

import attrs
import trio

from godot.config import DeweyServeSettings, GodotSettings, http_port, make_gate
from godot.descriptors import Connections, raise_limit, share_out
from godot.mcp.access import Gate
from godot.mcp.server import open_listeners


@attrs.frozen
class Doors:
    """What is open, and to whom.

    :param mcp: bound, and accepting nothing yet.
    :param http: the same.
    """

    gate: Gate
    mcp: list[trio.SocketListener]
    http: list[trio.SocketListener]
    connections: Connections


async def open_doors(settings: GodotSettings | DeweyServeSettings) -> Doors:
    """Listen as the settings say, with as many descriptors as there can be.

    :raises ConfigError: it cannot listen, would let in anyone (SEC-006), or has too few descriptors.
    """
    prefix = "GODOT" if isinstance(settings, GodotSettings) else "DEWEY"
    connections = share_out(f"{prefix}_MAX_CONNECTIONS", settings.max_connections, raise_limit())
    gate = make_gate(settings)
    mcp = await open_listeners(settings.host, settings.port)
    http = await open_listeners(settings.host, http_port(settings.port, settings.http_port))
    return Doors(gate, mcp, http, connections)
