"""The common parts of commands that start a daemon: options, exit codes, and errors for the operator."""

from __future__ import annotations

import gc
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from godot.errors import ConfigError
from godot.service.exits import EXIT_FAILED, EXIT_USAGE
from godot.service.masking import masked

if TYPE_CHECKING:
    from godot.service.signals import Lifecycle

S = TypeVar("S")

SWITCH_INTERVAL_S = 0.0005
"""Python's own 5 ms, times four readers, is longer than a `logger_log` may take."""

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def listening_options(prefix: str, port: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add --host, --port and --http-port, which take precedence over the environment."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
            click.option(
                "--http-port",
                type=click.IntRange(0, 65535),
                help=f"Port for HTTP.  [env: {prefix}_HTTP_PORT; default: the next one, {port + 1}]",
            ),
            click.option(
                "--port",
                type=click.IntRange(0, 65535),
                help=f"Port for MCP over WebSocket; 0 picks a free one.  [env: {prefix}_PORT; default: {port}]",
            ),
            click.option("--host", help=f"Address to listen on.  [env: {prefix}_HOST; default: 127.0.0.1]"),
        ):
            command = option(command)
        return command

    return decorate


def run_daemon(load: Callable[[], tuple[S, list[str]]], main: Callable[[S, Lifecycle], Awaitable[int]]) -> None:
    """Do what `run_command` does, for a program that goes on even if its lines are not read."""
    from godot.service.lines import free_stderr

    free_stderr()
    run_command(load, main)


def run_command(load: Callable[[], tuple[S, list[str]]], main: Callable[[S, Lifecycle], Awaitable[int]]) -> None:
    """Load the settings, run a program with them, and exit.

    The exit code is the program's own. It is 2, with a line for each problem, if the operator has to mend something. It
    is 1, with a traceback and a last line that says so, after a crash.
    """
    import trio  # not at the top, so that --help need not wait for it

    from godot.service.signals import run_with_signals

    # A worker thread that comes back from Redis or PostgreSQL may keep the event loop waiting for this long.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()  # what was imported stays: a search for cycles in it would take 30 ms
    name = click.get_current_context().find_root().info_name
    try:
        settings, warnings = load()
        for warning in warnings:
            click.echo(f"{name}: warning: {masked(warning)}", err=True)
        code = trio.run(partial(run_with_signals, partial(main, settings)))
    except (ConfigError, ExceptionGroup) as exc:
        problems = list(_config_problems(exc))
        if not problems:
            _crash(name, exc)
        for warning in exc.warnings if isinstance(exc, ConfigError) else ():
            click.echo(f"{name}: warning: {masked(warning)}", err=True)
        for problem in problems:
            click.echo(f"{name}: {masked(problem)}", err=True)
        sys.exit(EXIT_USAGE)
    except Exception as exc:  # noqa: BLE001 - the entry point
        _crash(name, exc)
    sys.exit(code)


def _config_problems(exc: BaseException) -> Iterator[str]:
    """Yield the problems of a `ConfigError`, or of a group that has no other errors."""
    if isinstance(exc, ConfigError):
        yield from exc.problems
    elif isinstance(exc, BaseExceptionGroup) and exc.split(ConfigError)[1] is None:
        for part in exc.exceptions:
            yield from _config_problems(part)


def _crash(name: str | None, exc: Exception) -> None:
    import traceback

    click.echo(masked("".join(traceback.format_exception(exc))), err=True, nl=False)
    # Nurseries wrap errors in groups, one around the other. The last line has to be understood without the rest.
    while isinstance(exc, ExceptionGroup) and len(exc.exceptions) == 1:
        (exc,) = exc.exceptions
    click.echo(f"{name}: crashed: {masked(repr(exc))}", err=True)
    sys.exit(EXIT_FAILED)
