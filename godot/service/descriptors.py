"""File descriptors: how many this process may have, and how many connections they allow."""

from __future__ import annotations

import resource
from typing import Final

import attrs

from godot.errors import ConfigError

KEPT_BACK: Final = 128
"""Descriptors for the daemon itself: Redis, PostgreSQL, children and their logs, files that are open for a moment."""

MOST: Final = 2**20
"""More would only slow down children that close their inherited descriptors one by one."""

DEFAULT_CONNECTIONS: Final = 4_000

HTTP_PART: Final = 4
"""For so many connections of MCP there is one of HTTP, so that health can be asked when all others are taken."""


@attrs.frozen
class Connections:
    """How many connections the two ports may have."""

    mcp: int
    http: int


def raise_limit() -> int:
    """Raise the soft limit of descriptors to the hard one; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return soft  # a sandbox may forbid it
        return wanted
    return MOST if soft == resource.RLIM_INFINITY else soft


def share_out(setting: str, chosen: int | None, descriptors: int) -> Connections:
    """Decide how many connections there may be.

    :param setting: the name of the setting.
    :param chosen: its value; None: as many as the descriptors allow, and not more than `DEFAULT_CONNECTIONS`.
    :raises ConfigError: there are not enough descriptors.
    """
    most = (descriptors - KEPT_BACK) * HTTP_PART // (HTTP_PART + 1)
    mcp = min(DEFAULT_CONNECTIONS, most) if chosen is None else chosen
    if mcp < 1 or mcp > most:
        raise ConfigError(
            f"{setting}={mcp if chosen is None else chosen}: with {descriptors:,} file descriptors there may be "
            f"{max(most, 0):,} connections; raise the limit (ulimit -n) or lower the setting"
        )
    return Connections(mcp, max(1, mcp // HTTP_PART))
