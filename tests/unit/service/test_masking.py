"""What is shown holds no password, however it was written."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from godot.buffer.redis.servers import find_servers
from godot.errors import ConfigError
from godot.mcp.websocket.dial import Address, NoAddress
from godot.service.lines import json_line, logfmt
from godot.service.masking import masked
from godot.service.settings import load_settings
from godot.settings import GodotSettings
from tests.programs import BIN


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://dewey:sekrit@host/winni", "postgresql://dewey:***@host/winni"),
        ("postgresql://u@h/db?password=sekrit", "postgresql://u@h/db?password=***"),
        ("postgresql://u@h/db?sslmode=require&sslpassword=sekrit#x", "postgresql://u@h/db?sslmode=require&sslpassword=***#x"),
        ("postgresql://u@h/db?p%61ssword=sekrit", "postgresql://u@h/db?p%61ssword=***"),
        ("postgresql://u:sek@rit@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u:sek/rit@h/db", "postgresql://u:***@h/db"),
        ("redis://:sekrit@h:6379/0", "redis://:***@h:6379/0"),
        ("rediss:/u:sekrit@h", "rediss:/u:***@h"),
        ("redis://h:6379/0?password=sekrit&db=1", "redis://h:6379/0?password=***&db=1"),
        ("unix:///run/redis.sock?username=u&password=sekrit", "unix:///run/redis.sock?username=u&password=***"),
        ("redis+sentinel://u:sekrit@a:1,b:2/mymaster", "redis+sentinel://u:***@a:1,b:2/mymaster"),
        ("wss://host/path?access_token=sekrit", "wss://host/path?access_token=***"),
        ("host=h password=sekrit user=u", "host=h password=*** user=u"),
        ("host=h password = sekrit user=u", "host=h password = *** user=u"),
        ("password='two sekrit words' host=h", "password=*** host=h"),
        (r"password='it\'s sekrit' host=h", "password=*** host=h"),
        (r"password=two\ sekrit host=h", "password=*** host=h"),
        ("password='sekrit without an end", "password=***"),
        ("sslpassword=sekrit sslkey=/etc/key", "sslpassword=*** sslkey=/etc/key"),
        ("cannot connect to ws://user:sekrit@host: refused", "cannot connect to ws://user:***@host: refused"),
        ("two: redis://:sekrit@a and redis://:sekrit@b", "two: redis://:***@a and redis://:***@b"),
    ],
)  # fmt: skip
def test_a_password_is_hidden_however_it_was_written(text: str, shown: str) -> None:
    """MAINT-004."""
    assert masked(text) == shown
    assert "sekrit" not in masked(text)


@pytest.mark.parametrize(
    "text",
    ["", "ws://127.0.0.1:9060", "postgresql://dewey@host/winni", "host=h user=u", "/run/secrets/token", "a=b ?c=d"],
)
def test_what_holds_no_password_is_shown_as_it_is(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize("line", [logfmt, json_line])
def test_a_status_line_shows_no_password(line: object) -> None:
    assert callable(line)
    assert "sekrit" not in line("redis_down", reason="Redis: cannot connect to redis://:sekrit@host:6379")


def test_a_value_that_a_peer_made_long_is_cut_in_a_status_line() -> None:
    """LIM-001."""
    assert len(logfmt("refused", reason="://a:" * 1_000_000)) < 3_000


@pytest.mark.parametrize(
    "environ",
    [
        {"DATABASE_URL": "postgresql://u@h/db?password=sekrit"},
        {"DATABASE_URL": "host=h password = 'two sekrit words'"},
        {"REDIS_URL": "redis://h/0?password=sekrit"},
        {"REDIS_URL": "rediss:/u:sekrit@h"},
        {"REDIS_URL": "u:sekrit@h"},
        {"DEWEY_MCP_URL": "http://u:sekrit@h"},
        {"DATABASE_URL_FILE": "postgresql://u:sekrit@h/db"},
        {"DATABASE_URL_FILE": "sekrit"},
        {"BATCH_SIZE_FILE": "sekrit"},
        {"REDIS_URL_FILE": "sekrit"},
    ],
)
def test_no_command_that_looks_at_the_settings_shows_a_password(environ: dict[str, str], tmp_path: Path) -> None:
    """MAINT-004: neither a good value, nor a bad one, nor what is in a file."""
    for name, value in environ.items():
        if name.endswith("_FILE"):
            (tmp_path / name).write_text(value)
            environ = {name: str(tmp_path / name)}
    for what in ("print", "check"):
        done = subprocess.run(
            [BIN / "godot", "config", what],
            env={"PATH": os.environ["PATH"], **environ},
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert done.stdout + done.stderr
        assert "sekrit" not in done.stdout + done.stderr


def test_a_file_that_cannot_be_used_is_named_and_so_is_what_belongs_into_it(tmp_path: Path) -> None:
    (tmp_path / "it").write_text("sekrit")
    with pytest.raises(ConfigError) as refused:
        load_settings(GodotSettings, {"BATCH_SIZE_FILE": str(tmp_path / "it"), "REDIS_URL_FILE": "/gone"}, {})
    batch, gone = sorted(refused.value.problems)
    assert batch == f"BATCH_SIZE_FILE: what {tmp_path}/it holds is no value of it; it is entries that make a batch full"
    assert gone.startswith("REDIS_URL_FILE: /gone cannot be read")


@pytest.mark.parametrize("url", ["ws://u:sek/rit@h", "ws:/u:sekrit@h", "ws://u:sekrit@h:port", "sekrit@h"])
def test_a_url_of_a_daemon_that_cannot_be_used_is_not_repeated(url: str) -> None:
    with pytest.raises(NoAddress) as refused:
        Address.parse(url)
    assert "sek" not in str(refused.value)


@pytest.mark.parametrize("url", ["redis://:sek/rit@h", "redis+sentinel://u:sek/rit@h/m", "redis+cluster://:sek#rit@h"])
def test_a_part_of_a_password_of_redis_is_not_repeated_as_a_port(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        find_servers(url, "{logs}:queue")
    assert "sek" not in str(refused.value)
