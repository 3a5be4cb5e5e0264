"""`godot connect`: the options, and the three streams that a host has started it with."""

from __future__ import annotations

import sys

import trio

from godot.cli.target import Target
from godot.connect import MAX_MESSAGE_BYTES, Pipe
from godot.connect.streams import Streams
from godot.errors import ConfigError
from godot.mcp.websocket.dial import over_websocket
from godot.service.exits import EXIT_UNREACHABLE
from godot.service.signals import Lifecycle


async def run_connect(target: Target, life: Lifecycle) -> int:
    """Be the pipe until stdin ends or a signal comes.

    :returns: the exit code: 0, or 3 when Godot has refused us.
    :raises ConfigError: there is no host.
    """
    life.ready.set()  # a signal ends the pipe with 0 and a goodbye
    if None in (sys.stdin, sys.stdout, sys.stderr):  # its descriptor may be our socket by now
        raise ConfigError("stdin, stdout and stderr have to be open: godot connect is started by an MCP host")
    streams = Streams()
    connect = over_websocket(target.address, target.token, max_message_bytes=MAX_MESSAGE_BYTES)
    refusal = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_when, life.stop, nursery.cancel_scope, name="stop")
        refusal = await Pipe(connect, streams, str(target.address)).run()
        nursery.cancel_scope.cancel()
    if refusal is None:
        return 0
    await streams.tell(refusal)
    return EXIT_UNREACHABLE


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
