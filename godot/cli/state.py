"""The work of the commands that tell how Godot is: status, healthcheck, config."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import click
import trio

from godot.cli.daemon import Daemon, Style, Work, complain, run_asking, write
from godot.cli.render import harmless, paint, table
from godot.cli.target import Target, read_target
from godot.combined import CombinedSettings, load_combined
from godot.embedded.datadir import default_data_dir, read_endpoints
from godot.errors import ConfigError
from godot.json.text import dumps, loads
from godot.service.command import run_command
from godot.service.doors import http_port
from godot.service.exits import EXIT_NONE, EXIT_USAGE
from godot.service.masking import masked
from godot.service.signals import Lifecycle
from godot.toolnames import STATUS

HEALTH_S: Final = 4.0
"""Under the 5 s that the image gives the command."""

GUESS_S: Final = 1.0
"""How long /readyz may take at an address that is only a guess."""

ANSWER_BYTES: Final = 4_096

_GOOD: Final = "32"
_BAD: Final = "1;31"


def show_status(style: Style, *, as_json: bool) -> Work:
    """Write the state of the pipeline."""

    async def work(daemon: Daemon) -> int:
        state = await daemon.ask(STATUS)
        if as_json:
            write(dumps(state).decode())
        else:
            sentence = state.pop("not_durable", None)  # as wide as it is, it would push every number away
            rows = [[name, *_cells(value, style)] for name, value in state.items()]
            for line in table(rows, right=(1,)):
                write(line)
            if sentence is not None:
                write("")
                write(click.wrap_text(f"not durable: {harmless(sentence)}", style.width or 80))
        return 0 if state["redis"] == "up" and state["dewey"] == "up" else EXIT_NONE

    return work


def _cells(value: Any, style: Style) -> list[str]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = "unknown" if value is None else harmless(value if isinstance(value, str) else dumps(value).decode())
        return [paint(text, _GOOD if text == "up" else _BAD, on=style.color and text in ("up", "down"))]
    return [f"{value:,}"]


def check_health(url: str | None, token_file: Path | None) -> None:
    """Exit with 0 when entries are taken in, else with 1: Docker knows no other codes.

    /readyz needs no token, so it is asked. A URL that names the port for MCP, as GODOT_URL does, is asked over MCP only
    where /readyz is not found beside it.
    """
    if (found := url or os.environ.get("GODOT_URL", "")).startswith(("ws:", "wss:")):
        if (beside := _http_beside(found)) is not None and (answer := _readyz_there(beside)) is not None:
            sys.exit(_judge(beside, *answer))
        run_command(partial(read_target, found, token_file, os.environ), _check_over_mcp)
    try:
        sys.exit(_check_over_http(found or _http_here()))
    except ConfigError as exc:
        _tell_problems(exc)
        sys.exit(EXIT_NONE)


async def _check_over_mcp(target: Target, life: Lifecycle) -> int:
    async def work(daemon: Daemon) -> int:
        state = await daemon.ask(STATUS, timeout_s=HEALTH_S)
        if state["redis"] != "up":
            complain("Redis is away: entries cannot be written")
            return EXIT_NONE
        return 0

    return EXIT_NONE if await run_asking(work, target, life) else 0


def _check_over_http(url: str) -> int:
    try:
        return _judge(url, *_readyz(url, HEALTH_S))
    except (KeyError, ValueError):
        complain("--url must look like http://127.0.0.1:9061, or ws://127.0.0.1:9060")
    except (OSError, HTTPException) as exc:
        why = exc.strerror if isinstance(exc, OSError) else None
        complain(f"{url}: {why or exc or type(exc).__name__}")
    return EXIT_NONE


def _readyz(url: str, timeout_s: float) -> tuple[int, str]:
    """Ask /readyz; return the HTTP status and what it said.

    :raises KeyError, ValueError: it is no URL of HTTP.
    """
    parts = urlsplit(url)
    make = {"http": HTTPConnection, "https": HTTPSConnection}[parts.scheme]
    connection = make(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        # Every daemon answers to this name. Behind https stands a proxy, which has to know its own.
        names = {"Host": "localhost"} if parts.scheme == "http" else {}
        connection.request("GET", "/readyz", headers=names)
        answer = connection.getresponse()
        return answer.status, answer.read(ANSWER_BYTES).decode("utf-8", "replace")
    finally:
        connection.close()


def _judge(url: str, status: int, said: str) -> int:
    if status != HTTPStatus.OK:
        complain(f"{url}/readyz: HTTP {status}, {harmless(said)}")
        return EXIT_NONE
    return 0


def _http_beside(url: str) -> str | None:
    """Return where the daemon with this port for MCP should answer HTTP; None: that is unknown."""
    parts = urlsplit(url)
    try:
        settings, _ = load_combined(os.environ, {})
        here = read_endpoints(settings.data_dir or default_data_dir())
        if here.get("mcp") == url.rstrip("/") and "http" in here:
            return str(here["http"])
        port = http_port(parts.port or 0, settings.http_port)
    except (ConfigError, ValueError):  # asking over MCP reports the URL, and settings do not matter there
        return None
    return f"http://{parts.netloc.rpartition(':')[0]}:{port}" if parts.scheme == "ws" and parts.port and port else None


def _readyz_there(url: str) -> tuple[int, str] | None:
    """Ask /readyz of what may be our daemon; None: it is not."""
    with suppress(OSError, HTTPException, ValueError):
        status, said = _readyz(url, GUESS_S)
        if loads(said).get("status") in ("ready", "degraded", "down"):
            return status, said
    return None


def _http_here() -> str:
    """Return where the daemon of this machine answers HTTP: as `godot up` says of itself, or by the settings."""
    settings, _ = load_combined(os.environ, {})
    if url := read_endpoints(settings.data_dir or default_data_dir()).get("http"):
        return str(url)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    port = http_port(settings.port, settings.http_port)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def print_settings(environ: Mapping[str, str]) -> int:
    """Write every setting with its value; return the exit code."""
    try:
        settings, warnings = load_combined(environ, {})
    except ConfigError as exc:
        return _tell_problems(exc)
    for row in table(list(_settings(settings, environ))):
        write(row)
    _warn(warnings)
    return 0


def _settings(settings: CombinedSettings, environ: Mapping[str, str]) -> Iterator[list[str]]:
    for field in attrs.fields(CombinedSettings):
        name = field.metadata["name"]
        value = _shown(getattr(settings, field.name))
        yield [f"{name}={value}", f"# {field.metadata['meaning']}{'' if environ.get(name) else ' (default)'}"]


def _shown(value: object) -> str:
    """Write a value as the environment has it, without any password in it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return harmless(masked(str(value)))


def check_settings(environ: Mapping[str, str]) -> int:
    """Say whether the daemon would take its settings; return the exit code."""
    # Imported here, so that healthcheck, which containers run often, need not wait for it.
    from godot.assembly import check_serve

    try:
        settings, warnings = load_combined(environ, {})
        if problems := trio.run(check_serve, settings):
            raise ConfigError(*problems, warnings=warnings)
    except ConfigError as exc:
        return _tell_problems(exc)
    _warn(warnings)
    write("the settings are fine")
    return 0


def _tell_problems(exc: ConfigError) -> int:
    _warn(exc.warnings)
    for problem in exc.problems:
        complain(problem)
    return EXIT_USAGE


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        complain(f"warning: {warning}")
