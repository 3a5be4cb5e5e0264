"""The `_meta` of a request: the protocol version that it names, and the trace that it belongs to. Pure."""

from __future__ import annotations

import re
from typing import Any, Final
from uuid import UUID

from godot.mcp.jsonrpc import INVALID_PARAMS, RequestError

MODERN_VERSION: Final = "2026-07-28"
"""It needs no handshake: each request names it in its `_meta`."""

UNSUPPORTED_VERSION: Final = -32022

META: Final = "io.modelcontextprotocol/"
"""The prefix of MCP's own keys in `_meta`."""

_LOG_LEVELS: Final = {"debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"}

_TRACEPARENT: Final = re.compile("(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
"""https://www.w3.org/TR/trace-context/; only versions later than 00 may have more at the end."""


def check_envelope(meta: dict[str, Any]) -> None:
    """Check the `_meta` of a request that names a protocol version.

    :raises RequestError: it is not what 2026-07-28 asks for.
    """
    version = meta[f"{META}protocolVersion"]
    if type(version) is not str:
        raise RequestError(INVALID_PARAMS, f"Invalid params: _meta {META}protocolVersion must be a string")
    if not isinstance(meta.get(f"{META}clientCapabilities"), dict):
        raise RequestError(INVALID_PARAMS, f"Invalid params: _meta {META}clientCapabilities must be an object")
    if version != MODERN_VERSION:
        raise RequestError(
            UNSUPPORTED_VERSION,
            f"Unsupported protocol version: {version:.80}",
            {"supported": [MODERN_VERSION], "requested": version},
        )
    level = meta.get(f"{META}logLevel", "info")
    if type(level) is not str or level not in _LOG_LEVELS:
        raise RequestError(INVALID_PARAMS, f"Invalid params: _meta {META}logLevel is not a level of MCP")


def trace_id_of(traceparent: object) -> str | None:
    """Return the trace id of a W3C `traceparent` as a UUID; None if it is not valid, and so to be ignored."""
    found = _TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
    if found is None or (found[1] == "00" and found[3]):
        return None
    return str(UUID(found[2]))
