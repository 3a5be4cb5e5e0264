"""Commands that run until they are stopped: the daemon, and the pipe to it."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import click

from godot.cli.target import DEFAULT_URL, read_target
from godot.service.command import listening_options, run_command, run_daemon


@click.command(short_help="Start everything on this machine")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where Redis and PostgreSQL keep their data.  [env: GODOT_DATA_DIR; default: ~/.local/share/godot, "
    "or /var/lib/godot/data as root]",
)
@listening_options("GODOT", 9060)
def up(**options: Any) -> None:
    """Start everything on this machine: Redis, PostgreSQL, Dewey and Godot.

    Nothing has to be installed. It prints a line that begins with `ready` when it can be used, and while it
    runs keeps endpoints.json in its data directory. Ctrl-C stops it; what was logged is there next time.
    """
    from godot.assembly import run_up
    from godot.combined import load_combined

    run_daemon(partial(load_combined, os.environ, options), run_up)


@click.command()
@listening_options("GODOT", 9060)
def serve(**options: Any) -> None:
    """Run the daemon as its environment says.

    \b
    REDIS_URL      where entries are buffered; without it Godot starts a Redis of its own
    DEWEY_MCP_URL  Dewey, which stores them; without it Dewey runs inside, and needs
    DATABASE_URL   PostgreSQL

    `godot config print` lists all settings.
    """
    from godot.assembly import run_serve
    from godot.combined import load_combined

    run_daemon(partial(load_combined, os.environ, options), run_serve)


@click.command(short_help="Connect an MCP host that only starts programs")
@click.argument("url", envvar="GODOT_URL", default=DEFAULT_URL)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that holds the token to present to Godot.  [env: GODOT_TOKEN holds the token itself]",
)
def connect(url: str, token_file: Path | None) -> None:
    """Connect an MCP host that only starts programs to the Godot at URL.

    URL is GODOT_URL when it is not given, and ws://127.0.0.1:9060 without either. Messages go from stdin to
    Godot and from Godot to stdout; it reconnects by itself, and ends when stdin does.
    """
    from godot.cli.connect import run_connect

    run_command(partial(read_target, url, token_file, os.environ), run_connect)
