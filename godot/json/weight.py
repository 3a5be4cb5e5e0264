"""What a JSON text weighs: the work that it makes grows with its bytes, and with its keys and values. Pure."""

from __future__ import annotations

from typing import Final

_VALUE_WEIGHT: Final = 8
"""What a key or a value weighs beside its bytes."""

_LIGHT_BYTES: Final = 16 * 1024
"""A text of so many bytes is light, whatever is in it."""


def weigh(text: str | bytes) -> int:
    """Return the weight of JSON: the work that it makes grows with its bytes, and with its keys and values."""
    if len(text) <= _LIGHT_BYTES:
        return len(text)
    return len(text) + _VALUE_WEIGHT * separators(text)


def separators(text: str | bytes) -> int:
    """Count what stands before, between and in front of keys and values of JSON: no fewer than there are of these."""
    if isinstance(text, str):
        return sum(map(text.count, (",", ":", "[", "{")))
    return sum(map(text.count, (b",", b":", b"[", b"{")))
