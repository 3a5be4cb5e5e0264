"""Settings: what they are when nothing is said, and what is said about those that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from dewey_logs.settings import DeweyServeSettings, DeweySettings
from godot.combined import CombinedSettings, load_combined
from godot.errors import ConfigError
from godot.service.doors import make_gate
from godot.service.settings import load_settings
from godot.settings import GodotSettings

REDIS_SCHEMES = "redis:// or rediss:// or unix:// or redis+sentinel:// or redis+cluster://"


def godot(**environ: str) -> CombinedSettings:
    settings, warnings = load_combined(environ, {})
    assert warnings == []
    return settings


def problems(**environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as refused:
        load_combined(environ, {})
    return refused.value.problems


def test_godot_runs_with_nothing_set() -> None:
    """MAINT-004, GOD-000, GOD-002, GOD-004, REL-005, SEC-006: the figures of the requirements are the defaults."""
    settings = godot()
    assert (settings.host, settings.port) == ("127.0.0.1", 9060)
    assert (settings.batch_size, settings.batch_timeout_ms, settings.max_queue_size) == (100, 100, 100_000)
    assert (settings.queue_name, settings.retention_days, settings.drain_s) == ("logs:queue", 7, 8.0)
    assert settings.max_message_bytes == 16 * 1024 * 1024
    assert settings.aof is True
    assert settings.allow_anonymous is False
    assert (settings.redis_url, settings.database_url, settings.dewey_mcp_url) == (None, None, None)


def test_dewey_runs_with_nothing_set() -> None:
    settings, _ = load_settings(DeweyServeSettings, {}, {})
    assert (settings.host, settings.port, settings.retention_days) == ("127.0.0.1", 9020, 7)


def test_every_name_that_deployments_use_is_read() -> None:
    """MAINT-004."""
    settings = godot(
        DEWEY_MCP_URL="ws://dewey-mcp:9020",
        BATCH_SIZE="50",
        BATCH_TIMEOUT_MS="250",
        MAX_QUEUE_SIZE="1000",
        LOG_QUEUE_NAME="{logs}:queue",
        REDIS_PERSISTENCE="aof",
        REDIS_AOF_ENABLED="true",
        LOG_RETENTION_DAYS="30",
        LOG_PARTITION_ENABLED="false",
        REDIS_URL="unix:///run/redis.sock",
        DATABASE_URL="postgresql://winni@db/winni",
        GODOT_HOST="::1",
        GODOT_PORT="0",
        GODOT_DRAIN_S="0",
        GODOT_DATA_DIR="/data",
    )
    assert settings.dewey_mcp_url == "ws://dewey-mcp:9020"
    assert (settings.batch_size, settings.batch_timeout_ms, settings.max_queue_size) == (50, 250, 1000)
    assert (settings.queue_name, settings.redis_persistence, settings.redis_aof_enabled) == (
        "{logs}:queue",
        "aof",
        True,
    )
    assert (settings.retention_days, settings.partition_enabled) == (30, False)
    assert (settings.redis_url, settings.database_url) == ("unix:///run/redis.sock", "postgresql://winni@db/winni")
    assert (settings.host, settings.port, settings.drain_s, settings.data_dir) == ("::1", 0, 0.0, Path("/data"))


def test_an_empty_variable_counts_as_one_that_is_not_set() -> None:
    """Compose files write `REDIS_URL: ${REDIS_URL:-}`."""
    assert godot(REDIS_URL="", BATCH_SIZE="", GODOT_PORT="") == godot()


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("BATCH_SIZE", "0", "must be a whole number from 1 to 1,000, not 0"),
        ("BATCH_SIZE", "1001", "must be a whole number from 1 to 1,000, not 1001"),
        ("BATCH_SIZE", "many", "must be a whole number from 1 to 1,000, not 'many'"),
        ("BATCH_SIZE", "1.5", "must be a whole number from 1 to 1,000, not '1.5'"),
        ("BATCH_TIMEOUT_MS", "-1", "must be a whole number from 1 to 60,000, not -1"),
        ("MAX_QUEUE_SIZE", "0", "must be a whole number of 1 or more, not 0"),
        ("LOG_RETENTION_DAYS", "0", "must be a whole number from 1 to 3,650, not 0"),
        ("GODOT_PORT", "65536", "must be a whole number from 0 to 65,535, not 65536"),
        ("GODOT_DRAIN_S", "-0.1", "must be a number of seconds from 0 to 86,400, not '-0.1'"),
        ("GODOT_DRAIN_S", "nan", "must be a number of seconds from 0 to 86,400, not 'nan'"),
        ("GODOT_DRAIN_S", "inf", "must be a number of seconds from 0 to 86,400, not 'inf'"),
        ("DEWEY_QUERY_TIMEOUT_S", "10000000", "must be a number of seconds from 0.1 to 86,400, not '10000000'"),
        ("GODOT_STATUS_S", "soon", "must be a number of seconds from 0.1 to 86,400, not 'soon'"),
        ("LOG_PARTITION_ENABLED", "maybe", "must be true or false, not 'maybe'"),
        ("REDIS_AOF_ENABLED", "aof", "must be true or false, not 'aof'"),
        ("REDIS_PERSISTENCE", "rdb", "must be aof or none, not 'rdb'"),
        ("REDIS_URL", "localhost:6379", f"must begin with {REDIS_SCHEMES}, not 'localhost:6379'"),
        ("REDIS_URL", "redis", f"must begin with {REDIS_SCHEMES}, not 'redis'"),
        ("DEWEY_MCP_URL", "http://dewey:9020", "must begin with ws:// or wss://, not 'http://dewey:9020'"),
        ("DATABASE_URL", "secret-host", "must be a DSN such as postgresql://user@host:5432/winni"),
    ],
)
def test_a_bad_value_is_one_line_that_says_what_is_allowed(name: str, value: str, problem: str) -> None:
    """MAINT-004."""
    assert problems(**{name: value}) == (f"{name}: {problem}",)


def test_every_bad_value_is_named_at_once_one_line_each() -> None:
    """MAINT-004."""
    found = problems(BATCH_SIZE="x\ny", GODOT_PORT="y", REDIS_URL="z")
    assert [line.partition(":")[0] for line in found] == ["GODOT_PORT", "REDIS_URL", "BATCH_SIZE"]
    assert not any("\n" in line for line in found)


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("TRUE", True), ("1", True), ("on", True), ("No", False), ("0", False)]
)
def test_true_and_false_are_written_in_many_ways(text: str, *, value: bool) -> None:
    assert godot(LOG_PARTITION_ENABLED=text).partition_enabled is value


@pytest.mark.parametrize("dsn", ["postgresql://u@h/winni", "postgres://h/winni", "host=/run dbname=winni"])
def test_a_dsn_is_a_url_or_words(dsn: str) -> None:
    assert godot(DATABASE_URL=dsn).database_url == dsn


def test_a_bad_dsn_is_not_repeated_because_it_may_hold_a_password() -> None:
    assert "hunter2" not in "".join(problems(DATABASE_URL="mysql://root:hunter2@h/x"))


@pytest.mark.parametrize(
    ("persistence", "enabled", "aof"),
    [
        ("", "", True),
        ("aof", "", True),
        ("none", "", False),
        ("NONE", "", False),
        ("", "true", True),
        ("", "false", False),
        ("aof", "true", True),
        ("none", "false", False),
    ],
)
def test_either_name_switches_the_append_only_file(persistence: str, enabled: str, *, aof: bool) -> None:
    """REL-001."""
    assert godot(REDIS_PERSISTENCE=persistence, REDIS_AOF_ENABLED=enabled).aof is aof


@pytest.mark.parametrize(("persistence", "enabled"), [("none", "true"), ("aof", "false")])
def test_the_two_names_must_not_contradict_each_other(persistence: str, enabled: str) -> None:
    """REL-001: durability is nothing to guess about."""
    assert problems(REDIS_PERSISTENCE=persistence, REDIS_AOF_ENABLED=enabled) == (
        "REDIS_AOF_ENABLED and REDIS_PERSISTENCE contradict each other; set one of them",
    )


def test_an_unknown_name_of_ours_is_warned_about_with_the_nearest_known_one() -> None:
    environ = {
        "GODOT_PROT": "1",
        "DEWEY_MCP_URI": "ws://x",
        "GODOT_SERVICE_HOST_XYZQ": "10.0.0.1",  # orchestrators make such variables
        "PATH": "/bin",
        "godot_port": "1",
    }
    _, warnings = load_combined(environ, {})
    assert warnings == [
        "DEWEY_MCP_URI: no such setting; did you mean 'DEWEY_MCP_URL'?",
        "GODOT_PROT: no such setting; did you mean 'GODOT_PORT'?",
        warnings[-1],
    ]
    assert warnings[-1].startswith("GODOT_SERVICE_HOST_XYZQ: no such setting")


def test_names_of_the_other_daemon_and_of_clients_are_known() -> None:
    """PERF-001: GODOT_URL is for components, and stands in the same environment file."""
    environ = {"GODOT_URL": "ws://godot:9060", "DEWEY_PORT": "9020", "GODOT_PORT": "9060"}
    assert load_combined(environ, {})[1] == []
    assert load_settings(DeweyServeSettings, environ, {})[1] == []


def test_what_was_given_on_the_command_line_wins() -> None:
    overrides = {"port": 0, "host": None, "batch_size": 7}
    settings, _ = load_combined({"GODOT_PORT": "1", "GODOT_HOST": "::1", "BATCH_SIZE": "no number"}, overrides)
    assert (settings.port, settings.host, settings.batch_size) == (0, "::1", 7)


@pytest.mark.parametrize("kind", [CombinedSettings, DeweyServeSettings])
def test_every_setting_says_what_it_means_and_its_default_is_allowed(kind: type[Any]) -> None:
    settings, _ = load_settings(kind, {}, {})
    names = [field.metadata["name"] for field in attrs.fields(kind)]
    assert len(set(names)) == len(names)
    for field in attrs.fields(kind):
        value = getattr(settings, field.name)
        assert field.metadata["meaning"]
        if type(value) in (int, float, str):
            assert field.metadata["parse"](str(value)) == value


def test_godot_knows_what_dewey_has_to_know_because_it_may_run_inside() -> None:
    assert issubclass(CombinedSettings, DeweySettings)
    assert not issubclass(GodotSettings, DeweySettings)


# Who may connect


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_listening_on_this_machine_needs_no_tokens(host: str) -> None:
    """SEC-006."""
    assert make_gate(attrs.evolve(godot(), host=host)).tokens == {}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.7", "godot.example", "localhost.example"])
def test_listening_beyond_this_machine_without_tokens_is_refused_and_says_what_to_do(host: str) -> None:
    """SEC-006."""
    with pytest.raises(ConfigError) as refused:
        make_gate(attrs.evolve(godot(), host=host))
    assert str(refused.value) == (
        f"listening on {host} would let anyone in who can reach it; listen on 127.0.0.1, give tokens with "
        "GODOT_TOKENS_FILE, or set GODOT_ALLOW_ANONYMOUS=true if it is meant"
    )
    dewey, _ = load_settings(DeweyServeSettings, {"DEWEY_HOST": "0.0.0.0"}, {})
    with pytest.raises(ConfigError, match="DEWEY_TOKENS_FILE, or set DEWEY_ALLOW_ANONYMOUS=true"):
        make_gate(dewey)


def test_listening_beyond_this_machine_is_allowed_when_it_is_meant() -> None:
    """SEC-006."""
    assert make_gate(godot(GODOT_HOST="0.0.0.0", GODOT_ALLOW_ANONYMOUS="true")).tokens == {}


def test_listening_beyond_this_machine_is_allowed_with_tokens(tmp_path: Path) -> None:
    """SEC-006."""
    file = tmp_path / "tokens"
    file.write_text("write,read 0123456789abcdef\n")
    gate = make_gate(godot(GODOT_HOST="0.0.0.0", GODOT_TOKENS_FILE=str(file)))
    assert list(gate.tokens.values()) == [{"write", "read"}]


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    """MAINT-004: as containers have them."""
    secret = tmp_path / "database_url"
    secret.write_text("postgresql://dewey:secret@winni/winni\n")
    settings, warnings = load_combined({"DATABASE_URL_FILE": str(secret), "GODOT_DRAIN_S_FILE": ""}, {})
    assert (settings.database_url, warnings) == ("postgresql://dewey:secret@winni/winni", [])
    named, _ = load_combined({"DATABASE_URL_FILE": str(secret), "DATABASE_URL": "postgresql://here/winni"}, {})
    assert named.database_url == "postgresql://here/winni"
    with pytest.raises(ConfigError, match=r"^DATABASE_URL_FILE: \S+missing cannot be read: No such file or directory$"):
        load_combined({"DATABASE_URL_FILE": str(tmp_path / "missing")}, {})


def test_a_bad_value_does_not_hide_a_name_that_is_not_known() -> None:
    with pytest.raises(ConfigError) as wrong:
        load_combined({"BATCH_SIZE": "many", "GODOT_PROT": "1"}, {})
    assert [each.partition(":")[0] for each in (*wrong.value.problems, *wrong.value.warnings)] == [
        "BATCH_SIZE",
        "GODOT_PROT",
    ]


@pytest.mark.parametrize("name", ["GODOT_FOO", "DEWEY_BAR", "GODOT_", "GODOT_LOGGER_NOPE"])
def test_what_only_begins_like_a_setting_is_taken_for_none(name: str) -> None:
    assert load_combined({name: "1"}, {})[1] == [f"{name}: no such setting"]


def test_a_queue_smaller_than_a_message_is_warned_about() -> None:
    """GOD-005: entries that it cannot hold are refused."""
    _, warnings = load_combined({"GODOT_MAX_QUEUE_BYTES": "2000"}, {})
    assert warnings == [
        "GODOT_MAX_QUEUE_BYTES is 2,000, and GODOT_MAX_MESSAGE_BYTES lets messages of 16,777,216 in: entries that are "
        "larger than the queue are refused"
    ]
    assert load_combined({"GODOT_MAX_QUEUE_BYTES": "2000", "GODOT_MAX_MESSAGE_BYTES": "2000"}, {})[1] == []
