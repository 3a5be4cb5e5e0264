"""Whom a daemon warns about the file with its tokens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from godot.service import doors
from godot.service.doors import _warn_of_readers


@pytest.mark.parametrize(
    ("mode", "owner", "secret", "warned"),
    [
        (0o644, 0, False, True),
        (0o640, 0, False, True),
        (0o600, 0, False, False),
        (0o644, 1, False, False),
        (0o644, 0, True, False),
    ],
    ids=["all read it", "its group reads it", "its own", "of the host's user", "a secret of a container"],
)
def test_who_did_what_the_docs_say_of_tokens_is_not_warned(
    mode: int,
    owner: int,
    secret: bool,
    warned: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "tokens"
    file.touch()
    file.chmod(mode)
    us = os.geteuid() + owner
    monkeypatch.setattr(os, "geteuid", lambda: us)
    if secret:
        monkeypatch.setattr(doors, "SECRETS", tmp_path.resolve())
    lines: list[str] = []
    monkeypatch.setattr(doors, "print_line", lines.append)
    _warn_of_readers(file)
    assert ["tokens_readable" in line for line in lines] == [True] * warned
