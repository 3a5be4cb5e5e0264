"""The data directory: one holder, whatever the one before died of, and endpoints that are whole or absent."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from godot.embedded.datadir import DataDir, default_data_dir
from godot.errors import ConfigError

AS_ROOT = os.geteuid() == 0

HOLD = """
import sys
from collections.abc import Callable
from pathlib import Path
from godot.embedded.datadir import DataDir

with DataDir(Path(sys.argv[1])) as data_dir:
    data_dir.write_endpoints({"mcp": "ws://127.0.0.1:1"})
    print("held", flush=True)
    sys.stdin.read()
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_makes_the_directory_and_what_is_missing_above_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with DataDir(tmp_path / "a" / "b"):
            expected = 0o711 if AS_ROOT else 0o700
            assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "b")) == (expected, expected)
    finally:
        os.umask(before)


def test_leaves_the_permissions_of_an_existing_directory_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    with DataDir(tmp_path):
        assert mode(tmp_path) == 0o750


def test_a_second_one_is_told_who_is_in_the_way_and_what_to_do(tmp_path: Path) -> None:
    with DataDir(tmp_path), pytest.raises(ConfigError) as refused, DataDir(tmp_path):
        pass
    assert str(refused.value) == (
        f"{tmp_path}: another godot up is using it (pid {os.getpid()}); stop it, or choose another --data-dir"
    )


def test_the_first_one_still_holds_it_after_a_second_one_was_refused(tmp_path: Path) -> None:
    with DataDir(tmp_path) as first:
        first.write_endpoints({})
        for _ in range(2):
            with pytest.raises(ConfigError), DataDir(tmp_path):
                pass
        assert (tmp_path / "endpoints.json").exists()


def test_without_the_lock_file_which_a_cleaner_has_removed_it_is_held_all_the_same(tmp_path: Path) -> None:
    with DataDir(tmp_path) as first:
        first.write_endpoints({})
        (tmp_path / "lock").unlink()
        with pytest.raises(ConfigError, match=r"another godot up is using it \(pid not known\)"), DataDir(tmp_path):
            pass
        assert not first.lacks_endpoints


def test_one_that_locks_the_file_alone_is_noticed(tmp_path: Path) -> None:
    """A Godot of before, or one on a file system that locks no directories."""
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another godot up is using it"), DataDir(tmp_path):
            pass
    with DataDir(tmp_path):
        pass


def test_can_be_held_again_after_it_was_let_go(tmp_path: Path) -> None:
    for _ in range(2):
        with DataDir(tmp_path):
            assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_what_a_killed_holder_left_behind_hinders_nobody(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(ConfigError, match=rf"\(pid {holder.pid}\)"), DataDir(tmp_path):
                pass
        finally:
            holder.kill()
    assert (tmp_path / "endpoints.json").exists()
    with DataDir(tmp_path):
        assert not (tmp_path / "endpoints.json").exists()


def test_a_child_that_outlives_the_holder_does_not_hold_it(tmp_path: Path) -> None:
    with DataDir(tmp_path):
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False)
    try:
        with DataDir(tmp_path):
            pass
    finally:
        child.communicate()


def test_endpoints_are_for_the_owner_only_and_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.json"
    with DataDir(tmp_path) as data_dir:
        for pid in (1, 2):
            data_dir.write_endpoints({"dewey": None, "pids": {"redis": pid}})
            assert json.loads(path.read_text()) == {"dewey": None, "pids": {"redis": pid}}
        assert mode(path) == 0o600
    assert {entry.name for entry in tmp_path.iterdir()} == {"lock"}


def test_a_file_in_its_place_is_a_config_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (file, file / "below"):
        with pytest.raises(ConfigError, match=r"cannot be the data directory \(Not a directory\)"), DataDir(path):
            pass


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(ConfigError, match="cannot be the data directory"), DataDir(tmp_path):
        pass
    assert not (tmp_path / "precious").exists()


def give_away(path: Path) -> None:
    os.chown(path, 12345, 12345)


def open_to_a_group(path: Path) -> None:
    os.chown(path, 0, 12345)
    path.chmod(0o770)


@pytest.mark.skipif(not AS_ROOT, reason="only root overwrites files of others")
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (give_away, "belongs to the user 12345"),
        (lambda path: path.chmod(0o1777), "others may write into it"),
        (open_to_a_group, "others may write into it"),
    ],
    ids=["owned by another", "open to all", "open to a group"],
)
def test_root_refuses_a_directory_into_which_somebody_else_can_put_a_link(
    tmp_path: Path, make: Callable[[Path], None], why: str
) -> None:
    make(tmp_path)
    with pytest.raises(ConfigError, match=f"{tmp_path}: {why}.*choose another --data-dir"), DataDir(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["endpoints.json", "endpoints.new"])
def test_a_link_in_place_of_the_endpoints_is_not_followed(tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    with DataDir(tmp_path) as data_dir:
        (tmp_path / name).symlink_to(precious)
        data_dir.write_endpoints({"mcp": "ws://127.0.0.1:1"})
        assert "ws://" in (tmp_path / "endpoints.json").read_text()
    assert precious.read_text() == "mine"


@pytest.mark.skipif(AS_ROOT, reason="root may write anywhere")
def test_a_directory_that_may_not_be_written_is_a_config_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ConfigError, match="Permission denied"), DataDir(tmp_path):
            pass
    finally:
        tmp_path.chmod(0o700)


def test_endpoints_that_cannot_be_written_are_a_config_error(tmp_path: Path) -> None:
    with DataDir(tmp_path) as data_dir:
        (tmp_path / "endpoints.new").mkdir()
        with pytest.raises(ConfigError, match=r"endpoints\.json: cannot be written"):
            data_dir.write_endpoints({})


def test_root_has_its_data_below_var_lib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_dir() == Path("/var/lib/godot/data")


@pytest.mark.parametrize(
    ("data_home", "expected"),
    [
        ("/data", "/data/godot"),
        ("relative", "/home/vladimir/.local/share/godot"),
        ("", "/home/vladimir/.local/share/godot"),
    ],
)
def test_others_have_it_where_xdg_says(monkeypatch: pytest.MonkeyPatch, data_home: str, expected: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/vladimir")
    monkeypatch.setenv("XDG_DATA_HOME", data_home)
    assert default_data_dir() == Path(expected)
