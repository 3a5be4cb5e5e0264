"""Commands that find entries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from godot.cli.options import (
    Uuid,
    ask,
    daemon_options,
    filter_options,
    filters,
    json_option,
    output_options,
    style_of,
)
from godot.service.exits import EXIT_INTERRUPTED


@click.command(short_help="Show the newest entries, and what comes")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is stored from now on; Ctrl-C ends it.")
@click.option(
    "-n", "--lines", type=click.IntRange(0, 1_000), default=10, show_default=True, help="How many to begin with."
)
@filter_options
@output_options
@daemon_options
def tail(
    follow: bool, lines: int, output: str, color: str, url: str | None, token_file: Path | None, **given: Any
) -> None:
    """Show the newest entries, and with -f those that come.

    While the daemon is away, -f waits a minute for it and goes on without a gap.
    """
    from godot.cli.find import tail_entries

    asked = filters(**given)
    if follow and (unknown := [name for name in ("start_time", "end_time", "data_path") if asked[name]]):
        raise click.UsageError(f"-f shows what comes; it cannot be combined with {', '.join(unknown)}")
    work = tail_entries(asked, lines, output, style_of(color), follow=follow)
    ask(work, url, token_file, interrupted=0 if follow else EXIT_INTERRUPTED)


@click.command(short_help="Find entries, by words and filters")
@click.argument("words", nargs=-1)
@click.option(
    "-n", "--lines", type=click.IntRange(1), default=100, show_default=True, help="How many, the newest ones."
)
@click.option("-r", "--reverse", is_flag=True, help="The newest first.")
@filter_options
@output_options
@daemon_options
def query(
    words: tuple[str, ...], lines: int, reverse: bool, output: str, color: str, url: str | None,
    token_file: Path | None, **given: Any,
) -> None:  # fmt: skip
    """Find entries whose message contains WORDS.

    Whole words, in any order: "a phrase" in quotes, -without, this or that; everything, without any. What begins
    with a dash goes behind `--`.
    """
    from godot.cli.find import query_entries

    asked = filters(**given) | {"search": " ".join(words) or None}
    ask(query_entries(asked, lines, output, style_of(color), reverse=reverse), url, token_file)


@click.command(short_help="Tell what happened in a trace")
@click.argument("trace_id", metavar="ID", type=Uuid())
@output_options
@daemon_options
def trace(trace_id: str, output: str, color: str, url: str | None, token_file: Path | None) -> None:
    """Tell what happened in the trace ID: who called whom, in order, with durations."""
    from godot.cli.find import tell_trace

    ask(tell_trace(trace_id, output, style_of(color)), url, token_file)


@click.command(short_help="Write all entries that are found")
@click.argument("words", nargs=-1)
@filter_options
@click.option(
    "-o",
    "--output",
    type=click.Choice(["json", "csv", "logfmt"]),
    default="json",
    show_default=True,
    help="How to write entries; json is NDJSON, which `godot ingest` reads.",
)
@daemon_options
def export(words: tuple[str, ...], output: str, url: str | None, token_file: Path | None, **given: Any) -> None:
    """Write all entries that are found, oldest first, however many."""
    from godot.cli.find import export_entries

    asked = filters(**given) | {"search": " ".join(words) or None}
    ask(export_entries(asked, output), url, token_file)


@click.command(short_help="List the components")
@json_option
@daemon_options
def components(output: str, url: str | None, token_file: Path | None) -> None:
    """List the components: how many entries each has, and when its last one was."""
    from godot.cli.find import list_components

    ask(list_components(as_json=output == "json"), url, token_file)


@click.command(short_help="Count what is stored")
@click.option("-w", "--watch", is_flag=True, help="Again every 2 s; Ctrl-C ends it.")
@json_option
@daemon_options
def stats(watch: bool, output: str, url: str | None, token_file: Path | None) -> None:
    """Count what is stored: by level, by component, since when, how large."""
    from godot.cli.find import show_stats

    ask(
        show_stats(style_of("auto"), as_json=output == "json", watch=watch),
        url,
        token_file,
        interrupted=0 if watch else EXIT_INTERRUPTED,
    )
