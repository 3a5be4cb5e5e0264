"""Parses and serialises JSON.

orjson does the work. Where it refuses valid JSON (lone surrogates, integers over 64 bits, deep nesting), the standard
library does it more slowly, because a flight recorder records what was said and not what one parser can hold.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal, InvalidOperation
from itertools import accumulate
from typing import Any, Final
from uuid import uuid4

import orjson

from godot.json.numbers import MAX_DIGITS, is_delicate
from godot.json.structure import Repeating
from godot.json.weight import separators

MAX_VALUES: Final = 400_000
"""Keys and values of an entry. Reading or writing one takes up to 125 ns, during which nothing else runs; PostgreSQL
takes a hundred times as long."""

_ENVELOPE_VALUES: Final = 1_000
"""Keys and values that a message may have around those of an entry."""

_COUNTED_BYTES: Final = 64 * 1024
"""Bytes that are searched at once where values are counted exactly; it takes a millisecond."""

_RAW: Final = f"raw-{uuid4().hex}-"
"""Marks a text that is to be written without quotes: a `Decimal`, which the standard library cannot write."""
_MARKED: Final = re.compile(f'"{_RAW}([^"]*)"'.encode())


class NotJSON(ValueError):
    """A text is not JSON; the message says where it breaks off."""


class TooManyValues(NotJSON):
    """A text has more values than may be parsed at once; whether it is JSON is unknown."""


def loads(text: str | bytes) -> Any:
    """Parse JSON.

    An integer of any size is exact. Any other number becomes a `Decimal` if a float would change it.

    :raises NotJSON: it is not, or not UTF-8.
    :raises TooManyValues: it has more than `MAX_VALUES`.
    """
    raw = _bounded(text)
    return _loads_slowly(raw) if is_delicate(raw) else _loads(raw)


def loads_as_said(text: str | bytes) -> Any:
    """Parse JSON as `loads` does, and make an object with repeated keys a `Repeating`.

    For texts of others; it takes twice as long.
    """
    raw = _bounded(text)
    if is_delicate(raw):
        return _loads_slowly(raw, pairs=_object)
    value = _loads(raw)
    # If the value has fewer keys than the text, one was repeated. The keys of the serialised value are cheap to count.
    # The counts may differ for another reason; then the slow way finds no repeated key.
    try:
        if raw.count(b'":') == orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_SUBCLASS).count(b'":'):
            return value
    except TypeError:
        pass
    return _loads_slowly(raw, pairs=_object)


def _bounded(text: str | bytes) -> bytes:
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if has_more_values(raw, MAX_VALUES + _ENVELOPE_VALUES):
        raise TooManyValues(
            f"a message may have {MAX_VALUES:,} keys and values, this one has more; send it in parts, or the largest "
            "part as a text, which counts as one"
        )
    return raw


def has_more_values(raw: bytes, limit: int) -> bool:
    """Whether JSON has more keys and values than a limit: each costs time and memory, however short it is."""
    if len(raw) <= limit or separators(raw) <= limit:
        return False
    # Some of the separators may stand in strings.
    return is_more(map(separators, outside_of_strings(raw)), limit)


def outside_of_strings(raw: bytes) -> Iterator[bytes]:
    """Yield the parts of JSON outside of its strings, in pieces of some milliseconds' work."""
    # Without escaped quotes, every other piece between quotes is a string.
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    inside = False
    for start in range(0, len(plain), _COUNTED_BYTES):
        pieces = plain[start : start + _COUNTED_BYTES].split(b'"')
        yield b" ".join(pieces[inside::2])
        inside ^= len(pieces) % 2 == 0


def is_more(counts: Iterable[int], limit: int) -> bool:
    """Whether counts add up to more than a limit; the rest is not counted then."""
    return any(total > limit for total in accumulate(counts))


def _loads(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _loads_slowly(raw)  # it decides, and describes the fault


def _loads_slowly(raw: bytes, pairs: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None = None) -> Any:
    try:
        return json.loads(
            raw.decode(),
            parse_constant=_refuse_constant,
            parse_float=_float,
            parse_int=_integer,
            object_pairs_hook=pairs,
        )
    except RecursionError:
        raise NotJSON("nested too deeply") from None
    except json.JSONDecodeError as exc:
        what = exc.msg[:1].lower() + exc.msg[1:].removesuffix(" at")
        line = f" of line {exc.lineno:,}" if exc.lineno > 1 else ""
        raise NotJSON(f"not JSON: {what} at character {exc.colno:,}{line}") from None
    except UnicodeDecodeError as exc:
        raise NotJSON(f"not JSON: no UTF-8 at byte {exc.start + 1:,}") from None
    except ValueError as exc:
        raise NotJSON(str(exc)) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    return plain if len(plain) == len(pairs) else Repeating(pairs)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _float(text: str) -> float | Decimal:
    """Return a float if one has exactly this value, else a `Decimal`."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"the number {text:.80} is too large")
    try:
        exact = Decimal(text) if len(text) <= MAX_DIGITS else None
    except InvalidOperation:  # an exponent beyond all bounds
        exact = None
    if exact == Decimal(repr(number)):
        return number
    if exact is None or exact.adjusted() < -MAX_DIGITS:
        raise ValueError(f"the number {text:.80} has more than {MAX_DIGITS:,} digits")
    return exact


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # Python's guard against integers that take quadratic time
        raise ValueError(f"an integer of {len(text)} digits is too large") from None


def dumps(value: object) -> bytes:
    """Serialise to compact JSON in UTF-8; a lone surrogate becomes its escape.

    :raises RecursionError: nested deeper than Python's own limit.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_mark)
        raw = text.encode("utf-8", "backslashreplace")
        return _MARKED.sub(rb"\1", raw) if _RAW in text else raw


def _mark(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{_RAW}{value}"
    raise TypeError(f"{type(value).__name__} is no JSON")
