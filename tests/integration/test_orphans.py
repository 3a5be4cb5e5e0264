"""The first process of a container reaps what it adopts, and leaves alone what is its own."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import ctypes, os, subprocess, sys, trio
from godot.service.orphans import _zombies, reap_orphans

PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1) == 0

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reap_orphans, 0.1)
        # A shell that dies before its child: the child becomes ours, and then a zombie.
        orphan = int(subprocess.check_output(["sh", "-c", "sleep 0.05 >/dev/null & echo $!"]))
        assert os.path.exists(f"/proc/{orphan}")
        for _ in range(30):
            done = await trio.run_process(["sh", "-c", "exit 7"], check=False)
            assert done.returncode == 7, "a child of our own keeps its exit code"
        while os.path.exists(f"/proc/{orphan}"):
            await trio.sleep(0.01)
        assert not list(_zombies())
        nursery.cancel_scope.cancel()

trio.run(main)
"""


def test_an_adopted_process_that_ends_does_not_stay_a_zombie() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], timeout=40, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
