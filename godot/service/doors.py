"""The two doors of a daemon, MCP and HTTP: where it listens, whom it lets in, and how many."""

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
"""Where containers have their secrets."""

TOKENS_S: Final = 1.0
"""How often the file of tokens is looked at."""


@attrs.frozen
class Doors:
    """What is open, and to whom.

    :param mcp: bound, and accepting nothing yet.
    :param http: the same.
    :param tokens_file: whose tokens are those of the gate.
    """

    gate: Gate
    mcp: list[trio.SocketListener]
    http: list[trio.SocketListener]
    connections: Connections
    tokens_file: Path | None

    async def watch_tokens(self) -> None:
        """Take over the tokens when their file changes. Returns at once without one, else runs until cancelled.

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
    """Listen as the settings say, with as many descriptors as there can be.

    :raises ConfigError: it cannot listen, would let in anyone (SEC-006), or has too few descriptors.
    """
    prefix = settings.prefix
    connections = share_out(f"{prefix}_MAX_CONNECTIONS", settings.max_connections, raise_limit())
    await check_address(settings)  # that there is none is to be known before who might reach it
    gate = make_gate(settings)
    if settings.tokens_file is not None:
        _warn_of_readers(settings.tokens_file)
    mcp = await open_listeners(settings.host, settings.port, prefix)
    http = await open_listeners(settings.host, http_port(settings.port, settings.http_port), prefix)
    ports = frozenset(each.socket.getsockname()[1] for each in (*mcp, *http))
    return Doors(attrs.evolve(gate, ports=ports), mcp, http, connections, settings.tokens_file)


async def check_address(settings: DaemonSettings) -> None:
    """Look whether this machine has the address to listen on.

    :raises ConfigError: it has not, or there is no such host.
    """
    prefix = settings.prefix
    for listener in await open_listeners(settings.host, 0, prefix):
        await listener.aclose()


def _warn_of_readers(path: Path) -> None:
    """Tell whoever can mend it that others may read the tokens.

    A secret of a container belongs to somebody on the host, and has to be readable for the user in there; it is the
    directory above it that keeps others out.
    """
    found = path.stat()
    mode = found.st_mode & 0o777
    if mode & 0o077 and found.st_uid == os.geteuid() and SECRETS not in path.resolve().parents:
        print_line(status_line("tokens_readable", reason=f"{path} has mode {mode:04o}: others may read it; chmod 600"))


def http_port(port: int, chosen: int | None) -> int:
    """Return the port for HTTP: the chosen one, or the next one after that for MCP; 0 with 0."""
    if chosen is not None:
        return chosen
    return port and (port + 1 if port < 65535 else 0)


def make_gate(settings: DaemonSettings) -> Gate:
    """Make the gate of a server that listens as its settings say.

    Beyond loopback any `Host` is taken with a token unless the settings name them: a proxy names this server as it
    likes. Without tokens it has to be one that no public name server can point here.

    :raises ConfigError: it would let in anyone who can reach it (SEC-006), or the tokens cannot be read.
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
