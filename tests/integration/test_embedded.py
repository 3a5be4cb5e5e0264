"""The life of embedded servers: start, stop, death, and starting again."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest
import trio

from godot.embedded import (
    EmbeddedRedis,
    EmbeddedServer,
    server,
)
from godot.embedded.processes import processes_in
from tests.integration.embedded_servers import (
    ENOUGH,
    SERVERS,
    Told,
    ask_postgres,
    ask_redis,
    becomes_true,
    corrupt,
    remember,
    remembers,
    restarted,
    running,
)
from tests.programs import append_only_file

# Start and stop


async def test_what_was_stored_is_there_after_a_stop_and_a_start(
    root: Path, told: Told, make: Callable[[Path], EmbeddedServer]
) -> None:
    async with running(make(root / "it")) as embedded:
        pid = embedded.pid
        assert pid is not None
        await remember(embedded)
    assert embedded.pid is None
    async with running(make(root / "it")) as embedded:
        again = embedded.pid
        assert await remembers(embedded)
    assert told.pids == [pid, None, again, None]
    assert told.sentences == []


async def test_stops_in_order_although_a_client_is_connected(
    root: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STOP_TIMEOUT", math.inf)  # it is never killed
    async with running(told.postgres(root / "it")) as embedded:
        connection = await trio.to_thread.run_sync(lambda: psycopg.connect(embedded.url))
    connection.close()


async def test_redis_writes_to_disk_before_it_answers_and_never_evicts(root: Path, told: Told) -> None:
    expected = {
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "port": "0",
    }
    async with running(told.redis(root / "it")) as embedded:
        for setting, value in expected.items():
            answer = await trio.to_thread.run_sync(ask_redis, embedded.url, "CONFIG", "GET", setting)
            assert answer == {setting.encode(): value.encode()}
        socket = await trio.Path(embedded.url.removeprefix("unix://")).stat()
        assert stat.S_IMODE(socket.st_mode) == 0o700


async def test_redis_without_aof_forgets(root: Path, told: Told) -> None:
    async with running(told.redis(root / "it", aof=False)) as embedded:
        await remember(embedded)
    async with running(told.redis(root / "it", aof=False)) as embedded:
        assert not await remembers(embedded)


async def test_postgres_is_utf8_in_utc_and_keeps_its_durable_defaults(root: Path, told: Told) -> None:
    query = "SELECT current_setting(name) FROM unnest(%s) AS name"
    settings = "'{server_encoding,TimeZone,fsync,synchronous_commit,full_page_writes,listen_addresses}'"
    async with running(told.postgres(root / "it")) as embedded:
        rows = await trio.to_thread.run_sync(ask_postgres, embedded.url, query % f"{settings}::text[]")
    assert [value for (value,) in rows] == ["UTF8", "UTC", "on", "on", "on", ""]


async def test_a_ctrl_c_on_the_terminal_does_not_reach_the_server(
    root: Path, make: Callable[[Path], EmbeddedServer]
) -> None:
    async with running(make(root / "it")) as embedded:
        assert embedded.pid is not None
        assert os.getsid(embedded.pid) == embedded.pid != os.getsid(0)


async def test_a_server_gets_neither_our_secrets_nor_our_port(
    root: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], EmbeddedServer]
) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("GODOT_TOKEN", "follow the white rabbit")
    async with running(make(root / "it")) as embedded:
        environment = await trio.Path(f"/proc/{embedded.pid}/environ").read_bytes()
    assert b"rabbit" not in environment
    assert b"PGPORT" not in environment


async def test_a_long_log_is_moved_away_at_the_start(root: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LOG_BYTES", 100)
    (root / "it").mkdir(mode=0o700)
    (root / "it" / "redis.log").write_text("x" * 101)
    async with running(told.redis(root / "it")):
        assert (root / "it" / "redis.log.1").read_text() == "x" * 101
        assert "x" * 101 not in (root / "it" / "redis.log").read_text()


# Death and restart


async def test_a_killed_server_is_started_again_with_what_it_had(
    root: Path, told: Told, make: Callable[[Path], EmbeddedServer]
) -> None:
    async with running(make(root / "it")) as embedded:
        await remember(embedded)
        first, url = embedded.pid, embedded.url
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await becomes_true(partial(restarted, embedded, first))
        second = embedded.pid
        assert embedded.url == url
        assert await remembers(embedded)
    assert told.pids == [first, None, second, None]
    assert told.sentences == [
        f"{embedded.title} (pid {first}) was killed by signal 9 (Killed); starting it again in 0.1 s",
        f"{embedded.title} is back (pid {second})",
    ]


async def test_a_server_that_dies_again_and_again_is_not_given_up_while_it_comes_back(
    root: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(server, "LAST_DELAY", 0.001)
    async with running(told.redis(root / "it")) as embedded:
        for _ in range(6):
            killed = embedded.pid
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            await becomes_true(partial(restarted, embedded, killed))


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Take all descriptors that this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_server_that_dies_while_no_descriptor_is_left_comes_back_when_there_is_one(
    root: Path, told: Told, make: Callable[[Path], EmbeddedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """LIM-001: it takes descriptors to look into /proc, to open the log, and to start a process."""
    monkeypatch.setattr(server, "TAKE_OVER_TIMEOUT", 0.1)
    monkeypatch.setattr(server, "LAST_DELAY", 0.1)
    async with running(make(root / "it")) as embedded:
        await remember(embedded)
        before = embedded.pid
        assert before is not None

        def tries() -> int:
            return sum("Too many open files" in sentence for sentence in told.sentences)

        with no_descriptor_left():
            os.kill(before, signal.SIGKILL)
            await becomes_true(lambda: tries() > 6)
        await becomes_true(partial(restarted, embedded, before))
        assert await remembers(embedded)


async def test_a_server_that_cannot_be_started_again_is_tried_again_until_it_can(
    root: Path, told: Told, make: Callable[[Path], EmbeddedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """REL-004: the recorder does not end for it; each try says why it failed."""
    for delay in ("FIRST_DELAY", "LAST_DELAY", "RARE_DELAY"):
        monkeypatch.setattr(server, delay, 0.001)
    async with running(make(root / "it")) as embedded:
        await remember(embedded)
        is_redis = isinstance(embedded, EmbeddedRedis)
        file = append_only_file(root / "it") if is_redis else root / "it" / "data/global/pg_control"
        file.rename(kept := file.with_suffix(".kept"))
        corrupt(file)
        before = embedded.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await becomes_true(lambda: len(told.sentences) > server.RARE_AFTER)
        kept.replace(file)
        await becomes_true(partial(restarted, embedded, before))
        assert await remembers(embedded)
    assert ("Bad file format" if is_redis else "pg_control") in told.sentences[1]


@pytest.mark.parametrize("dies", [False, True], ids=["runs on", "dies of something else"])
async def test_a_server_that_loses_its_socket_is_started_again_with_a_new_one(
    root: Path, make: Callable[[Path], EmbeddedServer], monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    """A cleaner has removed it, with its directory: nobody could connect any more, and no start would succeed."""
    monkeypatch.setattr(server, "SOCKET_LOOK", ENOUGH if dies else 0.05)
    async with running(make(root / "it")) as embedded:
        await remember(embedded)
        before = embedded.pid
        assert before is not None
        shutil.rmtree(root / "it" / "socket")
        if dies:
            os.kill(before, signal.SIGKILL)
        await becomes_true(partial(restarted, embedded, before))
        assert await remembers(embedded)


async def test_files_of_ours_that_were_removed_are_there_again_for_the_next_start(root: Path, told: Told) -> None:
    async with running(told.postgres(root / "it")) as embedded:
        await remember(embedded)
        before = embedded.pid
        assert before is not None
        for name in ("pg_hba.conf", "pg_ident.conf"):
            (root / "it" / name).unlink()
        os.kill(before, signal.SIGKILL)
        await becomes_true(partial(restarted, embedded, before))
        assert await remembers(embedded)


# Cancellation


@pytest.mark.parametrize("moment", ["data.new", "data.new/PG_VERSION", "data.new/base/5"])
async def test_a_cancelled_initdb_leaves_nothing_half_made(root: Path, told: Told, moment: str) -> None:
    with trio.fail_after(ENOUGH):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(told.postgres(root / "it").run)
            await becomes_true((root / "it" / moment).exists)
            nursery.cancel_scope.cancel()
        assert processes_in(root, SERVERS) == {}
    names = {path.name for path in (root / "it").iterdir()}
    assert names == {"pg_hba.conf", "pg_ident.conf"}
    async with running(told.postgres(root / "it")) as embedded:
        await remember(embedded)


async def test_a_server_that_does_not_stop_is_killed(
    root: Path, make: Callable[[Path], EmbeddedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STOP_TIMEOUT", 0.05)
    async with running(make(root / "it")) as embedded:
        assert embedded.pid is not None
        os.kill(embedded.pid, signal.SIGSTOP)
    assert processes_in(root, SERVERS) == {}
