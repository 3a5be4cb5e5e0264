"""PostgreSQL with one role, `dewey`, and one database, `winni`: made once, durably, and only for this user.

Law of this module: `data/` is either absent or complete. A cluster is made beside it, in `data.new/`, and a rename is
the last step. Nothing in `data/` is edited: settings are on the command line and in files of ours.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import trio

from godot.embedded.binaries import Binary, postgres_binaries
from godot.embedded.child import Child
from godot.embedded.datadir import replace_file
from godot.embedded.places import (
    Account,
    home_of,
    own_account,
    private_directory,
    unprivileged_account,
    within_reach,
)
from godot.embedded.server import EmbeddedServer
from godot.errors import ConfigError

SETUP_TIMEOUT = 120.0  # 0.5 s here; a slow disk may take a hundred times as long
_STATUS_LINE = 7  # of postmaster.pid, from 0: "starting", "ready   ", "stopping"


class EmbeddedPostgres(EmbeddedServer):
    """A PostgreSQL of our own, reached over its unix socket by this process's user, and by root."""

    name: ClassVar[str] = "postgres"
    title: ClassVar[str] = "PostgreSQL"
    programs: ClassVar[frozenset[str]] = frozenset({"postgres", "initdb"})
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # SIGTERM would wait until the last client leaves
    socket_name: ClassVar[str] = ".s.PGSQL.5432"

    def __init__(self, directory: Path, *, notify: Callable[[str], None], on_change: Callable[[], None]) -> None:
        super().__init__(directory, notify=notify, on_change=on_change)
        self._account = unprivileged_account()
        self._bin = Path()

    @property
    def account(self) -> Account:
        return self._account

    @property
    def _data(self) -> Path:
        return self._home / "data"

    def _find_home(self) -> Path:
        return home_of(self.directory, self._account)

    def _make_place(self) -> None:
        super()._make_place()
        self._write_authentication()
        self._remove_locks_of_strangers()

    async def _prepare(self) -> None:
        self._bin = self._choose_binary().path.parent
        if not self._data.exists():
            with trio.move_on_after(SETUP_TIMEOUT) as setup:
                await self._make_cluster()
            if setup.cancelled_caught:
                raise ConfigError(f"{self.directory}: initdb did not finish within {SETUP_TIMEOUT:.0f} s")

    def _choose_binary(self) -> Binary:
        """Return the first installation that fits the data, and that the server's account can execute.

        :raises ConfigError: there is none.
        """
        installed = list(postgres_binaries())
        major = (self._data / "PG_VERSION").read_text(errors="replace").strip() if self._data.exists() else None
        for binary in installed:
            if major in (None, str(binary.version[0])) and (usable := within_reach(binary, self._account)):
                return usable
        found = ", ".join(map(str, installed))
        if major is None:
            raise ConfigError(f"{self._account.name} can execute none of the PostgreSQL found: {found}")
        raise ConfigError(
            f"{self._data}: was written by PostgreSQL {major}, and what was found is {found};"
            f" install PostgreSQL {major}, or move the data with pg_upgrade"
        )

    def _write_authentication(self) -> None:
        """Let in this process's user and root, as the kernel knows them: no password, no `trust`."""
        users = dict.fromkeys(("root", own_account().name))
        for name, lines in (
            ("pg_hba.conf", ["local all dewey peer map=godot"]),
            ("pg_ident.conf", [f'godot "{user}" dewey' for user in users]),
        ):
            # The server's account reads them; there is nothing secret in them.
            replace_file(self._home / name, "".join(f"{line}\n" for line in lines).encode(), 0o644)

    def _remove_locks_of_strangers(self) -> None:
        """Remove locks whose pid belongs to another process by now: what ran here is gone.

        PostgreSQL would take that process for a server and refuse to start. A lock whose process is dead it removes
        itself.
        """
        for lock in (self._data / "postmaster.pid", self._sockets / f"{self.socket_name}.lock"):
            if (pid := _lines(lock)[:1]) and Path("/proc", *pid).exists():
                lock.unlink()

    async def _make_cluster(self) -> None:
        """Make the cluster with its role and its database; no part of it is left after a cancellation."""
        new = self._home / "data.new"
        shutil.rmtree(new, ignore_errors=True)  # of a daemon that was killed while it was here
        private_directory(new, self._account)
        try:
            await self._initdb(new)
            single = ("--single", "-D", str(new), "-c", "exit_on_error=on", "template1")
            await self._run("postgres", *single, stdin=b"CREATE DATABASE winni\n")
            # Once, at the end, instead of after each step: it takes 0.08 s.
            await self._run("initdb", "--sync-only", "-D", str(new))
            new.rename(self._data)
            _sync_directory(self._home)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._stop_processes()
            shutil.rmtree(new, ignore_errors=True)
            raise

    async def _initdb(self, new: Path) -> None:
        options = ["-D", str(new), "--username=dewey", "--encoding=UTF8", "--auth=peer"]
        options += ["--no-sync", "--no-instructions"]
        try:
            await self._run("initdb", *options, "--locale=C.UTF-8")
        except ConfigError as exc:
            if "invalid locale" not in str(exc):
                raise
            await self._run("initdb", *options, "--locale=C")  # an old or a minimal system

    async def _run(self, program: str, *arguments: str, stdin: bytes = b"") -> None:
        """Run a program of the installation to its end; a cancellation kills it and its children.

        :raises ConfigError: it failed; the error ends with its output.
        """
        done = await trio.run_process(
            [str(self._bin / program), *arguments],
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            deliver_cancel=_kill_group,
            cwd=self._home,
            umask=0o077,
            start_new_session=True,
            env=self._environment(),
            **self._account.popen,
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise ConfigError(f"{self.directory}: {program} failed (status {done.returncode}): {said}")

    def _command(self) -> list[str]:
        quoted = '"{}"'.format(str(self._sockets).replace('"', '""'))
        settings = {
            "listen_addresses": "",
            "port": "5432",
            "unix_socket_directories": quoted,
            "unix_socket_permissions": "0700",
            "hba_file": self._home / "pg_hba.conf",
            "ident_file": self._home / "pg_ident.conf",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [str(self._bin / "postgres"), "-D", str(self._data), *options]

    def _url(self) -> str:
        return f"postgresql://dewey@/winni?host={quote(os.fsencode(self._sockets))}"

    async def _answers(self, process: Child) -> bool:
        lines = _lines(self._data / "postmaster.pid")
        # The file of a server that was killed is still there; that of ours may be half written.
        return len(lines) > _STATUS_LINE and lines[0] == str(process.pid) and lines[_STATUS_LINE].strip() == "ready"

    def _leaders(self, found: Mapping[int, int]) -> set[int]:
        """Return the server that stops all others, if it is among `found`.

        Processes that outlived it have to be killed. PostgreSQL 18's checkpointer takes SIGINT for the order to write
        the last checkpoint, which would be wrong while another process still writes.
        """
        return {pid for pid in found if [str(pid)] == _lines(self._data / "postmaster.pid")[:1]}


async def _kill_group(process: trio.Process) -> None:
    os.killpg(process.pid, signal.SIGKILL)  # initdb's own children too; what it made is thrown away


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
