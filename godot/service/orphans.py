"""Reaps orphaned processes when this process is the first one of a container.

Then every process whose parent has died becomes a child of ours, and stays a zombie until we wait for it. Children that
we have started ourselves are waited for at once, so a zombie that stays for longer is an orphan.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

INTERVAL_S: Final = 5.0


async def reap_orphans(interval_s: float = INTERVAL_S) -> None:
    """Wait for children that have been zombies for an interval. Runs until cancelled.

    :param interval_s: must be far longer than it takes to notice the end of a child of our own.
    """
    before: set[int] = set()
    while True:
        with suppress(OSError):  # no descriptor is free for the look: look again later
            zombies = set(_zombies())
            for pid in zombies & before:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 - it has ended
            before = zombies
        await trio.sleep(interval_s)


def _zombies() -> Iterator[int]:
    """Yield the children of this process that have ended and were not waited for (Linux)."""
    parent = os.getpid()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            # The name, in parentheses, may contain anything.
            state, ppid = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:2]
            if state == "Z" and int(ppid) == parent:
                yield int(pid)
