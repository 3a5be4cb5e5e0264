"""Finds in a JSON text the numbers that need care, without parsing it. Pure.

A search for a digit or an `e` costs tens of nanoseconds a byte, which every message would pay. So every digit becomes a
zero first, and a search for a fixed text, of 2 ns a byte, spares most messages the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

MAX_DIGITS: Final = 5_000
"""A number may have so many digits, after so many zeros; PostgreSQL keeps 16,383 digits behind the point."""

_DIGITS_TO_ZERO: Final = bytes.maketrans(b"123456789E", b"0" * 9 + b"e")
_MANY_DIGITS: Final = b"0" * 16
_DELICATE: Final = re.compile(rb"[0-9]{19}|(?=[0-9.]{17})[0-9]+\.[0-9]|[0-9]{16}[eE]")
"""Numbers that may not fit into 64 bits: as an integer, or as a float of the same value."""

_TINY: Final = re.compile(b"0e-000")
_LARGE: Final = re.compile(b"0e[+-]?00")
"""Exponents, where each digit is a zero."""

_NUMBER_BYTES: Final = 40
"""A longer number has so many digits that its exponent does not matter."""

_BEFORE_NUMBERS: Final = frozenset((b"", b":", b",", b"[", b" ", b"\t", b"\n", b"\r"))


def is_delicate(raw: bytes) -> bool:
    """Whether there may be a number in it that 64 bits do not hold."""
    digits = raw.translate(_DIGITS_TO_ZERO, b".")
    if _MANY_DIGITS in digits and _DELICATE.search(raw) is not None:
        return True
    return _TINY.pattern in digits and any(_exponents(raw, _TINY))


def large_exponents(raw: bytes) -> Iterator[int]:
    """Yield where exponents of two digits and more begin: at their `e`."""
    return _exponents(raw, _LARGE)


def _exponents(raw: bytes, wanted: re.Pattern[bytes]) -> Iterator[int]:
    # One UUID in 25 has something like a tiny exponent in it (`…3e-412…`), and every other one a large one. It is no
    # number where no `:`, `,` or `[` stands before its digits. Texts may have one in them all the same.
    for hit in wanted.finditer(raw.translate(_DIGITS_TO_ZERO)):
        at = hit.start() + 1
        before = raw[max(0, at - _NUMBER_BYTES) : at].rstrip(b"0123456789.").removesuffix(b"-")
        if before[-1:] in _BEFORE_NUMBERS:
            yield at
