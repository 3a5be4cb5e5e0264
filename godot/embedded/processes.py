"""Which processes belong to a server of ours.

Law of this module: a process belongs to a server when it has one of its program names and works inside its home
directory. That is true of the child, of a child of a daemon that was killed, and of no other process. No pid file is
believed: another process may have its pid by now.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Found(NamedTuple):
    """Processes of a server.

    :param leaders: those to ask to stop; they stop the others.
    """

    pids: set[int]
    leaders: set[int]


def send_signal(what: signal.Signals, pids: Iterable[int]) -> None:
    """Send a signal to those that still exist."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


def processes_in(home: Path, programs: frozenset[str]) -> dict[int, int]:
    """Return the processes of `programs` that work in `home`, each with its parent.

    This needs Linux's /proc. Elsewhere it finds nothing, and a server that a killed daemon left behind has to be
    stopped by hand. A zombie does not count: it works nowhere any more.
    """
    found = {}
    for entry in os.listdir("/proc") if os.path.exists("/proc/self") else ():
        if entry.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                # "4711 (redis-server) S 1 …"; the name may hold any character
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                    name, _, rest = file.read().partition(" (")[2].rpartition(") ")
                if name in programs and _works_in(home, entry):
                    found[int(entry)] = int(rest.split()[1])
    return found


def _works_in(home: Path, pid: str) -> bool:
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(home)
    except PermissionError:
        # Root without CAP_SYS_PTRACE, as in a container, may not look into a process of `nobody`. But it may read the
        # arguments: initdb and the server process that takes signals have `-D home/data…` among them.
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            arguments = file.read().split(b"\0")
        return any(argument.startswith(os.fsencode(home) + b"/") for argument in arguments)
