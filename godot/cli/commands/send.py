"""Commands that send entries."""

from __future__ import annotations

from pathlib import Path

import click

from godot.cli.options import Level, Uuid, ask, daemon_options, json_object


@click.command(short_help="Log one entry")
@click.argument("level", type=Level())
@click.argument("message")
@click.option("-c", "--component", default="cli", show_default=True, help="Who says it.")
@click.option("-t", "--trace", type=Uuid(), help="The trace it belongs to.")
@click.option("-d", "--data", metavar="JSON", help="An object to go with it.")
@daemon_options
def log(
    level: str, message: str, component: str, trace: str | None, data: str | None, url: str | None,
    token_file: Path | None,
) -> None:  # fmt: skip
    """Log one entry, and write its id when it is on disk."""
    from godot.cli.send import log_entry

    value = None if data is None else json_object("--data", data)
    ask(log_entry(level, message, component, trace, value), url, token_file)


@click.command(short_help="Log the entries in a file")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--again", is_flag=True, help="Store what was sent from this file before once more.")
@daemon_options
def ingest(file: Path, again: bool, url: str | None, token_file: Path | None) -> None:
    """Log the entries in FILE, one JSON object a line; - is stdin.

    Lines that are no entry, or are too large, are named, and the others are logged: exit code 4. An entry without an
    id gets one that follows from the file (device and inode) and from all that is in it up to this line. So a file is
    stored once, even if it is sent again when it is longer, or renamed by rotation. Equal lines, of one file or of
    two, are each stored. A copy of a file is another file. Lines of stdin and of pipes get new ids.

    A file that was emptied and filled anew (copytruncate), or has the inode of a deleted one, counts as the same file:
    as far as it begins with the very same lines, they are not stored again. From the first different line on, all are
    new. --again stores them all.
    """
    from godot.cli.send import ingest_file

    ask(ingest_file(file, again=again), url, token_file)


@click.command(short_help="Log two sample requests, one of which goes wrong")
@daemon_options
def demo(url: str | None, token_file: Path | None) -> None:
    """Log what four components say in two requests, one of which goes wrong, and say how to look at it."""
    from godot.cli.demo import run_demo

    ask(run_demo(), url, token_file)
