"""A child process that ends with this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import trio

from godot.embedded import launch
from godot.embedded.places import Account

POLL_S: Final = 0.1


class Child:
    """A server that gets its stop signal when this process dies, also by `kill -9` (Linux).

    The kernel sends the signal when the THREAD that started the process dies. trio starts processes from worker
    threads, which end when they have been idle. So this one is started from the thread that runs trio, which takes
    about a millisecond.

    :param number: the signal on which it stops in order.
    :param options: of `Popen`.
    :raises OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], number: signal.Signals, account: Account, **options: Any) -> None:
        launcher = [sys.executable, "-I", "-S", str(Path(launch.__file__))]
        arguments = map(str, (os.getpid(), int(number), account.uid, account.gid))
        self._popen = subprocess.Popen([*launcher, *arguments, *command], **options)
        self.pid = self._popen.pid

    @property
    def returncode(self) -> int | None:
        """As of `Popen`; None while it runs."""
        return self._popen.poll()

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        self._popen.send_signal(number)

    async def wait(self) -> int:
        """Wait until it has ended; return its code."""
        while (code := self._popen.poll()) is None:
            try:
                descriptor = os.pidfd_open(self.pid)
            except (AttributeError, OSError):  # another system, or no descriptor is left
                await trio.sleep(POLL_S)
                continue
            try:
                await trio.lowlevel.wait_readable(descriptor)
            finally:
                os.close(descriptor)
        return code
