"""Becomes a server that the kernel asks to stop when the daemon dies, in whatever way (Linux).

It is a script of its own, `python -I -S launch.py PARENT SIGNAL UID GID COMMAND…`, because this can be done nowhere
else. Between fork and exec of a process with threads no Python should run, and a change of the account afterwards would
undo it. It imports nothing of ours and nothing slow.
"""

import os
import sys
from contextlib import suppress

PR_SET_PDEATHSIG = 1


def main(parent: int, number: int, uid: int, gid: int, command: list[str]) -> None:
    """Take on the account, have the signal sent when `parent` dies, and become the command."""
    prctl = None
    if sys.platform == "linux":
        with suppress(ImportError):  # this Python was built without it: then as on other systems
            import ctypes  # before the account changes: the other one may not be allowed to read it

            prctl = ctypes.CDLL(None, use_errno=True).prctl
    if uid != os.geteuid():
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if prctl is not None and prctl(PR_SET_PDEATHSIG, number):
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit("the daemon died meanwhile")
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    parent, number, uid, gid = map(int, sys.argv[1:5])
    main(parent, number, uid, gid, sys.argv[5:])
