"""The three streams with which a host has started this process."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import trio

from godot.connect import HostGone
from godot.service.lines import write_all

T = TypeVar("T")

READ_BYTES: Final = 64 * 1024

TELL_S: Final = 1.0
"""How long a line may wait for somebody to read stderr; many hosts never do."""


class Streams:
    """stdin, stdout and stderr of this process, used from worker threads.

    A stream may be a pipe, a socket, a file or a terminal. Its flag for non-blocking is shared with all who have it
    open, such as the shell and the host. So the flag is left as it is, and a thread blocks.

    Cancelling abandons that thread, for nothing bounds how long it waits: for the host's next line, or for the host
    to read. This happens only at the end of the process, which ends the thread, too. A stream's limiter has one token,
    and the thread keeps it until it is done; so two threads are never in one stream.
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
        except BlockingIOError:  # another process has made it non-blocking
            select.select([descriptor], [], [])
