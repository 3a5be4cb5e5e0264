"""The command `godot`."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from godot import __version__
from godot.cli.entry import CONTEXT, listening_options, run_command


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="godot")
def cli() -> None:
    """Godot, the flight recorder for systems of MCP servers.

    Components send their log entries to it over MCP; it loses none, and finds them again by trace id.
    """


@cli.command()
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
    from godot.config import GodotSettings, load

    run_command(partial(load, GodotSettings, os.environ, options), run_up)


@cli.command()
@listening_options("GODOT", 9060)
def serve(**options: Any) -> None:
    """Run the daemon as its environment says.

    \b
    REDIS_URL      where entries are buffered; without it Godot starts a Redis of its own
    DEWEY_MCP_URL  Dewey, which stores them; without it Dewey runs inside, and needs
    DATABASE_URL   PostgreSQL

    The README lists all settings.
    """
    from godot.assembly import run_serve
    from godot.config import GodotSettings, load

    run_command(partial(load, GodotSettings, os.environ, options), run_serve)


@cli.group()
def dead() -> None:
    """Look at entries that could not be stored, try them again, or delete them.

    Asks the daemon that runs. Exit codes: 0, 1 when there is nothing of the kind, 2 for a bad option, 3 when the
    daemon cannot be reached or refuses.
    """


def asking_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --url, --token-file and -o."""
    for option in (
        click.option(
            "-o",
            "--output",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            help="How to write.",
        ),
        click.option(
            "--token-file",
            type=click.Path(dir_okay=False, path_type=Path),
            help="File that holds a token with the role admin.  [env: GODOT_TOKEN holds the token itself]",
        ),
        click.option("--url", envvar="GODOT_URL", default="ws://127.0.0.1:9060", show_default=True, show_envvar=True),
    ):
        command = option(command)
    return command


@dead.command("list")
@click.option("--limit", type=click.IntRange(1), help="How many at most.  [default: all]")
@asking_options
def dead_list(limit: int | None, url: str, token_file: Path | None, output: str) -> None:
    """Show them, oldest first: their id here, why, and the entry."""
    from godot.cli.dead import run_list

    run_command(_load_call(url, token_file, output), partial(run_list, limit))


@dead.command("retry")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="All of them.")
@asking_options
def dead_retry(ids: tuple[str, ...], every: bool, url: str, token_file: Path | None, output: str) -> None:
    """Put those with these IDs back into the queue.

    What still cannot be stored is put aside again.
    """
    from godot.cli.dead import run_retry

    _check_chosen(ids, every)
    run_command(_load_call(url, token_file, output), partial(run_retry, ids))


@dead.command("purge")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="It is meant.")
@asking_options
def dead_purge(ids: tuple[str, ...], every: bool, yes: bool, url: str, token_file: Path | None, output: str) -> None:
    """Delete those with these IDs for ever."""
    from godot.cli.dead import run_purge

    _check_chosen(ids, every)
    if not yes:
        raise click.UsageError("they will be gone for ever; say --yes if that is meant")
    run_command(_load_call(url, token_file, output), partial(run_purge, ids))


def _check_chosen(ids: tuple[str, ...], every: bool) -> None:
    if every == bool(ids):
        raise click.UsageError("say which ones: either IDs, as `godot dead list` shows them, or --all")


def _load_call(url: str, token_file: Path | None, output: str) -> Callable[[], tuple[Any, list[str]]]:
    from godot.cli.connect import load
    from godot.cli.dead import Call

    def load_call() -> tuple[Any, list[str]]:
        target, warnings = load(url, token_file, os.environ.get("GODOT_TOKEN", ""))
        return Call(target, output == "json"), warnings

    return load_call


@cli.command()
@click.argument("url", envvar="GODOT_URL", default="ws://127.0.0.1:9060")
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
    from godot.cli.connect import load, run_connect

    run_command(partial(load, url, token_file, os.environ.get("GODOT_TOKEN", "")), run_connect)


def main() -> None:
    """Run the command line."""
    cli()
