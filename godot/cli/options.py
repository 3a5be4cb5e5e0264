"""Options that commands share, each with the name that people know it by. Imports nothing that is slow."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from godot.cli.target import DEFAULT_URL, read_target
from godot.entries.times import span
from godot.service.command import run_command
from godot.service.exits import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from godot.cli.daemon import Style, Work

Command = TypeVar("Command", bound=Callable[..., Any])

LEVELS: Final = ("ERROR", "WARN", "INFO", "DEBUG", "TRACE")
FORMATS: Final = ("pretty", "json", "logfmt", "csv", "raw")
"""As in `godot.entries.levels` and `godot.cli.render`, which take a while to import; a test compares them."""


class Span(click.ParamType[Any]):
    """A length of time, such as 30m; in seconds."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it."""
        if isinstance(value, int):
            return value
        if not (length := span(value)):
            self.fail(f"{value!r} is no length of time; write it as 90s, 30m, 2h, 7d or 1w", param, ctx)
        return int(length.total_seconds())


class When(click.ParamType[Any]):
    """A moment: ISO 8601, or so long ago, such as 15m; as Dewey takes it."""

    name = "WHEN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it."""
        if span(ago := value.removeprefix("-")) is not None:
            return f"-{ago}"
        try:
            datetime.fromisoformat(value)
        except ValueError:
            if value != "now":
                self.fail(
                    f"{value!r} is no time; write it as 15m or 2h (ago), as 2026-11-20, or as 2026-11-20T08:30:00Z",
                    param,
                    ctx,
                )
        return value


class Level(click.ParamType[Any]):
    """A level, in any case."""

    name = "LEVEL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it."""
        level = value.upper()
        level = "WARN" if level == "WARNING" else level
        if level not in LEVELS:
            self.fail(f"{value!r} is no level; there are {', '.join(LEVELS)}", param, ctx)
        return level

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:  # noqa: ARG002
        """Offer the levels."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(level) for level in LEVELS if level.startswith(incomplete.upper())]


class Uuid(click.ParamType[Any]):
    """A UUID, also without dashes."""

    name = "UUID"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it."""
        from godot.entries.entry import parse_uuid

        if (found := parse_uuid(value)) is None:
            self.fail(f"{value!r} is no UUID", param, ctx)
        return found


def combined(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Make one decorator of several options, in the order in which help is to show them."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


daemon_options = combined(
    click.option(
        "--url",
        metavar="URL",
        help=f"The daemon.  [env: GODOT_URL; default: that of a running `godot up`, or {DEFAULT_URL}]",
    ),
    click.option(
        "--token-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="File that holds the token to present.  [env: GODOT_TOKEN holds the token itself]",
    ),
)

output_options = combined(
    click.option(
        "-o", "--output", type=click.Choice(FORMATS), default="pretty", show_default=True,
        help="How to write entries; csv is for spreadsheets: a value like a formula gets an apostrophe before it.",
    ),
    click.option(
        "--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True,
        help="auto: on a terminal, unless NO_COLOR is set.",
    ),
)  # fmt: skip

json_option = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to write."
)

filter_options = combined(
    click.option("-S", "--since", type=When(), help="Only entries since then: 15m (ago), or ISO 8601."),
    click.option("-U", "--until", type=When(), help="Only entries before then."),
    click.option("-c", "--component", multiple=True, help="Only of this component; * stands for anything; repeatable."),
    click.option("-l", "--level", type=Level(), help="Only of this level and above: WARN shows WARN and ERROR."),
    click.option("-t", "--trace", type=Uuid(), help="Only of this trace."),
    click.option("--contains", metavar="TEXT", help="Only with this in the message, literally, in any case."),
    click.option("--data", metavar="JSON", help='Only whose data contains this object, as {"method": "tools/call"}.'),
    click.option("--data-path", metavar="PATH", help="Only whose data this SQL/JSON path finds something in."),
)


def filters(
    since: str | None = None,
    until: str | None = None,
    component: tuple[str, ...] = (),
    level: str | None = None,
    trace: str | None = None,
    contains: str | None = None,
    data: str | None = None,
    data_path: str | None = None,
) -> dict[str, Any]:
    """Return the filters as arguments of `logger_query`."""
    return {
        "start_time": since,
        "end_time": until,
        "component": list(component) or None,
        "level": level,
        "trace_id": trace,
        "contains": contains,
        "data": None if data is None else json_object("--data", data),
        "data_path": data_path,
    }


def json_object(name: str, text: str) -> dict[str, Any]:
    """Read an option that is a JSON object.

    :raises click.BadParameter: it is none.
    """
    import orjson

    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise click.BadParameter(f"{text!r:.80} is no JSON: {exc}", param_hint=name) from None
    if not isinstance(value, dict):
        raise click.BadParameter(f"{text!r:.80} is no JSON object", param_hint=name)
    return value


def style_of(color: str) -> Style:
    """Return how to write to stdout."""
    from godot.cli.daemon import Style

    return Style.of_stdout(color)


def ask(work: Work, url: str | None, token_file: Path | None, *, interrupted: int = EXIT_INTERRUPTED) -> None:
    """Do the work of a command with the daemon, and exit."""
    from functools import partial

    from godot.cli.daemon import run_asking

    run_command(partial(read_target, url, token_file, os.environ), partial(run_asking, work, interrupted=interrupted))
