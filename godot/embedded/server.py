"""One server as a child of this process: started, watched, restarted, stopped, never left behind.

Law of this module: it knows processes, and nothing of what a server says or stores.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import trio

from godot.embedded.child import Child
from godot.embedded.datadir import hold_directory, make_directory, refuse_strangers
from godot.embedded.places import Account, socket_directory
from godot.embedded.processes import Found, processes_in, send_signal
from godot.errors import ConfigError

START_TIMEOUT = 120.0  # PostgreSQL after a crash replays up to max_wal_size (1 GB); Redis reads its AOF
STOP_TIMEOUT = 10.0  # then SIGKILL
TAKE_OVER_TIMEOUT = 3.0  # the same, for a server that a killed daemon left behind
POLL_INTERVAL = 0.005

FIRST_DELAY = 0.1  # between a death and the restart; three times as long after each further one
LAST_DELAY = 5.0
RARE_AFTER = 12  # failed starts in a row: a minute
RARE_DELAY = 30.0  # the longest from then on
STEADY_AFTER = 10.0  # a server that ran for so long begins at FIRST_DELAY again
SOCKET_LOOK = 5.0  # how often the socket is looked for
ROOM_BYTES = 64 * 1024 * 1024
"""With less room on its disk, that is probably why it does not start: PostgreSQL needs 16 MiB at once to recover."""

LACKING = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT})
"""What this process may lack for a while: a descriptor, memory, room on the disk."""

LOG_BYTES = 10_000_000

_REASON_LINES = 5
_REASON_BYTES = 4000


class EmbeddedServer(ABC):
    """What Redis and PostgreSQL have in common.

    :param directory: the server's own; made when absent. One process at a time may use it (see DataDir).
    :param notify: gets a sentence for people at each death and at each restart.
    :param on_change: called after each change of `pid`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    programs: ClassVar[frozenset[str]]
    """The names of the processes that belong to it, as the kernel knows them."""
    stop_signal: ClassVar[signal.Signals]
    """The signal on which it stops at once and in order."""
    socket_name: ClassVar[str]

    url: str
    """Where clients find it; set when `run` reports started, and the same from then on."""
    pid: int | None
    """The server that answers; None while there is none."""

    def __init__(self, directory: Path, *, notify: Callable[[str], None], on_change: Callable[[], None]) -> None:
        self.directory = directory.absolute()
        self.url = ""
        self.pid = None
        self._notify = notify
        self._on_change = on_change
        self._home = self.directory
        self._sockets = self.directory
        self._log = self.directory / f"{self.name}.log"
        self._log_start = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; report started when the server answers.

        A server that dies is started again. One that ran before is never given up, whatever hinders it: the other
        server does its part meanwhile, and an operator can mend the cause. When this ends, in whatever way, the server
        is gone: it has STOP_TIMEOUT for an orderly end, shielded from the cancellation.

        :raises ConfigError: the server cannot be set up, or does not answer after the first attempt. The reason ends
            with the last lines of its log.
        """
        with self._naming_the_place():
            make_directory(self.directory, 0o711 if self.account.other else 0o700)
            refuse_strangers(self.directory)
            self._home = self._find_home()
            refuse_strangers(self._home)
        with self._holding_home():
            await self._run_at_home(task_status)

    async def _run_at_home(self, task_status: trio.TaskStatus[None]) -> None:
        with self._naming_the_place():
            await self._stop_processes()
            self._make_place()
        self.url = self._url()
        try:
            with self._naming_the_place():
                await self._prepare()
            await self._keep_running(task_status)
        finally:
            with contextlib.suppress(OSError):  # it is not empty: a server that was killed leaves its socket
                self._sockets.rmdir()

    @contextlib.contextmanager
    def _holding_home(self) -> Iterator[None]:
        """Make sure that no living daemon owns what runs in the home: it would hold the lock.

        The lock of the data directory does not tell: a copy of that directory leads to the same home, when the home is
        elsewhere.

        :raises ConfigError: a living daemon owns it.
        """
        with self._naming_the_place():
            try:
                descriptor = hold_directory(self._home)
            except BlockingIOError as exc:
                raise ConfigError(
                    f"{self._home}: another Godot runs its {self.title} there; stop it, or choose another --data-dir"
                ) from exc
        try:
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)

    # What a subclass says about its server.

    @property
    @abstractmethod
    def account(self) -> Account:
        """The account under which it runs."""

    def _find_home(self) -> Path:
        """Return the directory that its files are in, without symbolic links."""
        return self.directory.resolve()

    def _make_place(self) -> None:
        """Make what a start needs beside its data; it may have been removed since the start before."""
        self._sockets = socket_directory(self._home / "socket", self.socket_name, self.account)

    @abstractmethod
    async def _prepare(self) -> None:
        """Find the binary and set up the data. Nothing of an earlier run is alive any more.

        After a cancellation nothing half-made is left.
        """

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the command that starts it with its socket in `_sockets`."""

    @abstractmethod
    def _url(self) -> str:
        """Return the URL for its socket in `_sockets`."""

    @abstractmethod
    async def _answers(self, process: Child) -> bool:
        """Return whether `process` takes clients by now; this does not take long."""

    # From the start of the child to its end.

    async def _keep_running(self, task_status: trio.TaskStatus[None]) -> None:
        started = False
        failures = 0
        delay = FIRST_DELAY
        while True:
            it = self.title
            failures += 1
            reason = ""
            try:
                if started:
                    self._make_place()
                async with self._child() as process:
                    it = f"{self.title} (pid {process.pid})"
                    if problem := await self._wait_for_answer(process):
                        if started and shutil.disk_usage(self._home).free < ROOM_BYTES:
                            problem += f", there is hardly any room left in {self._home}"
                        reason = self._reason()
                    else:
                        failures = 0
                        answered_at = trio.current_time()
                        self._change_pid(process.pid)
                        if started:
                            self._notify(f"{self.title} is back (pid {process.pid})")
                        else:
                            started = True
                            task_status.started()
                        problem = await self._wait_for_end(process)
                        if trio.current_time() - answered_at >= STEADY_AFTER:
                            delay = FIRST_DELAY
            except (OSError, ConfigError) as exc:
                problem = f"cannot be started ({exc})"
            if not started:
                raise ConfigError(f"{self.directory}: {self.title} does not start, it {problem}{reason}")
            self._notify(f"{it} {problem}; starting it again in {delay:.1f} s{reason}")
            await trio.sleep(delay)
            delay = min(delay * 3, LAST_DELAY if failures < RARE_AFTER else RARE_DELAY)

    @contextlib.asynccontextmanager
    async def _child(self) -> AsyncIterator[Child]:
        """Start a server process; on the way out it and everything it started is gone."""
        with self._open_log() as log:
            process = Child(
                self._command(),
                self.stop_signal,
                self.account,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._home,
                umask=0o077,
                # A Ctrl-C on the terminal must reach only us: the servers have to outlive the drain.
                start_new_session=True,
                env=self._environment(),
            )
        try:
            yield process
        finally:
            with trio.CancelScope(shield=True):
                with trio.move_on_after(STOP_TIMEOUT):
                    if process.returncode is None:
                        process.send_signal(self.stop_signal)
                    await process.wait()
                if process.returncode is None:
                    process.send_signal(signal.SIGKILL)
                    await process.wait()
                # Its own children end with it; after a SIGKILL that may take a moment.
                await self._stop_processes()
            self._change_pid(None)

    async def _wait_for_answer(self, process: Child) -> str | None:
        """Return None as soon as the server answers; else what happened instead."""
        with trio.move_on_after(START_TIMEOUT):
            while process.returncode is None:
                with contextlib.suppress(OSError):  # no descriptor is left to ask with: try again
                    if await self._answers(process):
                        return None
                await trio.sleep(POLL_INTERVAL)
            return _ended(process.returncode)
        return f"did not answer within {START_TIMEOUT:.0f} s"

    async def _wait_for_end(self, process: Child) -> str:
        """Return what ended it; or that its socket was removed, so that no new client could reach it."""
        while True:
            with trio.move_on_after(SOCKET_LOOK):
                return _ended(await process.wait())
            with contextlib.suppress(OSError):  # that we cannot look does not mean that it is gone
                if not (self._sockets / self.socket_name).exists():
                    return "has lost its socket"

    def _change_pid(self, pid: int | None) -> None:
        if pid != self.pid:
            self.pid = pid
            self._on_change()

    async def _stop_processes(self) -> None:
        """Stop what runs in this home; return when nothing does. Where nothing runs, it looks once at /proc: 2 ms."""
        asked: set[int] = set()
        with trio.move_on_after(TAKE_OVER_TIMEOUT):
            while found := self._look():
                send_signal(self.stop_signal, found.leaders - asked)
                asked |= found.leaders
                if found.pids and asked.isdisjoint(found.pids):
                    break
                await trio.sleep(POLL_INTERVAL)
        with trio.move_on_after(TAKE_OVER_TIMEOUT):  # a process that outlives even SIGKILL hangs in the kernel
            while found := self._look():
                send_signal(signal.SIGKILL, found.pids)
                await trio.sleep(POLL_INTERVAL)

    def _look(self) -> Found | None:
        """Return what runs in this home; None: nothing. While it cannot look, that is a `Found` without any process."""
        try:
            found = processes_in(self._home, self.programs)
            return Found(set(found), self._leaders(found)) if found else None
        except OSError as exc:
            if exc.errno not in LACKING:
                raise
            return Found(set(), set())

    def _leaders(self, found: Mapping[int, int]) -> set[int]:
        """Return those of `found` (process and its parent) to ask to stop; they stop the others."""
        return {pid for pid, parent in found.items() if parent not in found}

    # Its environment and its log.

    def _environment(self) -> dict[str, str]:
        """Return the part of our environment that a server needs: neither our secrets nor a PGPORT."""
        kept = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
        return {**kept, "LC_ALL": "C"}

    @contextlib.contextmanager
    def _open_log(self) -> Iterator[int]:
        """Open the server's log at its end. A log longer than LOG_BYTES is moved away first."""
        with contextlib.suppress(FileNotFoundError):
            if self._log.stat().st_size > LOG_BYTES:
                self._log.replace(self._log.with_suffix(".log.1"))
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            self._log_start = os.fstat(log).st_size
            yield log
        finally:
            os.close(log)

    def _reason(self) -> str:
        """Return the last lines that the last server process logged, each indented on a line of its own."""
        lines: list[str] = []
        with contextlib.suppress(OSError), self._log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, end - _REASON_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        return "".join(f"\n    {line}" for line in [line for line in lines if line.strip()][-_REASON_LINES:])

    @contextlib.contextmanager
    def _naming_the_place(self) -> Iterator[None]:
        """Turn a refusal of the operating system into an error that names the server."""
        try:
            yield
        except OSError as exc:
            raise ConfigError(f"{self.directory}: {self.title} cannot be set up: {exc}") from exc


def _ended(returncode: int) -> str:
    if returncode < 0:
        return f"was killed by signal {-returncode} ({signal.strsignal(-returncode)})"
    return f"ended with status {returncode}"
