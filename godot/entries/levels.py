"""How severe an entry is, and from which level on the entries of a component are stored (DEW-011)."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Final

import attrs

from godot.errors import EntryRejected
from godot.json.structure import did_you_mean, shown

LEVELS: Final = ("ERROR", "WARN", "INFO", "DEBUG", "TRACE")
"""Most severe first."""

RANK: Final = {level: rank for rank, level in enumerate(LEVELS)}
"""Where a level stands among `LEVELS`."""


def parse_level(text: str) -> str:
    """Return the level that is meant; lower case is accepted.

    :raises EntryRejected: naming the five levels, and the one that was probably meant.
    """
    if text in LEVELS:
        return text
    if (upper := text.upper()) in LEVELS:
        return upper
    raise EntryRejected(f"level: must be one of {', '.join(LEVELS)}, not {shown(text)}{did_you_mean(text, LEVELS)}")


def levels_from(least: str) -> tuple[str, ...]:
    """Return a level and those that are more severe."""
    return LEVELS[: RANK[least] + 1]


@attrs.frozen
class LevelSetting:
    """From which level on the entries of a component are stored.

    :param level: the least severe one that is; None: all are.
    :param until: when that ends, ISO 8601 in UTC; None: never.
    :param later: the level that counts after `until`; None: none.
    """

    level: str | None
    until: str | None = None
    later: str | None = None

    @property
    def ends(self) -> float:
        """When it ends by itself, in seconds since 1970."""
        return math.inf if self.until is None else datetime.fromisoformat(self.until).timestamp()
