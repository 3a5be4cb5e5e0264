"""The weight of a JSON text: how much work it makes. Pure."""

from __future__ import annotations

from typing import Final

_VALUE_WEIGHT: Final = 8
"""The weight of a key or a value, beside its bytes."""

_LIGHT_BYTES: Final = 16 * 1024
"""A text of so many bytes is light, whatever its content."""


def weigh(text: str | bytes) -> int:
    """Return the weight of JSON: the work grows with its bytes, and with its keys and values."""
    if len(text) <= _LIGHT_BYTES:
        return len(text)
    return len(text) + _VALUE_WEIGHT * separators(text)


def separators(text: str | bytes) -> int:
    """Count the separators of JSON, of which there are no fewer than keys and values in its objects and arrays."""
    if isinstance(text, str):
        return sum(map(text.count, (",", ":", "[", "{")))
    return sum(map(text.count, (b",", b":", b"[", b"{")))
