"""What a filter means: names with patterns, moments, and UUIDs. Shared by queries and by clearing.

Pure: no driver; the clock is handed in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from godot.entries.entry import MAX_COMPONENT_CHARS, UNSTORABLE, parse_uuid
from godot.entries.times import iso, span
from godot.errors import EntryRejected
from godot.json.structure import shown

MAX_NAMES: Final = 100
"""How many components one list may have."""

MAX_WORD_CHARS: Final = 100
"""The longest id, level or time."""


@attrs.frozen
class Components:
    """Some components: by their exact names, and by patterns in which `*` stands for anything."""

    names: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()

    @classmethod
    def parse(cls, asked: str | Sequence[str]) -> Components:
        """Read a name, a pattern, or a list of both.

        :raises EntryRejected: naming what is allowed.
        """
        listed = [asked] if isinstance(asked, str) else list(asked)
        if not 1 <= len(listed) <= MAX_NAMES:
            raise EntryRejected(f"component: from 1 to {MAX_NAMES} names or patterns, not {len(listed)}")
        for each in listed:
            storable("component", bounded("component", each, MAX_COMPONENT_CHARS))
        return cls(tuple(each for each in listed if "*" not in each), tuple(each for each in listed if "*" in each))

    def to_sql(self) -> tuple[str, dict[str, Any]]:
        """Word it for PostgreSQL: a condition on `logs.component`, and the values of its placeholders."""
        if self.names and not self.patterns and len(self.names) == 1:
            return "logs.component = %(component)s", {
                "component": self.names[0]
            }  # this form keeps the order of the index
        conditions: list[str] = []
        values: dict[str, Any] = {}
        if self.names:
            conditions.append("logs.component = ANY(%(components)s::text[])")
            values["components"] = list(self.names)
        if self.patterns:
            conditions.append("logs.component LIKE ANY(%(component_patterns)s::text[])")
            values["component_patterns"] = [_like(pattern) for pattern in self.patterns]
        return f"({' OR '.join(conditions)})", values

    def match(self, name: str) -> bool:
        """Whether a component is one of them."""
        return name in self.names or any(_fits(pattern, name) for pattern in self.patterns)


def _fits(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern.

    Each part is searched behind the one before it. The first place found is the best, so nothing is tried twice. A
    regular expression tries every way to divide a name among the `*`, which takes for ever when there are many.
    """
    first, *middle, last = pattern.split("*")
    at, end = len(first), len(name) - len(last)
    if at > end or not (name.startswith(first) and name.endswith(last)):
        return False
    for part in middle:
        if (found := name.find(part, at, end)) < 0:
            return False
        at = found + len(part)
    return True


def _like(pattern: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", pattern).replace("*", "%")


def bounded(name: str, text: str, most: int) -> str:
    """Return a text that is short enough.

    :raises EntryRejected: naming the argument and the limit.
    """
    if len(text) > most:
        raise EntryRejected(f"{name}: at most {most:,} characters, not {len(text):,}")
    return text


def storable(name: str, text: str) -> str:
    """Return a text that PostgreSQL can hold.

    :raises EntryRejected: naming the argument.
    """
    if UNSTORABLE.search(text):
        raise EntryRejected(f"{name}: must not contain NUL or half a surrogate pair; none is stored so")
    return text


def identifier(name: str, text: str) -> str:
    """Read a UUID.

    :raises EntryRejected: naming the argument.
    """
    if (found := parse_uuid(text)) is None:
        raise EntryRejected(f"{name}: must be a UUID, not {shown(text)}")
    return found


def moment(name: str, text: str, now: datetime) -> str:
    """Read a time, ISO 8601 or relative to now, and write it as entries carry it.

    :raises EntryRejected: naming the argument and what is allowed.
    """
    try:
        if text == "now":
            return iso(now)
        if text.startswith("-") and (ago := span(text[1:])) is not None:
            return iso(now - ago)
        absolute = datetime.fromisoformat(text)
        return iso(absolute if absolute.tzinfo is not None else absolute.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise EntryRejected(
            f"{name}: must be ISO 8601, such as 2026-11-20T08:30:00Z (UTC without an offset), or relative, "
            f"such as now, -30s, -15m, -2h, -7d or -4w, not {shown(text)}"
        ) from None
