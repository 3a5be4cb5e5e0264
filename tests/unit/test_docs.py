"""The documentation is true: its reference is that of the code, its links lead somewhere, its commands are commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dewey_logs.cli import cli as dewey
from docs.make.reference import DIRECTORY, pages
from godot.cli.main import cli as godot

ROOT = Path(__file__).parent.parent.parent
DOCS = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
SHELLS = re.compile(r"^```(?:console|sh|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMED = {"godot": godot, "dewey": dewey}


@pytest.mark.parametrize("name", list(pages()))
def test_the_reference_is_fresh(name: str) -> None:
    assert (DIRECTORY / name).read_text() == pages()[name], "run make docs"


@pytest.mark.parametrize("page", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", each).strip().lower().replace(" ", "-") for each in headings}
            assert anchor in anchors, f"{page}: {target}"


def test_every_page_can_be_found() -> None:
    reached = {ROOT / "README.md"}
    todo = list(reached)
    while todo:
        page = todo.pop()
        for target in re.findall(r"\]\(([^)#\s]+\.md)", page.read_text()):
            if not target.startswith("http") and (linked := (page.parent / target).resolve()) not in reached:
                reached.add(linked)
                todo.append(linked)
    assert {page for page in DOCS if (ROOT / "docs") in page.parents} <= reached


def commands() -> Iterator[str]:
    """Yield the commands of ours in what is to be typed."""
    for page in DOCS:
        for block in SHELLS.findall(page.read_text()):
            lines = re.sub(r"\\\n\s*", " ", block).splitlines()
            for line in lines:
                if line.startswith("$ "):
                    for part in re.split(r"\s\|\s|\s&&\s", line[2:]):
                        words = part.split()
                        while words and "=" in words[0]:
                            words.pop(0)  # environment
                        if words and words[0] in NAMED:
                            yield " ".join(words)


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_what_is_to_be_typed_is_understood(line: str) -> None:
    name, *arguments = shlex.split(re.sub(r"\s>\s.*$", "", line), comments=True)
    command: click.Command = NAMED[name]
    context = click.Context(command, info_name=name)
    while isinstance(command, click.Group):
        child = command.get_command(context, arguments[0])
        assert child is not None, line
        command, arguments = child, arguments[1:]
        context = click.Context(command, info_name=command.name, parent=context)
    # A file that is only an example is not there.
    for parameter in command.params:
        if isinstance(parameter.type, click.Path):
            parameter.type.exists = False
    command.parse_args(context, arguments)
