"""Tokens in files: those that a daemon accepts, and the one that a program presents."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from godot.errors import ConfigError, why_unreadable
from godot.mcp.toolbox import ROLES, Role

MIN_TOKEN_CHARS: Final = 16


def read_tokens(path: Path) -> dict[bytes, frozenset[Role]]:
    """Read a file of tokens. A line has roles with commas between, a blank, and the token; `#` begins a comment.

    :raises ConfigError: one line for each fault; none of them shows a token.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: the file of tokens cannot be read: {why_unreadable(exc)}") from exc
    tokens: dict[bytes, frozenset[Role]] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        roles = frozenset(words[0].split(","))
        if len(words) != 2 or not roles <= ROLES:
            problems.append(f"{path} line {number}: must be `ROLES TOKEN`, roles being write, read, admin")
        elif len(words[1]) < MIN_TOKEN_CHARS:
            problems.append(f"{path} line {number}: the token is shorter than {MIN_TOKEN_CHARS} characters")
        else:
            tokens[hashlib.sha256(words[1].encode()).digest()] = ROLES & roles
    if not problems and not tokens:
        problems.append(f"{path}: there is no token in it; nobody could come in")
    if problems:
        raise ConfigError(*problems)
    return tokens


def read_token(path: Path) -> str:
    """Read the file with the one token that this program presents to a server.

    :raises ConfigError: it cannot be read, or is not one word.
    """
    try:
        words = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: the token cannot be read: {why_unreadable(exc)}") from exc
    if len(words) != 1 or not words[0].isascii():
        raise ConfigError(f"{path}: must hold one token and nothing else")
    return words[0]
