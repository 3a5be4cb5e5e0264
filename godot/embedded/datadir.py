"""The directory in which `godot up` keeps everything, and the right to be the only one in it.

Law of this module: the process inside `with DataDir(path)` is the only one in there. The right is an flock on the
directory itself: a file in it could be removed under its holder. The kernel takes the lock back when its holder dies in
any way. The file `lock` is locked as well, because an older Godot knows no other lock, and some network file
systems lock no directories. The pid in it is for people; no decision rests on it. Permissions of a directory that was
there before are never changed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from godot.errors import ConfigError

STATE_ROOT = Path("/var/lib/godot")
"""Root's state: `data` in it is the default data directory; the servers' own state stands beside it."""


def default_data_dir() -> Path:
    """Choose where `godot up` keeps its data when nobody says otherwise.

    :raises ConfigError: this user has no home directory.
    """
    if os.geteuid() == 0:
        return STATE_ROOT / "data"
    data_home = Path(os.environ.get("XDG_DATA_HOME", ""))
    if data_home.is_absolute():  # the XDG specification: a relative path is to be ignored
        return data_home / "godot"
    try:
        return Path.home() / ".local" / "share" / "godot"
    except RuntimeError as exc:
        raise ConfigError("this user has no home directory; choose a --data-dir") from exc


def make_directory(path: Path, mode: int) -> None:
    """Make `path` and what is missing above it, each with exactly `mode`, whatever the umask says."""
    for missing in reversed([place for place in (path, *path.parents) if not place.exists()]):
        missing.mkdir()
        missing.chmod(mode)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def refuse_strangers(path: Path) -> None:
    """Make sure that root does not work in a directory into which another user can put links.

    :raises ConfigError: this is root, and another user owns `path` or may write into it.
    """
    found = path.stat()
    if os.geteuid() != 0:
        return
    if found.st_uid != 0:
        raise ConfigError(
            f"{path}: belongs to the user {found.st_uid}, who could have root overwrite any file through it; run godot "
            "as that user, choose another --data-dir, or give it to root (chown -R root)"
        )
    if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid != 0):
        raise ConfigError(
            f"{path}: others may write into it, and could have root overwrite any file through it; "
            "choose another --data-dir, or keep them out (chmod go-w)"
        )


def hold_directory(path: Path) -> int | None:
    """Lock a directory, and return the descriptor that holds it; None where directories cannot be locked (NFS).

    :raises BlockingIOError: another process holds it.
    """
    # Python's descriptors do not pass to children, so a server that outlives us cannot hold the lock.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(descriptor)
        if isinstance(exc, BlockingIOError):
            raise
        return None
    return descriptor


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Put `content` into a file. A reader sees the old content or the new; a link in its place is not followed.

    :raises OSError: it cannot be written; the old content is still there.
    """
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)  # of a process that was killed
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # whatever the umask says
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    fresh.replace(path)


def read_endpoints(directory: Path) -> dict[str, object]:
    """Return what a running `godot up` says of itself; nothing, when none runs.

    One that was killed leaves its file behind.
    """
    try:
        found = orjson.loads((directory.expanduser() / "endpoints.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


class DataDir:
    """A data directory, held exclusively from `__enter__` to `__exit__`.

    :param path: made when absent, with its parents: 0700. For root it is 0711, because PostgreSQL then runs as `nobody`
        and has to reach its own directory inside.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self._endpoints = self.path / "endpoints.json"
        self._held: list[int] = []

    def __enter__(self) -> Self:
        """Make the directory and lock it; remove an earlier holder's `endpoints.json`.

        :raises ConfigError: the directory cannot be used, or another process holds it.
        """
        try:
            make_directory(self.path, 0o711 if os.geteuid() == 0 else 0o700)
            refuse_strangers(self.path)
            try:
                self._take_locks()
                self._endpoints.unlink(missing_ok=True)
            except BaseException:
                self._let_go()
                raise
        except OSError as exc:
            raise ConfigError(
                f"{self.path}: cannot be the data directory ({exc.strerror or exc}); choose another --data-dir"
            ) from exc
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove `endpoints.json` and let go. The lock file stays: removing it would race with the next holder."""
        try:
            self._endpoints.unlink(missing_ok=True)
        finally:
            self._let_go()

    @property
    def lacks_endpoints(self) -> bool:
        """Whether `endpoints.json` was taken away, as a clean-up of old files does."""
        return not os.path.exists(self._endpoints)  # True also when the directory cannot be entered

    def write_endpoints(self, endpoints: Mapping[str, object]) -> None:
        """Put `endpoints` into `endpoints.json`. A reader sees the old content or the new, never a part.

        :raises ConfigError: it cannot be written, for instance because the disk is full.
        """
        content = orjson.dumps(endpoints, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        try:
            replace_file(self._endpoints, content, 0o600)
        except OSError as exc:
            raise ConfigError(f"{self._endpoints}: cannot be written ({exc.strerror or exc})") from exc

    def _take_locks(self) -> None:
        file = self.path / "lock"
        try:
            if (directory := hold_directory(self.path)) is not None:
                self._held.append(directory)
            lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            self._held.append(lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = "not known"
            with suppress(OSError):
                holder = file.read_bytes()[:20].decode("ascii", "replace").strip() or holder
            raise ConfigError(
                f"{self.path}: another godot up is using it (pid {holder}); stop it, or choose another --data-dir"
            ) from exc
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)

    def _let_go(self) -> None:
        while self._held:
            os.close(self._held.pop())
