"""The command `dewey`."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import click

from godot import __version__
from godot.service.command import CONTEXT, listening_options, run_daemon


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="dewey")
def cli() -> None:
    """Dewey, the log store of Godot."""


@cli.command()
@listening_options("DEWEY", 9020)
def serve(**options: Any) -> None:
    """Serve the log store on its own port.

    \b
    DATABASE_URL   PostgreSQL, such as postgresql://dewey@host/winni

    Godot finds it by DEWEY_MCP_URL. docs/reference/settings.md lists all settings.
    """
    from dewey_logs.serve import run_serve
    from dewey_logs.settings import DeweyServeSettings
    from godot.service.settings import load_settings

    run_daemon(partial(load_settings, DeweyServeSettings, os.environ, options), run_serve)


def main() -> None:
    """Run the command line."""
    cli()
