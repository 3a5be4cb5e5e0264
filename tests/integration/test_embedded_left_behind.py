"""What a killed daemon leaves behind: its servers, and what they keep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from godot.embedded import (
    EmbeddedServer,
)
from godot.embedded.processes import processes_in
from godot.errors import ConfigError
from tests.integration.embedded_servers import (
    DAEMON,
    ENOUGH,
    SERVERS,
    Told,
    becomes_true,
    remember,
    remembers,
    restarted,
    running,
)


async def start_daemon(nursery: trio.Nursery, root: Path) -> trio.Process:
    command = [sys.executable, "-c", DAEMON, str(root / "state"), str(root)]

    process: trio.Process = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE, check=False))
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT, signal.SIGSEGV])
async def test_servers_of_a_killed_daemon_end_by_themselves_and_nothing_is_lost(
    root: Path, told: Told, number: signal.Signals
) -> None:
    with trio.fail_after(ENOUGH):
        async with trio.open_nursery() as nursery:
            daemon = await start_daemon(nursery, root)
            assert daemon.stdout is not None
            assert await daemon.stdout.receive_some()
            stored = Told()
            for kind, make in (("redis", stored.redis), ("postgres", stored.postgres)):
                there = make(root / kind)
                there._sockets = root / kind / "socket"
                there.url = there._url()
                await remember(there)
            assert len(processes_in(root, SERVERS)) >= 2
            daemon.send_signal(number)
        await becomes_true(lambda: processes_in(root, SERVERS) == {})
    assert "database system is shut down" in (root / "postgres" / "postgres.log").read_text().splitlines()[-1]
    for embedded in (told.redis(root / "redis"), told.postgres(root / "postgres")):
        async with running(embedded):
            assert await remembers(embedded)


async def test_servers_that_outlive_a_killed_daemon_are_replaced(root: Path, told: Told) -> None:
    """A stopped process takes no signal but SIGKILL."""
    with trio.fail_after(ENOUGH):
        async with trio.open_nursery() as nursery:
            daemon = await start_daemon(nursery, root)
            assert daemon.stdout is not None
            assert await daemon.stdout.receive_some()
            left = processes_in(root, SERVERS)
            for pid in left:
                os.kill(pid, signal.SIGSTOP)
            daemon.kill()
    assert set(left) <= set(processes_in(root, SERVERS))

    for embedded in (told.redis(root / "redis"), told.postgres(root / "postgres")):
        async with running(embedded):
            assert embedded.pid not in left
            await remember(embedded)
    assert processes_in(root, SERVERS) == {}


async def test_the_server_of_a_living_daemon_is_not_taken_for_one_that_was_left_behind(
    root: Path, told: Told, make: Callable[[Path], EmbeddedServer]
) -> None:
    async with running(make(root / "it")) as embedded:
        await remember(embedded)
        with pytest.raises(ConfigError, match=f"another Godot runs its {embedded.title} there"):
            await make(root / "it").run()
        assert await remembers(embedded)
    assert told.sentences == []


def children_of_the_main_thread() -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except FileNotFoundError:
        pytest.skip("this kernel does not tell the children of a thread")


async def test_a_server_is_a_child_of_the_thread_that_lives_as_long_as_we_do(
    root: Path, make: Callable[[Path], EmbeddedServer]
) -> None:
    """The kernel tells it of the death of that thread. Threads of trio's end when they are idle for 10 s."""
    async with running(make(root / "it")) as embedded:
        assert embedded.pid in children_of_the_main_thread()


async def test_initdb_of_a_killed_daemon_is_in_nobodys_way(root: Path, told: Told) -> None:
    with trio.fail_after(ENOUGH):
        async with trio.open_nursery() as nursery:
            daemon = await start_daemon(nursery, root)
            await becomes_true((root / "postgres" / "data.new" / "PG_VERSION").exists)
            daemon.kill()
    async with running(told.redis(root / "redis")), running(told.postgres(root / "postgres")) as embedded:
        await remember(embedded)
        assert not (root / "postgres" / "data.new").exists()


async def test_processes_of_a_killed_postgres_are_gone_before_the_next_one_starts(root: Path, told: Told) -> None:
    async with running(told.postgres(root / "it")) as embedded:
        before = set(processes_in(root, SERVERS))
        assert embedded.pid is not None
        # Stopped processes notice nothing by themselves, as one that is deep in a query.
        for pid in before - {embedded.pid}:
            os.kill(pid, signal.SIGSTOP)
        os.kill(embedded.pid, signal.SIGKILL)
        await becomes_true(partial(restarted, embedded, embedded.pid))
        assert before.isdisjoint(processes_in(root, SERVERS))


async def test_a_stranger_who_has_the_pid_by_now_is_left_alone_and_does_not_hinder(root: Path, told: Told) -> None:
    embedded = told.postgres(root / "it")
    async with running(embedded):
        pid_file = root / "it" / "data" / "postmaster.pid"
        content = pid_file.read_text().splitlines()
    with trio.fail_after(ENOUGH):
        async with trio.open_nursery() as nursery:
            stranger: trio.Process = await nursery.start(
                partial(
                    trio.run_process,
                    ["sleep", "60"],
                    cwd=root / "it",
                    check=False,
                    **embedded.account.popen,
                )
            )
            pid_file.write_text("\n".join([str(stranger.pid), *content[1:]]) + "\n")
            async with running(told.postgres(root / "it")):
                assert stranger.poll() is None
            nursery.cancel_scope.cancel()
