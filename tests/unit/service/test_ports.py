"""What happens when a port cannot be bound."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from godot.errors import ConfigError
from godot.service.ports import open_listeners


async def test_an_address_in_use_is_a_fault_of_the_operators() -> None:
    with trio.fail_after(5):
        (listener,) = await open_listeners("127.0.0.1", 0)
        port = listener.socket.getsockname()[1]
        with pytest.raises(ConfigError, match=f"^cannot listen on 127.0.0.1 port {port}: .*choose another port$"):
            await open_listeners("127.0.0.1", port)
        await listener.aclose()
