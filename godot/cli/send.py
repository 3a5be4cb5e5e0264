"""The work of the commands that send entries: log, ingest."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from io import BufferedReader
from pathlib import Path
from typing import Any, Final, cast
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import attrs
import click
import trio

from godot.cli.daemon import TOO_LARGE, Daemon, Unanswered, Work, complain, write
from godot.cli.render import counted, harmless
from godot.entries.entry import by_line
from godot.json.text import NotJSON, loads
from godot.service.exits import EXIT_PARTIAL, EXIT_UNREACHABLE, EXIT_USAGE
from godot.toolnames import LOG, LOG_BATCH

BATCH: Final = 500
BATCH_BYTES: Final = 4 * 1024 * 1024
"""Far under the limit of a message (`GODOT_MAX_MESSAGE_BYTES`, 16 MiB); where that is lower, less is sent at once."""

READ_BYTES: Final = 256 * 1024

BUSY_S: Final = 60.0
"""How long a batch is sent again while the daemon cannot take it."""

RETRY_S: Final = 0.5

COMPLAINTS_MAX: Final = 20


def log_entry(level: str, message: str, component: str, trace: str | None, data: dict[str, Any] | None) -> Work:
    """Log an entry, and write its id."""

    async def work(daemon: Daemon) -> int:
        done = await daemon.ask(
            LOG, component=component, level=level, message=message, trace_id=trace, data=data, ack="durable"
        )
        for warning in done.get("warnings", []):
            complain(warning)
        if done["status"] == "filtered":
            complain(f"{component} is set to {done['level']}, so {level} is not stored")
            return EXIT_PARTIAL
        write(done["id"])
        return 0

    return work


@attrs.define
class Line:
    """A line of the file.

    :param entry: the entry in it; None: it has none.
    :param size: bytes of the line.
    :param fault: why it is refused, once that is known.
    """

    number: int
    entry: dict[str, Any] | None
    size: int
    fault: str | None = None


class Ingest:
    """A file on its way to the daemon, batch by batch; each is on disk there before the next one is sent.

    :param known_as: which file it is, for the ids of entries that bring none; None: they get new ones.
    """

    def __init__(self, daemon: Daemon, file: BufferedReader, *, known_as: str | None, size: int | None) -> None:
        self._daemon, self._file = daemon, file
        self._known_as = known_as
        self._size = size
        self._so_far = hashlib.sha256()
        self._batch_bytes = BATCH_BYTES
        self._unreadable: str | None = None
        self.accepted = self.filtered = self.rejected = 0
        self.durable = True

    async def run(self) -> int:
        """Send all of it; return the exit code.

        :raises Unanswered: the daemon is gone, or has not taken a batch for `BUSY_S`.
        """
        batch: list[Line] = []
        size = 0
        progress = click.progressbar(
            length=self._size or 0, label="ingest", file=sys.stderr, hidden=not (self._size and sys.stderr.isatty())
        )
        try:
            async with aclosing(self._lines()) as lines:
                with progress as bar:
                    async for number, line, more in lines:
                        if batch and size + len(line) > self._batch_bytes:
                            await self._send_and_tell(batch)
                            batch, size = [], 0
                        if line.strip():
                            batch.append(self._read(number, line))
                            size += len(line)
                        if batch and (len(batch) == BATCH or not more):
                            await self._send_and_tell(batch)
                            batch, size = [], 0
                        bar.update(len(line))
        finally:
            self._tell_counts()
        if self._unreadable is not None:
            complain(self._unreadable)
            return EXIT_USAGE
        return EXIT_PARTIAL if self.rejected else 0

    def _tell_counts(self) -> None:
        filtered = f", {self.filtered:,} below the level of their component" if self.filtered else ""
        rejected = f", {counted(self.rejected, 'line', 'lines')} refused" if self.rejected else ""
        disk = " and on disk" if self.durable and self.accepted else ""
        # The daemon answers before they are stored, so it does not know which of them are new.
        once = "; those that came from this file before are stored once" if self._known_as and self.accepted else ""
        complain(f"{counted(self.accepted)} taken in{disk}{filtered}{rejected}{once}")

    async def _lines(self) -> AsyncGenerator[tuple[int, bytes, bool], None]:
        """Yield each line with its number, and whether another one is there already.

        Cancelling abandons the thread: nothing bounds how long a pipe has nothing to say.
        """
        number, rest, ended = 0, b"", False
        while not ended:
            try:
                chunk = await trio.to_thread.run_sync(self._file.read1, READ_BYTES, abandon_on_cancel=True)
            except OSError as exc:  # what was read until then is sent; the line that is cut off is not
                self._unreadable = f"line {number + 1:,} and what follows cannot be read ({exc.strerror or exc})"
                break
            ended = not chunk
            *lines, rest = (rest + chunk).split(b"\n")
            if ended and rest:
                lines.append(rest)
            for place, line in enumerate(lines, 1):
                number += 1
                self._so_far.update(line + b"\n")
                yield number, line, place < len(lines) or (self._size is not None and not ended)
        yield number + 1, b"", False

    def _read(self, number: int, line: bytes) -> Line:
        try:
            entry = loads(line)
        except NotJSON as exc:
            return Line(number, None, len(line), str(exc))
        if not isinstance(entry, dict):
            return Line(number, None, len(line), "not an entry: a JSON object is needed")
        if entry.get("id") is None:
            entry["id"] = str(self._next_id())
        # What `godot export` and `godot query` add.
        for name in ("ingested_at", "age"):
            entry.pop(name, None)
        return Line(number, entry, len(line))

    def _next_id(self) -> UUID:
        """Return an id that is the same when the file is sent again, and another one for each of its lines.

        It is a hash of the file up to and with the line. So equal lines differ by what stands before them, and a file
        that was emptied and filled anew differs from what it was.
        """
        if self._known_as is None:
            return uuid4()
        return uuid5(NAMESPACE_URL, f"{self._known_as} {self._so_far.hexdigest()}")

    async def _send_and_tell(self, batch: list[Line]) -> None:
        """Send lines, and tell which of them were refused, in their order."""
        try:
            await self._send([line for line in batch if line.fault is None])
        finally:
            for line in batch:
                if line.fault is not None:
                    self._reject(line.number, line.fault)

    def _reject(self, number: int, reason: str) -> None:
        self.rejected += 1
        if self.rejected <= COMPLAINTS_MAX:
            complain(f"line {number}: {harmless(reason)}")
        elif self.rejected == COMPLAINTS_MAX + 1:
            complain("further lines that are refused are only counted")

    async def _send(self, batch: list[Line]) -> None:
        """Send until all of it is on disk, or was refused for its content; the ids keep it from being stored twice."""
        began = trio.current_time()
        waits = False
        while batch:
            patient = trio.current_time() - began < BUSY_S
            try:
                done = await self._daemon.ask(LOG_BATCH, logs=[line.entry for line in batch], ack="durable")
            except Unanswered as exc:
                if exc.refusal == TOO_LARGE:
                    await self._send_in_parts(batch, str(exc))
                    return
                if exc.code != EXIT_UNREACHABLE or not patient:
                    raise
                if not waits:
                    waits = True
                    complain(f"{exc}; trying again for {BUSY_S:g} s")
                await trio.sleep(RETRY_S)
                continue
            again = []
            for each in done["rejected"]:
                line = batch[each["index"]]
                if each.get("kind") == "again" and patient:
                    again.append(line)
                else:
                    line.fault = each["error"]
            numbers = [line.number for line in batch]
            warnings = done["warnings"]
            if done.get("status") == "queued":
                why, *warnings = warnings
                if self.durable:
                    self.durable = False
                    complain(harmless(why))
            for warning in warnings[:COMPLAINTS_MAX]:
                complain(harmless(by_line(warning, numbers)))
            self.accepted += done["accepted"]
            self.filtered += done["filtered"]
            if batch := again:
                if not waits:
                    waits = True
                    complain(f"the daemon takes nothing now; trying again for {BUSY_S:g} s")
                await trio.sleep(RETRY_S)

    async def _send_in_parts(self, batch: list[Line], reason: str) -> None:
        """Send a batch that is too large for one message in halves, and less from now on; refuse a single line."""
        if len(batch) == 1:
            batch[0].fault = f"{batch[0].size:,} bytes are too large: {reason}"
            return
        self._batch_bytes = max(1, min(self._batch_bytes, sum(line.size for line in batch) // 2))
        half = len(batch) // 2
        await self._send(batch[:half])
        await self._send(batch[half:])


def ingest_file(path: Path, *, again: bool) -> Work:
    """Log the entries of a file, or of stdin.

    :param again: also those that were sent from this file before.
    """

    async def work(daemon: Daemon) -> int:
        if str(path) == "-":
            if sys.stdin is None:
                complain("stdin is closed")
                return EXIT_USAGE
            return await Ingest(daemon, cast("BufferedReader", sys.stdin.buffer), known_as=None, size=None).run()
        try:
            opened = path.open("rb")
        except OSError as exc:
            complain(f"{path} cannot be opened ({exc.strerror or exc})")
            return EXIT_USAGE
        with opened as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):  # every pipe is a new one
                return await Ingest(daemon, file, known_as=None, size=None).run()
            # Not by its name: rotation changes it, and the logs of two programs often have the same.
            known_as = None if again else f"{found.st_dev}:{found.st_ino}"
            return await Ingest(daemon, file, known_as=known_as, size=found.st_size).run()

    return work
