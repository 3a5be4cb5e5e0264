"""The exceptions of tools: each becomes an answer that is an error.

    ToolError           the tool did not do what it was asked; `kind` says to a program why
    ├── UnknownTool     there is no tool of that name
    └── Crowded         there is no room for the answer now

The errors of an application derive from `ToolError`. Any other exception is a bug.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class ToolError(Exception):
    """A tool did not do what it was asked; the text is the answer."""

    kind: ClassVar[str] = "rejected"
    """The kind of fault, for programs: `structuredContent.kind`."""

    def details(self) -> Mapping[str, Any]:
        """Return what `structuredContent` says beside `error` and `kind`."""
        return {}


class UnknownTool(ToolError):
    """There is no tool of that name."""


class Crowded(ToolError):
    """There is no room for the answer, since other clients do not read theirs; trying again later is right."""

    kind: ClassVar[str] = "unavailable"
