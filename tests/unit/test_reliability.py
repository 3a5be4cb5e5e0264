"""What docs/reliability.md names as proof is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
PAGE = TESTS.parent / "docs" / "reliability.md"


def proofs() -> list[tuple[str, str]]:
    """Return each file that the last column of the table names, with a word that is to be found in it."""
    last = [line.rstrip("| ").rpartition("|")[2] for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    found = []
    for cell in last:
        for file, words in re.findall(r"`(test_\w+\.py)`: ((?:`[\w.]+`(?:, )?)+)", cell):
            found += [(file, word) for word in re.findall(r"`([\w.]+)`", words)]
    return found


def test_every_row_names_its_proof() -> None:
    section = PAGE.read_text().partition("## What happens when")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    assert all("`test_" in row for row in rows)
    assert len(proofs()) >= len(rows)


@pytest.mark.parametrize(("file", "word"), proofs())
def test_what_is_named_as_a_proof_is_there(file: str, word: str) -> None:
    (path,) = TESTS.rglob(file)
    assert word in path.read_text()
