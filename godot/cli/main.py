"""The command `godot`: which commands there are, and where each is declared.

The modules in `godot.cli.commands` declare options and texts, and import nothing slow: `--help` reads all of
them. The code of a command is imported when it runs.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

from godot import __version__
from godot.service.command import CONTEXT

SECTIONS: Final = {
    "Run": {"up": "run", "serve": "run", "connect": "run", "demo": "send"},
    "Find": {
        "tail": "find", "query": "find", "trace": "find", "export": "find", "components": "find", "stats": "find",
    },
    "Send": {"log": "send", "ingest": "send"},
    "Operate": {
        "status": "state", "healthcheck": "state", "doctor": "state", "config": "state", "level": "manage",
        "pin": "manage", "clear": "manage", "dead": "manage",
    },
}  # fmt: skip
"""Command -> module of `godot.cli.commands` that declares it."""


class Sections(click.Group):
    """A group whose commands are imported when they are needed, and listed by what they are for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of all commands."""
        return [name for commands in SECTIONS.values() for name in commands]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        for commands in SECTIONS.values():
            if name in commands:
                command: click.Command = getattr(import_module(f"godot.cli.commands.{commands[name]}"), name)
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one was perhaps meant."""
        from difflib import get_close_matches

        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            near = get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f"did you mean {near[0]}?" if near else "godot --help lists them all"
            ctx.fail(f"there is no command {name!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands."""
        for section, names in SECTIONS.items():
            with formatter.section(section):
                commands = [(name, self.get_command(ctx, name)) for name in names]
                formatter.write_dl([(name, each.get_short_help_str(80)) for name, each in commands if each is not None])


@click.group(cls=Sections, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="godot")
def cli() -> None:
    """Godot, the flight recorder for systems of MCP servers.

    Components send their log entries to it over MCP; it loses none, and finds them again by trace id.

    Commands that ask the daemon exit with 0 when all is fine, 1 when nothing was found, 2 when they are used
    wrongly, 3 when the daemon cannot be reached or cannot do it now, and 4 when a part was done. Data goes to
    stdout, everything else to stderr.
    """


def main() -> None:
    """Run the command line."""
    cli()
