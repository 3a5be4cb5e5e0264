"""`make docs`: writes docs/reference/ out of the code, so that it says what the code does; test_docs.py compares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import click

import dewey_logs.cli
import dewey_logs.metrics
import godot.errors
import godot.pipeline.metrics
import godot.service.lag
from dewey_logs.settings import DeweyServeSettings
from dewey_logs.store.memory import MemoryStore
from dewey_logs.tools import DEFINITIONS, dewey_tools
from godot.buffer.memory import MemoryBuffer
from godot.cli.main import cli
from godot.combined import CombinedSettings
from godot.intake.accept import Door
from godot.mcp.toolbox import Toolbox
from godot.pipeline.channel import open_entry_channel
from godot.pipeline.dewey import DirectDewey
from godot.pipeline.levels import Levels
from godot.pipeline.status import Status
from godot.stations import godot_toolbox

DIRECTORY: Final = Path(__file__).parent.parent.parent / "docs" / "reference"
GENERATED: Final = "<!-- made by `make docs` out of the code; change that -->"


def default_of(field: Any) -> str:
    """Return the default of a setting as the environment would have it."""
    match field.default:
        case None | ():
            return ""
        case bool(value):
            return f"`{str(value).lower()}`"
        case float(value):
            return f"`{value:g}`"
        case value:
            return f"`{value}`"


def settings_page() -> Iterator[str]:
    """Yield the page of settings (MAINT-004)."""
    yield "# Settings\n"
    yield (
        "Environment variables. A bad value ends the start with exit code 2 and a line that says what is allowed; a\n"
        "name that begins with `GODOT_` or `DEWEY_` and is not known is warned about. `<name>_FILE` names a file that\n"
        "holds the value. `godot config print` shows them as they are, `godot config check` judges them.\n"
    )
    both = {field.metadata["name"] for field in attrs.fields(CombinedSettings)} & {
        field.metadata["name"] for field in attrs.fields(DeweyServeSettings)
    }
    for title, kind, skipped in (
        ("`godot up`, `godot serve`", CombinedSettings, set[str]()),
        ("`dewey serve`, beside those of Dewey above", DeweyServeSettings, both),
    ):
        yield f"## {title}\n"
        yield "| name | default | meaning |\n|---|---|---|"
        for field in attrs.fields(kind):
            if field.metadata["name"] not in skipped:
                yield f"| `{field.metadata['name']}` | {default_of(field)} | {field.metadata['meaning']} |"
        yield ""


def toolboxes() -> Mapping[str, Toolbox]:
    """Return the tools of both ports."""
    inlet, _ = open_entry_channel()
    buffer = MemoryBuffer(1)
    status = Status(lambda _: None, buffer, max_size=1)
    levels = Levels()
    door = Door(inlet, status, levels)
    ours = godot_toolbox(door, DirectDewey(Toolbox([])), status, buffer, levels, definitions=DEFINITIONS)
    return {"Godot, port 9060": ours, "Dewey, port 9020": Toolbox(dewey_tools(MemoryStore()))}


def tools_page() -> Iterator[str]:
    """Yield the page of tools."""
    yield "# Tools\n"
    yield "As `tools/list` has them. An argument without a default is needed.\n"
    for title, toolbox in toolboxes().items():
        yield f"## {title}\n"
        for listed in toolbox.listing():
            tool = toolbox.find(listed["name"])
            flags = (("reads only", tool.read_only), ("deletes", tool.destructive))
            hints = "".join(f", {word}" for word, is_so in flags if is_so)
            yield f"### `{tool.name}`\n"
            yield f"Role `{tool.role}`{hints}. {tool.description}\n"
            schema = listed["inputSchema"]
            if schema.get("properties"):
                yield "| argument | type | default | meaning |\n|---|---|---|---|"
                for name, said in schema["properties"].items():
                    needed = name in schema.get("required", [])
                    default = "" if needed or said.get("default") is None else f"`{said['default']}`"
                    meaning = said.get("description", "").replace("|", "\\|")
                    yield f"| `{name}`{' (needed)' if needed else ''} | {_type(said)} | {default} | {meaning} |"
                yield ""


def _type(said: Mapping[str, Any]) -> str:
    kinds = said.get("type") or [each.get("type") for each in said.get("anyOf", [])]
    listed = [kinds] if isinstance(kinds, str) else list(kinds)
    return " or ".join(kind for kind in listed if kind and kind != "null") or "any"


def commands_page() -> Iterator[str]:
    """Yield the page of commands."""
    yield "# Commands\n"
    for name, group in (("godot", cli), ("dewey", dewey_logs.cli.cli)):
        yield from _command(name, group, None)


def _command(path: str, command: click.Command, parent: click.Context | None) -> Iterator[str]:
    context = click.Context(command, info_name=path.rpartition(" ")[2], parent=parent, terminal_width=100)
    context.max_content_width = 100
    yield f"## {path}\n"
    yield f"```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from _command(f"{path} {name}", child, context)


def metrics_page() -> Iterator[str]:
    """Yield the page of metrics (OBS-001)."""
    yield "# Metrics\n"
    yield (
        "What `/metrics` of each daemon has, beside `godot_build_info`. With Dewey inside of Godot (`godot up`)\n"
        "Godot's has both. A dashboard for Grafana and alert rules are in `container/`.\n"
    )
    for title, module in (("Godot", godot.pipeline.metrics), ("Dewey", dewey_logs.metrics)):
        yield f"## {title}\n"
        yield "| name | type | labels | meaning |\n|---|---|---|---|"
        rows = [(f"{name}_total", "counter", *said) for name, said in module.COUNTERS.items()]
        rows += [(name, "gauge", *said) for name, said in module.GAUGES.items()]
        rows += [(name, "histogram", *said[:2]) for name, said in module.HISTOGRAMS.items()]
        rows.append((f"{title.lower()}_event_loop_lag_seconds", "histogram", godot.service.lag.MEANING, []))
        for name, kind, meaning, labels in rows:
            yield f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {meaning} |"
        yield ""


def errors_page() -> Iterator[str]:
    """Yield the page of errors."""
    yield "# Errors\n"
    yield (
        "A tool that did not do what it was asked answers with `isError`, a text for a reader, and for a program\n"
        "`structuredContent.kind`: `rejected` (the arguments; sending the same again is no use), `refused` (entries\n"
        "of a batch, by their index in `faults`), `unavailable` (try again later), `busy` (the same: somebody holds a\n"
        "lock), `failed` (the same, unless the call itself is the reason). Codes of JSON-RPC errors are in\n"
        "[mcp.md](../mcp.md); exit codes of commands in [commands.md](commands.md).\n"
    )
    yield "Inside, every error says whose fault it is:\n"
    _, tree, *_ = (godot.errors.__doc__ or "").split("\n\n")
    yield f"```text\n{tree}\n```\n"
    yield "| error | meaning |\n|---|---|"
    for name, value in vars(godot.errors).items():
        if isinstance(value, type) and issubclass(value, godot.errors.GodotError):
            yield f"| `{name}` | {(value.__doc__ or '').splitlines()[0]} |"
    yield ""


def pages() -> dict[str, str]:
    """Return the pages by their file name."""
    made = {
        "settings.md": settings_page(),
        "tools.md": tools_page(),
        "commands.md": commands_page(),
        "metrics.md": metrics_page(),
        "errors.md": errors_page(),
    }
    return {name: "\n".join([GENERATED, *page]).rstrip() + "\n" for name, page in made.items()}


if __name__ == "__main__":
    for name, text in pages().items():
        (DIRECTORY / name).write_text(text)
