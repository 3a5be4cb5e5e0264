"""What the commands do that tell how Godot is: status, healthcheck, config."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from godot import codec
from godot.cli.ask import EXIT_NONE, EXIT_USAGE, Daemon, Style, Work, complain, run_asking, write
from godot.cli.connect import load as load_target
from godot.cli.entry import run_command
from godot.cli.render import harmless, paint, table
from godot.config import GodotSettings, http_port, load, make_gate
from godot.datadir import default_data_dir, read_endpoints
from godot.errors import ConfigError
from godot.masking import masked
from godot.signals import Life

STATUS: Final = "logger_status"
HEALTH_S: Final = 4.0
"""Under the 5 s that the image gives the command."""

ANSWER_BYTES: Final = 4_096

_GOOD: Final = "32"
_BAD: Final = "1;31"


def show_status(style: Style, *, as_json: bool) -> Work:
    """Write the state of the pipeline."""

    async def work(daemon: Daemon) -> int:
        state = await daemon.ask(STATUS)
        if as_json:
            write(codec.dumps(state).decode())
        else:
            rows = [[name, *_cells(value, style)] for name, value in state.items()]
            for line in table(rows, right=(1,)):
                write(line)
        return 0 if state["redis"] == "up" and state["dewey"] == "up" else EXIT_NONE

    return work


def _cells(value: Any, style: Style) -> list[str]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = harmless(value if isinstance(value, str) else codec.dumps(value).decode())
        return [paint(text, _GOOD if text == "up" else _BAD, on=style.color and text in ("up", "down"))]
    return [f"{value:,}"]


def check_health(url: str | None, token_file: Path | None) -> None:
    """Exit with 0 when entries are taken in, else with 1: Docker knows no other codes.

    /readyz needs no token, so it is asked, unless a URL names the port for MCP.
    """
    if (found := url or os.environ.get("GODOT_URL", "")).startswith(("ws:", "wss:")):
        run_command(partial(load_target, found, token_file, os.environ.get("GODOT_TOKEN", "")), _check_over_mcp)
    try:
        sys.exit(_check_over_http(found or _http_here()))
    except ConfigError as exc:
        _tell_problems(exc)
        sys.exit(EXIT_NONE)


async def _check_over_mcp(target: Any, life: Life) -> int:
    async def work(daemon: Daemon) -> int:
        state = await daemon.ask(STATUS, timeout_s=HEALTH_S)
        if state["redis"] != "up":
            complain("Redis is away: entries cannot be written")
            return EXIT_NONE
        return 0

    return min(1, await run_asking(work, target, life))


def _check_over_http(url: str) -> int:
    try:
        parts = urlsplit(url)
        make = {"http": HTTPConnection, "https": HTTPSConnection}[parts.scheme]
        connection = make(parts.hostname or "", parts.port, timeout=HEALTH_S)
    except (KeyError, ValueError):
        complain("--url must look like http://127.0.0.1:9061, or ws://127.0.0.1:9060")
        return EXIT_NONE
    try:
        # By this name every daemon may be asked; behind a proxy it is the proxy that has to know the name.
        names = {"Host": "localhost"} if parts.scheme == "http" else {}
        connection.request("GET", "/readyz", headers=names)
        answer = connection.getresponse()
        said = answer.read(ANSWER_BYTES).decode("utf-8", "replace")
    except (OSError, HTTPException) as exc:
        complain(f"{url}: {exc}")
        return EXIT_NONE
    finally:
        connection.close()
    if answer.status != HTTPStatus.OK:
        complain(f"{url}/readyz: HTTP {answer.status}, {harmless(said)}")
        return EXIT_NONE
    return 0


def _http_here() -> str:
    """Return where the daemon of this machine answers HTTP: as `godot up` says of itself, or by the settings."""
    settings, _ = load(GodotSettings, os.environ, {})
    if url := read_endpoints(settings.data_dir or default_data_dir()).get("http"):
        return str(url)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    port = http_port(settings.port, settings.http_port)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def print_settings(environ: Mapping[str, str]) -> int:
    """Write every setting with its value; return the exit code."""
    try:
        settings, warnings = load(GodotSettings, environ, {})
    except ConfigError as exc:
        return _tell_problems(exc)
    for row in table(list(_settings(settings, environ))):
        write(row)
    for warning in warnings:
        complain(warning)
    return 0


def _settings(settings: GodotSettings, environ: Mapping[str, str]) -> Iterator[list[str]]:
    for field in attrs.fields(GodotSettings):
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
    try:
        settings, warnings = load(GodotSettings, environ, {})
        make_gate(settings)
    except ConfigError as exc:
        return _tell_problems(exc)
    for warning in warnings:
        complain(warning)
    write("the settings are fine")
    return 0


def _tell_problems(exc: ConfigError) -> int:
    for problem in exc.problems:
        complain(problem)
    return EXIT_USAGE
