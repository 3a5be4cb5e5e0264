"""Where the daemon is that a command asks, and as whom it is asked. Imports nothing slow before that is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from godot.errors import ConfigError

if TYPE_CHECKING:
    from godot.mcp.websocket.dial import Address

DEFAULT_URL: Final = "ws://127.0.0.1:9060"


class Target(NamedTuple):
    """Where to connect, and as whom."""

    address: Address
    token: str | None

    def __repr__(self) -> str:
        """Return it without the token."""
        return f"Target({self.address})"


def read_target(url: str | None, token_file: Path | None, environ: Mapping[str, str]) -> tuple[Target, list[str]]:
    """Make the target out of the options and the environment.

    :param url: without it GODOT_URL counts, then what a running `godot up` says of itself, then `DEFAULT_URL`.
    :param token_file: without it GODOT_TOKEN counts; without both there is no token.
    :returns: the target, and no warnings.
    :raises ConfigError: one of them cannot be used; a token is never part of the message.
    """
    from godot.mcp.websocket.dial import Address, NoAddress
    from godot.service.tokens import read_token

    token = environ.get("GODOT_TOKEN", "").strip() if token_file is None else read_token(token_file)
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigError(f"{token_file or 'GODOT_TOKEN'}: a token is one word of printable ASCII characters")
    try:
        address = Address.parse(url or environ.get("GODOT_URL") or _running_here(environ) or DEFAULT_URL)
    except NoAddress as exc:
        raise ConfigError(str(exc)) from None
    return Target(address, token or None), []


def _running_here(environ: Mapping[str, str]) -> str | None:
    from godot.embedded.datadir import default_data_dir, read_endpoints

    directory = environ.get("GODOT_DATA_DIR")
    try:
        url = read_endpoints(Path(directory) if directory else default_data_dir()).get("mcp")
    except ConfigError:
        return None
    return str(url) if url else None
