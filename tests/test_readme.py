"""What the README says of the settings is what the code says."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from godot.config import DeweyServeSettings, GodotSettings

README = Path(__file__).parent.parent / "README.md"


def rows() -> list[str]:
    """Return the rows that the table of settings has to have (MAINT-004)."""
    found: dict[str, str] = {}
    for field in (*attrs.fields(GodotSettings), *attrs.fields(DeweyServeSettings)):
        name, meaning = field.metadata["name"], field.metadata["meaning"]
        match field.default:
            case None | ():
                default = ""
            case bool(value):
                default = f"`{str(value).lower()}`"
            case float(value):
                default = f"`{value:g}`"
            case value:
                default = f"`{value}`"
        found.setdefault(name, f"| `{name}` | {default} | {meaning} |")
    return list(found.values())


@pytest.mark.parametrize("row", rows())
def test_the_readme_has_every_setting_with_its_default(row: str) -> None:
    assert row in README.read_text().splitlines()
