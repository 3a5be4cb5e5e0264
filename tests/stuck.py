"""Streams that a program writes to and nobody reads: a terminal that was stopped, and a pipe that is full."""

from __future__ import annotations

import os
import pty
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import attrs

CTRL_S: Final = b"\x13"
CTRL_Q: Final = b"\x11"
FILLER: Final = b"\n" * 4096


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
