"""`make picture`: draws docs/terminal.svg from a real run: `godot demo` and `godot trace` in a pseudo-terminal."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Final

import trio
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tests.acceptance.test_commands import Shell
from tests.programs import workplace

TARGET: Final = Path(__file__).parent.parent.parent / "docs" / "terminal.svg"
COLUMNS: Final = 100


def main() -> None:
    """Run it and draw it."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    with workplace() as place:
        shell = Shell(place, trio.run(place.up().ready))
        demo = shell.run("demo").out
        trace = re.findall(r"godot trace (\S+)", demo)[1]
        terminal = shell.terminal("trace", trace)
        terminal.end()
        console.print(Text(f"$ godot trace {trace}", style="bold"))
        console.print(Text.from_ansi(terminal.raw.decode().replace("\r\n", "\n")))
    svg = console.export_svg(title="godot", theme=MONOKAI)
    # rich's template fetches its font from elsewhere; any monospaced one will do.
    svg = re.sub(r"@font-face \{.*?\}|<!-- Generated.*?-->", "", svg, flags=re.DOTALL)
    TARGET.write_text(svg)
    sys.stdout.write(f"{TARGET.name}: {len(svg):,} bytes\n")


if __name__ == "__main__":
    main()
