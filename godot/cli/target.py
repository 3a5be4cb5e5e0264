"""Where a daemon is, and as whom it is spoken to."""

from __future__ import annotations

from pathlib import Path

import attrs

from godot.errors import ConfigError
from godot.mcp.websocket.dial import Address, NoAddress
from godot.service.tokens import read_token


@attrs.frozen
class Target:
    """Where to connect, and as whom."""

    address: Address
    token: str | None = attrs.field(repr=False)


def read_target(url: str, token_file: Path | None, token: str) -> tuple[Target, list[str]]:
    """Make the target out of the options and the environment.

    :param token: what counts without a file; empty for none.
    :returns: the target, and no warnings.
    :raises ConfigError: one of them cannot be used; a token is never part of the message.
    """
    token = token.strip() if token_file is None else read_token(token_file)
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigError(f"{token_file or 'GODOT_TOKEN'}: a token is one word of printable ASCII characters")
    try:
        address = Address.parse(url)
    except NoAddress as exc:
        raise ConfigError(str(exc)) from None
    return Target(address, token or None), []
