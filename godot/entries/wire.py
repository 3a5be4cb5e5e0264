"""An entry as the bytes that travel.

An entry is serialised once, where it comes in, to compact JSON; Redis holds those bytes, the sender joins them,
PostgreSQL unpacks them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import attrs
import orjson

from godot.entries.entry import MAX_DEPTH, MAX_ENTRY_BYTES, REPLACED, Entry, kept_by_us, storable
from godot.entries.levels import LEVELS
from godot.errors import EntryRejected
from godot.json.numbers import large_exponents
from godot.json.structure import Repeating
from godot.json.text import MAX_VALUES, dumps, has_more_values, is_more, outside_of_strings

MAX_DIGITS_OF_EXPONENTS: Final = 1024 * 1024
"""Digits that the exponents of an entry's numbers may stand for, in all."""

_SHORT_BYTES: Final = 1_024
"""Most entries are shorter: with hardly two hundred numbers at the most, they are not looked through."""

_EXPONENT: Final = re.compile(rb"[eE][+-]?([0-9]{2,6})")
_EXPONENTS: Final = re.compile(rb"[0-9][eE][+-]?([0-9]{2,6})")

_UUID: Final = rb'"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"'
_HEAD: Final = re.compile(
    rb'\{"id":%b,"trace_id":(?:null|%b),"component":"(?:[^"\\]|\\.){1,2000}+",'
    rb'"level":"(?:%b)","message":"' % (_UUID, _UUID, "|".join(LEVELS).encode())
)
_TAIL: Final = re.compile(rb'"created_at":"(?!0000)[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"\}')
_TAIL_BYTES: Final = 43

KEPT_REPEATS: Final = 100
"""Of so many repeated keys is said that they were, when the values that do not count are more than this."""

_SHOWN_PATH: Final = 200

KEPT_REPEATS_BYTES: Final = 64 * 1024


def _has_long_numbers(raw: bytes) -> bool:
    """Whether the numbers in it have more digits when they are written without exponents than may be.

    PostgreSQL writes them so whenever it is asked for them: 1e308 has 5 bytes on the way in and 309 on the way out.
    """
    if len(raw) <= _SHORT_BYTES:
        return False
    likely = (int(found[1]) for at in large_exponents(raw) if (found := _EXPONENT.match(raw, at)))
    if not is_more(likely, MAX_DIGITS_OF_EXPONENTS):
        return False
    lengths = (sum(map(int, _EXPONENTS.findall(piece))) for piece in outside_of_strings(raw))
    return is_more(lengths, MAX_DIGITS_OF_EXPONENTS)


def encode_entry(entry: Entry, warnings: list[str]) -> bytes:
    """Serialise an entry to the bytes that travel; what PostgreSQL cannot hold is replaced visibly.

    :param warnings: a sentence is appended for each kind of thing that is not as a reader may think.
    :raises EntryRejected: it is too large, or `data` is nested too deeply.
    """
    raw = _encode(entry, warnings)
    check_bounds(raw, entry.data)
    return raw


def is_ours(raw: bytes) -> bool:
    """Whether bytes begin and end as `encode_entry` writes them. The message and `data` between are not looked at."""
    return _HEAD.match(raw) is not None and _TAIL.fullmatch(raw, max(0, len(raw) - _TAIL_BYTES)) is not None


def id_of(raw: bytes) -> str:
    """Return the id of an entry that `encode_entry` serialised: it comes first."""
    return raw[7:43].decode()


def created_at_of(raw: bytes) -> str:
    """Return the time of an entry that `encode_entry` serialised: it comes last."""
    return raw[-29:-2].decode()


