"""Where a command finds the daemon, and the token that it presents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from godot.cli.target import DEFAULT_URL, read_target
from godot.errors import ConfigError

SAID, FROM_ENVIRONMENT, OF_UP = "ws://said:1", "ws://environment:2", "ws://127.0.0.1:3"


def test_an_option_counts_before_the_environment_and_that_before_a_running_up(tmp_path: Path) -> None:
    environ = {"GODOT_DATA_DIR": str(tmp_path)}
    assert str(read_target(None, None, environ)[0].address) == DEFAULT_URL
    (tmp_path / "endpoints.json").write_text(json.dumps({"mcp": OF_UP}))
    assert str(read_target(None, None, environ)[0].address) == OF_UP
    environ["GODOT_URL"] = FROM_ENVIRONMENT
    assert str(read_target(None, None, environ)[0].address) == FROM_ENVIRONMENT
    assert str(read_target(SAID, None, environ)[0].address) == SAID


def test_a_token_comes_from_the_file_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(" from-file\n")
    assert read_target(SAID, file, {"GODOT_TOKEN": "from-env"})[0].token == "from-file"
    assert read_target(SAID, None, {"GODOT_TOKEN": "from-env\n"})[0].token == "from-env"
    assert read_target(SAID, None, {"GODOT_TOKEN": ""})[0].token is None
    assert "from-env" not in repr(read_target(SAID, None, {"GODOT_TOKEN": "from-env"})[0])


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"secret\r\nX-Other: header", b"secr\xc3\xa9t", b"\xff"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        read_target(SAID, file, {"GODOT_TOKEN": ""})
    assert str(file) in str(refused.value)
    assert "secr" not in str(refused.value)


def test_a_token_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: the token cannot be read"):
        read_target(SAID, tmp_path / "nowhere", {"GODOT_TOKEN": "from-env"})
