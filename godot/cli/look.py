"""What the commands do that tell how Godot is: status, healthcheck, config."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import attrs

from godot import codec
from godot.cli.ask import EXIT_NONE, EXIT_USAGE, Daemon, Style, Work, complain, run_asking, write
from godot.cli.connect import load as load_target
from godot.cli.entry import run_command
from godot.cli.options import daemon_url
from godot.cli.render import harmless, paint, table
from godot.config import GodotSettings, load, make_gate
from godot.errors import ConfigError
from godot.signals import Life

STATUS: Final = "logger_status"
HEALTH_S: Final = 5.0

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
    """Exit with 0 when entries are taken in, else with 1: Docker knows no other codes."""

    async def work(daemon: Daemon) -> int:
        state = await daemon.ask(STATUS, timeout_s=HEALTH_S)
        if state["redis"] != "up":
            complain("Redis is away: entries cannot be written")
            return EXIT_NONE
        return 0

    async def check(target: Any, life: Life) -> int:
        return min(1, await run_asking(work, target, life))

    run_command(partial(load_target, daemon_url(url), token_file, os.environ.get("GODOT_TOKEN", "")), check)


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
    """Write a value as the environment has it; a password in a URL is not shown."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    text = str(value)
    if "://" in text:
        parts = urlsplit(text)
        if parts.password is not None:
            text = urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@")))
    elif "password=" in text:
        text = " ".join("password=***" if word.startswith("password=") else word for word in text.split())
    return harmless(text)


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