def encode_entries(entries: Sequence[Entry]) -> bytes | None:
    """Serialise entries to one JSON array; None: one of them needs a look of its own, which `encode_entry` takes."""
    try:
        raw = orjson.dumps([_as_dict(entry) for entry in entries], option=orjson.OPT_PASSTHROUGH_SUBCLASS)
    except TypeError:  # it is deep, or more than JSON
        return None
    # What is within the limits of one entry is so for each. orjson takes less depth than an entry may have.
    is_plain = (
        b"\\u0000" not in raw
        and len(raw) <= MAX_ENTRY_BYTES
        and not has_more_values(raw, MAX_VALUES)
        and not _has_long_numbers(raw)
    )
    return raw if is_plain else None


def check_bounds(raw: bytes, value: object) -> None:
    """Refuse an entry that could not be sent on.

    :param raw: the entry, serialised.
    :param value: the part of it that may be deep.
    :raises EntryRejected: naming the limit.
    """
    if len(raw) > MAX_ENTRY_BYTES:
        raise EntryRejected(f"an entry may have {MAX_ENTRY_BYTES:,} bytes as JSON, this one has {len(raw):,}")
    if has_more_values(raw, MAX_VALUES):
        raise EntryRejected(
            f"an entry may have {MAX_VALUES:,} keys and values, this one has more; send it in parts, or the largest "
            "part as a text, which counts as one"
        )
    if _has_long_numbers(raw):
        raise EntryRejected(
            f"data: its numbers have more than {MAX_DIGITS_OF_EXPONENTS:,} digits without their exponents, as the "
            "database writes them; send them as texts"
        )
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
        try:
            raw = orjson.dumps(_as_dict(entry), option=orjson.OPT_PASSTHROUGH_SUBCLASS)
        except TypeError:  # deep, or with something in it that needs a look
            return _encode_odd(entry, warnings)
        # A NUL is always escaped in JSON: a search in the bytes spares every healthy entry a walk through its data.
        return _encode_odd(entry, warnings) if b"\\u0000" in raw else raw
    except RecursionError:
        raise EntryRejected(f"data: nested more than {MAX_DEPTH} levels deep") from None


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


@attrs.define
class _Found:
    """What was found on a walk through an entry.

    :param path: where the walk is.
    :param repeats: where a key came more than once, with the values that do not count.
    """

    replaced: bool = False
    exact: bool = False
    path: list[str] = attrs.Factory(list)
    repeats: dict[str, list[Any]] = attrs.Factory(dict)


def _encode_odd(entry: Entry, warnings: list[str]) -> bytes:
    found = _Found()
    value = {name: _mend(each, found) for name, each in _as_dict(entry).items()}
    if found.replaced and REPLACED not in warnings:
        warnings.append(REPLACED)
    if found.exact:
        warnings.append("data: numbers that a 64-bit float cannot hold are stored as written; most readers round them")
    if found.repeats:
        kept = (
            found.repeats if len(dumps(found.repeats)) <= KEPT_REPEATS_BYTES else sorted(found.repeats)[:KEPT_REPEATS]
        )
        value["data"] = {**value["data"], "_godot": {**kept_by_us(value["data"]), "repeated_keys": kept}}
        warnings.append(
            "data: keys came more than once in one object; the last value of each counts, the others are kept in "
            "data._godot.repeated_keys"
        )
    return dumps(value)


def _mend(value: Any, found: _Found) -> Any:
    kind = type(value)
    if kind is str:
        text = storable(value)
        found.replaced = found.replaced or text != value
        return text
    if kind is list:
        items = []
        for each in value:  # a comprehension would take a second frame of Python for each level
            items.append(_mend(each, found))
        return items
    if kind is dict or kind is Repeating:
        if kind is Repeating:
            for key, lost in value.lost:
                path = ".".join([*found.path, _mend(key, found)])[:_SHOWN_PATH]
                found.repeats.setdefault(path, []).append(_mend(lost, found))
        mended = {}
        for key, each in value.items():
            found.path.append(name := _mend(key, found))
            mended[name] = _mend(each, found)
            found.path.pop()
        return mended
    found.exact = found.exact or kind is Decimal
    return value
