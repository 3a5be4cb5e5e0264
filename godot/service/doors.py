"""The two doors of a daemon, MCP and HTTP: their addresses, which clients they let in, and how many."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import attrs
import trio

from godot.errors import ConfigError
from godot.mcp.access import LOOPBACK, Gate, is_loopback
from godot.service.descriptors import Connections, raise_limit, share_out
from godot.service.lines import print_line, status_line
from godot.service.ports import open_listeners
from godot.service.settings import DaemonSettings
from godot.service.tokens import read_tokens

SECRETS: Final = Path("/run/secrets")
"""The directory of secrets in a container."""

TOKENS_S: Final = 1.0
"""How often the file of tokens is read."""


@attrs.frozen
class Doors:
    """The ports of a daemon, and their gate.

    :param mcp: bound, and accepting nothing yet.
    :param http: the same.
    :param tokens_file: the source of the gate's tokens.
    """

    gate: Gate
    mcp: list[trio.SocketListener]
    http: list[trio.SocketListener]
    connections: Connections
    tokens_file: Path | None

    async def watch_tokens(self) -> None:
        """Take over the tokens when their file changes. Returns at once if there is none, else runs until cancelled.

        A file with a fault changes nothing: the tokens from before stay.
        """
        if self.tokens_file is None:
            return
        said = None
        while True:
            await trio.sleep(TOKENS_S)
            try:
                tokens = await trio.to_thread.run_sync(read_tokens, self.tokens_file)
            except ConfigError as exc:
                if str(exc) != said:
                    said = str(exc)
                    print_line(status_line("tokens_not_read", reason=said))
                continue
            said = None
            if tokens != self.gate.tokens:
                self.gate.tokens.clear()
                self.gate.tokens.update(tokens)
                print_line(status_line("tokens_changed", tokens=len(tokens)))


async def open_doors(settings: DaemonSettings) -> Doors:
    """Listen as the settings say, and raise the limit of descriptors as far as possible.

    :raises ConfigError: the address cannot be used, anyone would be let in (SEC-006), or there are too few descriptors.
    """
    prefix = settings.prefix
    connections = share_out(f"{prefix}_MAX_CONNECTIONS", settings.max_connections, raise_limit())
    await check_address(settings)  # a wrong address is reported before missing tokens
    gate = make_gate(settings)
    if settings.tokens_file is not None:
        _warn_of_readers(settings.tokens_file)
    mcp = await open_listeners(settings.host, settings.port, prefix)
    http = await open_listeners(settings.host, http_port(settings.port, settings.http_port), prefix)
    ports = frozenset(each.socket.getsockname()[1] for each in (*mcp, *http))
    return Doors(attrs.evolve(gate, ports=ports), mcp, http, connections, settings.tokens_file)


async def check_address(settings: DaemonSettings) -> None:
    """Check that this machine has the address to listen on.

    :raises ConfigError: it has not, or there is no such host.
    """
    prefix = settings.prefix
    for listener in await open_listeners(settings.host, 0, prefix):
        await listener.aclose()


def _warn_of_readers(path: Path) -> None:
    """Warn if other users may read the tokens, and the file is ours, so that its mode can be mended.
    A secret of a container belongs to a user of the host, and must be readable for the user in the container; the
    directory above it keeps others out.
    """
    found = path.stat()
    mode = found.st_mode & 0o777
    if mode & 0o077 and found.st_uid == os.geteuid() and SECRETS not in path.resolve().parents:
        print_line(status_line("tokens_readable", reason=f"{path} has mode {mode:04o}: others may read it; chmod 600"))


def http_port(port: int, chosen: int | None) -> int:
    """Return the port for HTTP: the chosen one, or the next one after that for MCP; 0 if that is 0."""
    if chosen is not None:
        return chosen
    return port and (port + 1 if port < 65535 else 0)


def make_gate(settings: DaemonSettings) -> Gate:
    """Make the gate of a server that listens as its settings say.

    Beyond loopback and with tokens, any `Host` is taken unless the settings name the allowed ones, since a proxy may
    send any. Without tokens it has to be a name that no public name server can point here.

    :raises ConfigError: anyone who reaches the port would be let in (SEC-006), or the tokens cannot be read.
    """
    prefix = settings.prefix
    host, here = settings.host, is_loopback(settings.host)
    tokens = {} if settings.tokens_file is None else read_tokens(settings.tokens_file)
    if not (here or tokens or settings.allow_anonymous):
        raise ConfigError(
            f"listening on {host} would let anyone in who can reach it; listen on 127.0.0.1, give tokens with "
            f"{prefix}_TOKENS_FILE, or set {prefix}_ALLOW_ANONYMOUS=true if it is meant"
        )
    hosts = (
        None if tokens and not here and not settings.allowed_hosts else frozenset((*LOOPBACK, *settings.allowed_hosts))
    )
    takes_private = not here and not settings.allowed_hosts
    return Gate(
        tokens,
        hosts,
        frozenset(settings.allowed_origins),
        takes_private=takes_private,
        hosts_setting=f"{prefix}_ALLOWED_HOSTS",
        origins_setting=f"{prefix}_ALLOWED_ORIGINS",
    )
