"""Commands that change what is kept."""

from __future__ import annotations

from pathlib import Path

import click

from godot.cli.options import Level, Span, Uuid, When, ask, daemon_options, json_option


@click.command(short_help="Show or set from which level on entries are stored")
@click.argument("component", required=False)
@click.argument("level", required=False, type=Level())
@click.option("--for", "span", type=Span(), help="For so long, such as 30m; then it is as it was.")
@click.option("--unset", is_flag=True, help="Forget what was set.")
@json_option
@daemon_options
def level(
    component: str | None, level: str | None, span: int | None, unset: bool, output: str, url: str | None,
    token_file: Path | None,
) -> None:  # fmt: skip
    """Show or set the level of COMPONENT: what is below it is not stored.

    `godot level` shows what is set; `godot level '*' INFO` sets what counts for components that have none of
    their own.
    """
    from godot.cli.manage import set_level, show_levels

    if level is None and not unset:
        if span is not None:
            raise click.UsageError("--for takes a component and a level")
        work = show_levels(component, as_json=output == "json")
    elif component is None or (level is not None and unset):
        raise click.UsageError("--unset takes a component and no level")
    else:
        work = set_level(component, level, span, as_json=output == "json")
    ask(work, url, token_file)


@click.command(short_help="Keep a trace, whatever is cleared")
@click.argument("trace_id", metavar="[ID]", required=False, type=Uuid())
@click.option("--note", help="Why.")
@click.option("--for", "span", type=Span(), help="For so long, such as 30d; for ever without it.")
@click.option("--remove", is_flag=True, help="Let it go again.")
@json_option
@daemon_options
def pin(
    trace_id: str | None, note: str | None, span: int | None, remove: bool, output: str, url: str | None,
    token_file: Path | None,
) -> None:  # fmt: skip
    """Keep the entries of the trace ID whatever is cleared; without ID, list what is pinned.

    --remove of a trace that was not pinned says so, with exit code 1.
    """
    from godot.cli.manage import pin_trace

    if trace_id is None and (note or span or remove):
        raise click.UsageError("say which trace: godot pin ID")
    ask(pin_trace(trace_id, note, span, remove=remove, as_json=output == "json"), url, token_file)


@click.command(short_help="Delete entries")
@click.option(
    "-U", "--until", "--before", "before", type=When(), help="Entries before then, as 7d (ago) or 2026-11-20."
)
@click.option("-c", "--component", multiple=True, help="Entries of this component; * stands for anything; repeatable.")
@click.option("-l", "--level", type=Level(), help="Entries of this level and below: DEBUG clears DEBUG and TRACE.")
@click.option("--exclude-trace", type=Uuid(), multiple=True, help="But not of this trace; repeatable.")
@click.option("--retention", is_flag=True, help="What is older than the retention, as happens every hour anyway.")
@click.option("--dry-run", is_flag=True, help="Only count them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@daemon_options
def clear(
    before: str | None, component: tuple[str, ...], level: str | None, exclude_trace: tuple[str, ...],
    retention: bool, dry_run: bool, yes: bool, output: str, url: str | None, token_file: Path | None,
) -> None:  # fmt: skip
    """Delete entries for ever, but those of pinned traces."""
    from godot.cli.manage import clear_entries

    if not (before or component or level or retention):
        raise click.UsageError(
            "say what to delete: --before 7d, -c COMPONENT, -l LEVEL in any combination, or --retention; "
            "--dry-run only counts"
        )
    if retention and (before or component or level or exclude_trace):
        raise click.UsageError("--retention cannot be combined with filters")
    asked = {
        "before_time": before,
        "component": list(component) or None,
        "level": level,
        "exclude_trace_id": list(exclude_trace) or None,
    }
    ask(clear_entries(asked, dry_run=dry_run, yes=yes, as_json=output == "json"), url, token_file)


@click.group(short_help="Look after entries that could not be stored")
def dead() -> None:
    """Look at entries that could not be stored, try them again, or delete them.

    Asks the daemon that runs. Exit codes: 0, 1 when there is nothing of the kind, 2 for a bad option, 3 when the
    daemon cannot be reached or refuses.
    """


@dead.command("list")
@click.option("--limit", type=click.IntRange(1), help="How many at most.  [default: all]")
@json_option
@daemon_options
def dead_list(limit: int | None, output: str, url: str | None, token_file: Path | None) -> None:
    """Show them, oldest first: their id here, why, and the entry."""
    from godot.cli.dead import list_dead

    ask(list_dead(limit, as_json=output == "json"), url, token_file)


@dead.command("retry")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="All of them.")
@json_option
@daemon_options
def dead_retry(ids: tuple[str, ...], every: bool, output: str, url: str | None, token_file: Path | None) -> None:
    """Put those with these IDs back into the queue.

    What still cannot be stored is put aside again. It tells how many were put back, and how many are still put aside
    (kept).
    """
    from godot.cli.dead import act_on_dead

    _check_chosen(ids, every)
    ask(act_on_dead("retry", ids, as_json=output == "json"), url, token_file)


@dead.command("purge")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="It is meant.")
@json_option
@daemon_options
def dead_purge(
    ids: tuple[str, ...], every: bool, yes: bool, output: str, url: str | None, token_file: Path | None
) -> None:
    """Delete those with these IDs for ever; tell how many that were, and how many are still put aside (kept)."""
    from godot.cli.dead import act_on_dead

    _check_chosen(ids, every)
    if not yes:
        raise click.UsageError("they will be gone for ever; say --yes if that is meant")
    ask(act_on_dead("purge", ids, as_json=output == "json"), url, token_file)


def _check_chosen(ids: tuple[str, ...], every: bool) -> None:
    if every == bool(ids):
        raise click.UsageError("say which ones: either IDs, as `godot dead list` shows them, or --all")
