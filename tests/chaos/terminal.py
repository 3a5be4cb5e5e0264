"""Whoever reads what a program prints: a terminal, a pager, a collector of logs. It may stop doing so for a while."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

import trio

from tests.programs import Program

PIPE_BYTES = 4096
"""The least that Linux gives a pipe: a few dozen lines fill it."""


class Terminal:
    """Reads what a program prints into a pipe, and puts it where `Program.out` looks."""

    def __init__(self, program: Program) -> None:
        pipe = program.process.stdout
        assert pipe is not None, "it has to be started with a pipe for its stdout"
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._stream = trio.lowlevel.FdStream(os.dup(pipe.fileno()))
        pipe.close()
        self._program = program
        self._stops = 0
        self._reading = trio.Event()

    async def run(self) -> None:
        """Read. Returns when the program has closed the pipe."""
        async with self._stream:
            with self._program.printed.open("ab", buffering=0) as file, suppress(trio.BrokenResourceError):
                while chunk := await self._stream.receive_some(PIPE_BYTES):
                    file.write(chunk)
                    while self._stops and not self._program.ended:
                        await self._reading.wait()

    async def stop_reading(self, duration_s: float) -> None:
        """Read nothing for some time."""
        self._stops += 1
        try:
            await trio.sleep(duration_s)
        finally:
            self._stops -= 1
            self._reading.set()
            self._reading = trio.Event()
