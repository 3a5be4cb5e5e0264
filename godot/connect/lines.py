"""Makes lines of bytes and of frames: a line of stdin or stdout is one message."""

from __future__ import annotations

from typing import Final

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""The longest line and the largest frame. Godot answers with less than 1 MiB, but others speak MCP too."""


class LineCutter:
    """Cuts bytes into lines, holding at most the beginning of one."""

    def __init__(self, longest: int = MAX_MESSAGE_BYTES) -> None:
        self._longest = longest
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes | None]:
        """Return the lines that end in `data`, without their ends; None for one that was too long."""
        *ends, rest = data.split(b"\n")
        lines = []
        for end in ends:
            self._add(end)
            lines.append(self._take())
        self._add(rest)
        return lines

    def close(self) -> list[bytes | None]:
        """Return the last line if nothing ended it."""
        return [self._take()] if self._size else []

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size <= self._longest:
            self._parts.append(part)
        else:
            self._parts.clear()

    def _take(self) -> bytes | None:
        line = b"".join(self._parts) if self._size <= self._longest else None
        self._parts.clear()
        self._size = 0
        return line


def one_line(frame: str | bytes) -> str:
    """Make a frame one line of the same JSON.

    A JSON text has raw line breaks between its tokens only, never inside a string.
    """
    text = frame if isinstance(frame, str) else frame.decode("utf-8", "replace")
    return text.replace("\n", " ").replace("\r", " ")
