"""Lines for the operator on stdout and stderr, which need not be read.

Law of this module: writing a line never waits for a reader. A terminal that was stopped with Ctrl-S, a pager, or a log
collector that hangs blocks a write without end. So lines go into a bounded queue, and a thread writes them. A line
without room is dropped and counted; the next line that is written says how many are missing.
"""

from __future__ import annotations

import atexit
import io
import os
import re
import select
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import trio

from godot.entries.times import iso
from godot.json.text import dumps
from godot.service.masking import masked

MAX_LINES: Final = 1_000
MAX_BYTES: Final = 1024 * 1024
"""Bounds of the lines that wait for a reader, for each of the two streams."""

VALUE_MAX: Final = 2_000
"""Characters of one value in a line, which may quote a peer."""

FLUSH_S: Final = 0.5
"""How long the process waits for a reader at its end, in all."""

_PLAIN: Final = re.compile(r"[^\s\"=]+")
_OBEYED: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Characters that a terminal obeys; a line may quote any client."""


class Lines(io.TextIOBase):
    """A stream of lines whose writer never waits; it can replace `sys.stderr`.

    :param stream: written to past its buffer; None if it was closed before we were started.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._descriptor = None if stream is None else stream.fileno()
        self._encoding = "utf-8" if stream is None else stream.encoding
        self._waiting: deque[tuple[int, bytes]] = deque()
        """Each line, and how many were lost just before it."""
        self._waiting_bytes = 0
        self._missing = 0
        self._rest = ""
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.dropped = 0
        """Lost lines: there was no room for them, or they could not be written."""

    def put(self, line: str) -> None:
        """Queue a line; drop it if there is no room."""
        data = self._encode(line)
        with self._changed:
            if self._descriptor is None:
                return
            if len(self._waiting) >= MAX_LINES or self._waiting_bytes + len(data) > MAX_BYTES:
                self._lose(1)
                return
            self._waiting.append((self._missing, data))
            self._waiting_bytes += len(data)
            self._missing = 0
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def write(self, text: str, /) -> int:
        """Take text as a file does; queue the complete lines."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self.put(line)
        return len(text)

    def finish(self, ends: float) -> bool:
        """Wait until all lines are written, or until `ends` (of `time.monotonic`); return whether all are."""
        if self._rest:
            self.write("\n")
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout=max(0.0, ends - time.monotonic()))

    def _encode(self, line: str) -> bytes:
        return f"{line}\n".encode(self._encoding, "backslashreplace")

    def _lose(self, lines: int) -> None:
        self.dropped += 1
        self._missing += lines

    def _run(self) -> None:
        """Write the lines that wait. Returns when the reader is gone."""
        while self._descriptor is not None:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                missing, data = self._waiting[0]
            notice = self._encode(status_line("lines_dropped", lines=missing)) if missing else b""
            failure: OSError | None = None
            try:
                write_all(self._descriptor, notice + data)
            except OSError as exc:  # the reader is gone, the disk is full, the terminal was closed
                failure = exc
            with self._changed:
                self._waiting.popleft()
                self._waiting_bytes -= len(data)
                if isinstance(failure, BrokenPipeError):
                    self._descriptor = None
                    self._waiting.clear()
                elif failure is not None:
                    self._lose(missing + 1)
                self._changed.notify_all()


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it, however long that takes, also to a stream that another program has made non-blocking.

    :raises OSError: as `os.write`.
    """
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


_stdout: Final = Lines(sys.__stdout__)
_stderr: Final = Lines(sys.__stderr__)


def print_line(text: str) -> None:
    """Write a line to stdout without waiting for a reader, so that any station may call it at any time."""
    _stdout.put(text)


def lines_dropped() -> int:
    """Return how many lines were lost since the start."""
    return _stdout.dropped + _stderr.dropped


def free_stderr() -> None:
    """Send all that this process writes to `sys.stderr` through a queue too."""
    if sys.stderr is not None:
        sys.stderr = _stderr


@atexit.register
def _finish() -> None:
    ends = time.monotonic() + FLUSH_S
    _stdout.finish(ends)
    if _stderr.finish(ends):  # later words of Python come too late for a thread
        sys.stderr = sys.__stderr__


# The format of a line.


def logfmt(event: str, **fields: Any) -> str:
    """Format a line; values with blanks are quoted."""
    parts = [f"time={_now()}", f"event={event}"]
    for name, value in fields.items():
        text = str(value).lower() if isinstance(value, bool) else _shown(value)
        text = _OBEYED.sub(lambda found: f"\\x{ord(found[0]):02x}", quoted(" ".join(text.split())))
        parts.append(f"{name}={text}")
    return " ".join(parts)


def quoted(text: str) -> str:
    """Write a value of logfmt: in quotes, where it would not be one word without them."""
    if _PLAIN.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def json_line(event: str, **fields: Any) -> str:
    """Format a line as JSON; numbers stay numbers."""
    values = {name: value if isinstance(value, int | float) else _shown(value) for name, value in fields.items()}
    return dumps({"time": _now(), "event": event} | values).decode()


def _shown(value: object) -> str:
    """Write a value with passwords hidden, and cut to a length that can be read."""
    text = masked(str(value)[: 4 * VALUE_MAX])
    return text if len(text) <= VALUE_MAX else f"{text[:VALUE_MAX]}…"


def _now() -> str:
    return iso(datetime.now(UTC), "milliseconds")


_FORMATS: Final[Mapping[str, Callable[..., str]]] = {"logfmt": logfmt, "json": json_line}
_chosen = logfmt


def choose_format(name: str) -> None:
    """Choose the format of this process's status lines: `logfmt` or `json` (`GODOT_LOG_FORMAT`)."""
    global _chosen
    _chosen = _FORMATS[name]


def status_line(event: str, **fields: Any) -> str:
    """Format a line in the chosen format."""
    return _chosen(event, **fields)


def ready_line(mcp: str, http: str, version: str) -> str:
    """Return the line that says that a daemon is ready, and where."""
    return f"ready mcp={mcp} http={http} version={version}"


REPEAT_S: Final = 60.0
"""A line about a host is not repeated within this time."""

SAID_MAX: Final = 1_000
"""The number of lines about hosts in that time."""


class PeerLog:
    """Writes events of peers: one line in `REPEAT_S` for each host and event, whatever the address and reason.

    A line says how many of its event were left out since the one before.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._said: dict[tuple[str, str], float] = {}
        self._unsaid: Counter[str] = Counter()

    def note(self, event: str, address: str, reason: str) -> None:
        """Write a line, unless `REPEAT_S` has seen one of the same event and host, or `SAID_MAX` lines."""
        now = trio.current_time()
        key = (event, address.rpartition(":")[0])
        if len(self._said) >= SAID_MAX:
            self._said = {each: when for each, when in self._said.items() if now - when < REPEAT_S}
        if now - self._said.get(key, -REPEAT_S) < REPEAT_S or len(self._said) >= SAID_MAX:
            self._unsaid[event] += 1
            return
        self._said[key] = now
        more = {"unsaid": unsaid} if (unsaid := self._unsaid.pop(event, 0)) else {}
        self._write(status_line(event, peer=address, reason=reason, **more))
