"""Two connected ends within one process."""

from __future__ import annotations

import pytest

from godot.mcp.memory import memory_transports
from godot.mcp.transport import TransportClosed


async def test_a_closed_transport_says_so_on_both_ends() -> None:
    one, other = memory_transports(buffered=1)
    await one.aclose()
    for end in (one, other):
        with pytest.raises(TransportClosed):
            await end.send("x")
        with pytest.raises(TransportClosed):
            await end.receive()
