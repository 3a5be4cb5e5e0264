"""What programs write to: a terminal with its screen, a stream that nobody reads, a reader that stops for a while."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import attrs
import pyte
import trio

from tests.programs import ENOUGH, Program

COLUMNS, ROWS = 100, 40

CTRL_S: Final = b"\x13"
CTRL_Q: Final = b"\x11"
FILLER: Final = b"\n" * 4096

PIPE_BYTES: Final = 4096
"""The least that Linux gives a pipe: a few dozen lines fill it."""


@attrs.frozen
class Stuck:
    """A stream nobody reads.

    :param writer: the end that a program gets.
    """

    writer: int
    reader: int
    is_terminal: bool

    def read(self, text: str, seconds: float = 20.0) -> str:
        """Begin to read; return what was written, up to a text."""
        if self.is_terminal:
            os.write(self.reader, CTRL_Q)
        said = ""
        ends = time.monotonic() + seconds
        while text not in said:
            ready, _, _ = select.select([self.reader], [], [], max(0.0, ends - time.monotonic()))
            assert ready, f"{text} was not written: {said[-1000:]}"
            said += os.read(self.reader, 65536).decode().replace("\r", "")  # as a terminal ends its lines
        return said.lstrip("\n")

    def stop(self) -> None:
        """Read no more."""
        if self.is_terminal:
            os.write(self.reader, CTRL_S)
        else:
            fill(self.writer)


def fill(writer: int) -> None:
    """Write to a pipe until it takes no more."""
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, FILLER)
    with suppress(BlockingIOError):  # a pipe of few pages takes less than a page at a time
        while True:
            os.write(writer, b"\n")
    os.set_blocking(writer, True)


@contextmanager
def stuck(kind: str) -> Iterator[Stuck]:
    """Make a stream nobody reads: a `terminal` after Ctrl-S, or a `pipe` that is full."""
    reader, writer = pty.openpty() if kind == "terminal" else os.pipe()
    stream = Stuck(writer, reader, kind == "terminal")
    stream.stop()
    try:
        yield stream
    finally:
        os.close(writer)
        os.close(reader)


class Terminal:
    """A command in a pseudo-terminal, and what the screen shows."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.raw = b""
        self._stream = pyte.ByteStream(self.screen)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environ, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)

    def text(self) -> str:
        return "\n".join(each.rstrip() for each in self.screen.display).rstrip()

    def read(self, wait_s: float) -> bool:
        """Take in what there is; False at the end."""
        if not select.select([self._master], [], [], wait_s)[0]:
            return True
        with suppress(OSError):  # EIO: nobody has the terminal open any more
            data = os.read(self._master, 65536)
            self.raw += data
            self._stream.feed(data)
            return bool(data)
        return False

    def until(self, text: str) -> None:
        """Wait until the screen shows a text."""
        ends = time.monotonic() + ENOUGH
        while text not in self.text():
            assert time.monotonic() < ends, self.text()
            assert self.read(0.5), self.text()

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def end(self) -> int:
        """Wait until the command has ended; return its exit code."""
        ends = time.monotonic() + ENOUGH
        while self.read(0.5):
            assert time.monotonic() < ends, self.text()
        os.close(self._master)
        return self.process.wait(timeout=ENOUGH)


class FickleReader:
    """Reads what a program prints into a pipe, and puts it where `Program.out` looks.

    A terminal, a pager or a collector of logs may stop reading for a while; so may this one.
    """

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
