"""`godot connect`: the options, and the three streams that a host has started it with."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import attrs
import trio

from godot.connect import MAX_MESSAGE_BYTES, HostGone, Pipe
from godot.errors import ConfigError
from godot.mcp.access import read_token
from godot.mcp.websocket.dial import Address, over_websocket
from godot.service.lines import write_all
from godot.service.signals import Life

T = TypeVar("T")

EXIT_REFUSED: Final = 3

READ_BYTES: Final = 64 * 1024

TELL_S: Final = 1.0
"""How long a line may wait for somebody to read stderr; many hosts never do."""


@attrs.frozen
class Target:
    """Where to connect, and as whom."""

    address: Address
    token: str | None = attrs.field(repr=False)


def load(url: str, token_file: Path | None, token: str) -> tuple[Target, list[str]]:
    """Make the target out of the options and the environment.

    :param token: what counts without a file; empty for none.
    :returns: the target, and no warnings.
    :raises ConfigError: one of them cannot be used; a token is never part of the message.
    """
    token = token.strip() if token_file is None else read_token(token_file)
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigError(f"{token_file or 'GODOT_TOKEN'}: a token is one word of printable ASCII characters")
    return Target(Address.parse(url), token or None), []


class Streams:
    """stdin, stdout and stderr of this process, used from worker threads.

    The streams may be pipes, sockets, files or a terminal, and the mark that makes one non-blocking belongs
    to everybody who has it open: the shell, the host. So they are left as they are, and a thread blocks.
    Such a thread is abandoned when its task is cancelled, for nothing bounds what it waits for: the host's
    next line, or the host's reading. That happens at the end of the process only, which takes the thread
    along; and its limiter has one token, which it keeps until it is through, so that two threads are never
    in one stream.
    """

    def __init__(self, stdin: int = 0, stdout: int = 1, stderr: int = 2) -> None:
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr
        self._lanes = {descriptor: trio.CapacityLimiter(1) for descriptor in (stdin, stdout, stderr)}

    async def read(self) -> bytes:
        """See `Host.read`; a stream that cannot be read is at its end."""
        try:
            return await self._in_thread(self._stdin, partial(_read, self._stdin))
        except OSError:
            return b""

    async def write(self, line: str) -> None:
        """See `Host.write`."""
        try:
            await self._in_thread(self._stdout, partial(write_all, self._stdout, f"{line}\n".encode()))
        except OSError as exc:
            if not isinstance(exc, ConnectionError):  # a full disk, say
                await self.tell(f"stdout cannot be written ({exc.strerror or exc})")
            raise HostGone from exc

    async def tell(self, text: str) -> None:
        """See `Host.tell`."""
        with trio.move_on_after(TELL_S), suppress(OSError):
            await self._in_thread(self._stderr, partial(write_all, self._stderr, f"godot connect: {text}\n".encode()))

    async def _in_thread(self, descriptor: int, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._lanes[descriptor])


def _read(descriptor: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, READ_BYTES)
        except BlockingIOError:  # somebody else has marked it
            select.select([descriptor], [], [])


async def run_connect(target: Target, life: Life) -> int:
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
    return EXIT_REFUSED


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
