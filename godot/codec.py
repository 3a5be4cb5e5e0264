"""JSON in and out, and entries as the bytes that travel.

An entry is serialised once, at the listener, to compact JSON; Redis holds those bytes, the sender
joins them, PostgreSQL unpacks them. orjson does the work; what it refuses although JSON allows it
(lone surrogates, integers over 64 bits, deep nesting) takes the standard library's slower way,
because a flight recorder records what was said and not what one parser can hold.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

import orjson

from godot.entries import MAX_DEPTH, MAX_ENTRY_BYTES, Entry
from godot.errors import EntryRejected

_DIGITS_TO_ZERO: Final = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_INTEGER: Final = b"0" * 19
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")

NUL_SHOWN: Final = "\N{SYMBOL FOR NULL}"
SURROGATE_SHOWN: Final = "\N{REPLACEMENT CHARACTER}"


class NotJSON(ValueError):
    """A text that is not JSON; the message says where it breaks off."""


def loads(text: str | bytes) -> Any:
    """Parse JSON.

    :raises NotJSON: when it is not, or not UTF-8.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        # orjson would round an integer over 64 bits to a float. A search in the translated bytes costs
        # 1 ns a byte; the regular expression for 19 digits takes ten times as long.
        if _LONG_INTEGER not in raw.translate(_DIGITS_TO_ZERO):
            return orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass  # the slow way decides, and words the fault
    try:
        return json.loads(raw.decode(), parse_constant=_refuse_constant, parse_float=_finite, parse_int=_integer)
    except RecursionError:
        raise NotJSON("nested too deeply") from None
    except ValueError as exc:
        raise NotJSON(str(exc)) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"the number {text:.80} is too large")
    return number


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
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "backslashreplace")


def encode_entry(entry: Entry, warnings: list[str]) -> bytes:
    """Serialise an entry to the bytes that travel; what PostgreSQL cannot hold is replaced visibly.

    :param warnings: one sentence is appended when something was replaced.
    :raises EntryRejected: it is too large, or `data` is nested too deeply.
    """
    raw = _encode(entry, warnings)
    check_bounds(raw, entry.data)
    return raw


def check_bounds(raw: bytes, value: object) -> None:
    """Refuse an entry that could not be sent on.

    :param raw: the entry, serialised.
    :param value: the part of it that may be deep.
    :raises EntryRejected: naming the limit.
    """
    if len(raw) > MAX_ENTRY_BYTES:
        raise EntryRejected(f"an entry may have {MAX_ENTRY_BYTES:,} bytes as JSON, this one has {len(raw):,}")
    # Every level needs its bracket: counting them spares every flat entry the walk.
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise EntryRejected(f"data: nested more than {MAX_DEPTH} levels deep")


def _depth(value: object) -> int:
    depth = 0
    level = [value]
    while level := [
        child
        for each in level
        if isinstance(each, dict | list)
        for child in (each.values() if isinstance(each, dict) else each)
    ]:
        depth += 1
    return depth


def _encode(entry: Entry, warnings: list[str]) -> bytes:
    try:
        raw = dumps(_as_dict(entry))
        # A NUL is always escaped in JSON, a lone surrogate always by the slow way: two searches in the
        # bytes spare every healthy entry a walk through its data.
        if b"\\u0000" in raw or b"\\ud" in raw:
            clean = _scrub(_as_dict(entry))
            replaced = dumps(clean)
            if replaced != raw:
                warnings.append(
                    f"characters that PostgreSQL cannot store were replaced: NUL by {NUL_SHOWN}, "
                    f"a lone surrogate by {SURROGATE_SHOWN}"
                )
            return replaced
    except RecursionError:
        raise EntryRejected(f"data: nested more than {MAX_DEPTH} levels deep") from None
    return raw


def _as_dict(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "trace_id": entry.trace_id,
        "component": entry.component,
        "level": entry.level,
        "message": entry.message,
        "data": entry.data,
        "created_at": entry.created_at,
    }


def _scrub(value: Any) -> Any:
    match value:
        case str():
            return _UNSTORABLE.sub(lambda found: NUL_SHOWN if found[0] == "\x00" else SURROGATE_SHOWN, value)
        case dict():
            return {_scrub(key): _scrub(each) for key, each in value.items()}
        case list():
            return [_scrub(each) for each in value]
        case _:
            return value
