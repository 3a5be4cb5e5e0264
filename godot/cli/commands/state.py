"""Commands that tell how Godot is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from godot.cli.options import ask, daemon_options, json_option, style_of


@click.command(short_help="Tell the state of the pipeline")
@json_option
@daemon_options
def status(output: str, url: str | None, token_file: Path | None) -> None:
    """Tell the state of the pipeline: what came in, what is stored, what waits, what was dropped.

    Exit code 1 says that Redis or Dewey is down.
    """
    from godot.cli.state import show_status

    ask(show_status(style_of("auto"), as_json=output == "json"), url, token_file)


@click.command(short_help="Exit with 0 when entries are taken in")
@daemon_options
def healthcheck(url: str | None, token_file: Path | None) -> None:
    """Exit with 0 when the daemon takes entries in, else with 1 and why: for containers.

    It asks /readyz, which takes no token, on the port for HTTP as GODOT_HTTP_PORT and GODOT_PORT have it; of another
    daemon with --url http://host:port. With a ws:// URL, such as GODOT_URL, it looks for /readyz on the port for HTTP
    of that daemon (GODOT_HTTP_PORT, else the next one), and where it is not found it asks over MCP, with a token where
    that is needed. While Dewey is away entries are kept, so that is healthy.
    """
    from godot.cli.state import check_health

    check_health(url, token_file)


@click.command(short_help="Check this machine and the daemon")
@daemon_options
def doctor(url: str | None, token_file: Path | None) -> None:
    """Check this machine and the daemon, and say what to do about what is wrong."""
    from godot.cli.doctor import examine

    sys.exit(examine(url, token_file, style_of("auto")))


@click.group(short_help="Look at the settings")
def config() -> None:
    """Look at the settings, as the environment has them."""


@config.command("print")
def print_config() -> None:
    """Write every setting: its value, and whether it is the default. Secrets are not shown."""
    from godot.cli.state import print_settings

    sys.exit(print_settings(os.environ))


@config.command()
def check() -> None:
    """Exit with 0 when `godot serve` would start with these settings, else with 2 and one line for each bad one.

    Warnings, as of names that are not known, change nothing about that.
    """
    from godot.cli.state import check_settings

    sys.exit(check_settings(os.environ))
