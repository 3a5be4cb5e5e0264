"""Reaps what nobody waits for, when this process is the first one of a container.

Then every process whose parent has died becomes a child of ours, and stays a zombie until somebody waits for it.
Whoever started a process of ours waits for it at once; so what is a zombie for longer was adopted.
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

    :param interval_s: far longer than an end of a child takes to be noticed.
    """
    before: set[int] = set()
    while True:
        with suppress(OSError):  # no descriptor is left to look with: look again
            zombies = set(_zombies())
            for pid in zombies & before:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 - it has ended
            before = zombies
        await trio.sleep(interval_s)


def _zombies() -> Iterator[int]:
    """Yield the children of this process that have ended and are not waited for (Linux)."""
    parent = os.getpid()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            # The name, in parentheses, may contain anything.
            state, ppid = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:2]
            if state == "Z" and int(ppid) == parent:
                yield int(pid)
