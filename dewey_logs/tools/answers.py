"""Writes entries as the text of an answer: as many as fit, and shortens one that is too large. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from typing import Final, Literal, TypeAlias, get_args

import attrs

from dewey_logs.places import Cursor
from dewey_logs.reading import Tail
from dewey_logs.store.protocol import Page, StoredEntry
from godot.errors import EntryRejected
from godot.json.text import dumps
from godot.mcp.toolbox import Answer

DEFAULT_MAX_BYTES: Final = 204_800
LEAST_MAX_BYTES: Final = 1_000
MOST_MAX_BYTES: Final = 921_600
"""An answer is one WebSocket message, and common clients drop the connection at 1 MiB."""

Field: TypeAlias = Literal[
    "id", "trace_id", "component", "level", "message", "data", "created_at", "ingested_at", "age"
]
FIELDS: Final = frozenset(get_args(Field))

_ENVELOPE_BYTES: Final = 256
"""For everything around the entries: the fields of the page, with the longest cursor."""


def page_answer(page: Page, max_bytes: int, fields: Collection[str]) -> Answer:
    """Fit as many entries of a page into an answer as there is room for, and at least one.

    :param fields: the fields of an entry to show.
    """
    texts, shortened = _fitting(page.entries, max_bytes, fields)
    next_cursor = None
    if page.more or len(texts) < len(page.entries):
        last = page.entries[len(texts) - 1]
        next_cursor = Cursor(last.created_at, last.id).encode()
    rest = dumps({"count": len(texts), "next_cursor": next_cursor, "shortened": shortened}).decode()
    # Text only: with an object beside it, it would travel twice.
    return Answer(f'{{"entries":[{",".join(texts)}],{rest[1:]}')


def tail_answer(found: Tail, max_bytes: int, fields: Collection[str], *, newest_only: bool) -> Answer:
    """Fit entries into an answer. Its cursor goes on behind the last one that fits.

    :param newest_only: there was no cursor: when not all fit, the oldest are dropped, not left for later.
    """
    entries = [entry for _, entry in found.entries]
    place = found.place
    if newest_only:
        texts, shortened = _fitting(entries[::-1], max_bytes, fields)
        texts.reverse()
    else:
        texts, shortened = _fitting(entries, max_bytes, fields)
        if len(texts) < len(entries):
            place = found.entries[len(texts) - 1][0]
    rest = {"cursor": place.encode(found.identity), "missed": found.missed, "shortened": shortened}
    return Answer(f'{{"entries":[{",".join(texts)}],{dumps(rest).decode()[1:]}')


def _fitting(entries: Sequence[StoredEntry], max_bytes: int, fields: Collection[str]) -> tuple[list[str], int]:
    """Write as many entries as there is room for, and at least one; return them, and how many are shortened."""
    room = max_bytes - _ENVELOPE_BYTES
    texts: list[str] = []
    for entry in entries:
        text = _to_json(entry, fields)
        room -= _travelling_bytes(text)
        if room < 0:
            if texts:
                break
            return [_shorten(entry, max_bytes - _ENVELOPE_BYTES, fields)], 1
        texts.append(text)
    return texts, sum(entry.unread and "data" in fields for entry in entries[: len(texts)])


def checked_max_bytes(max_bytes: int | None) -> int:
    if max_bytes is None:
        return DEFAULT_MAX_BYTES
    if not LEAST_MAX_BYTES <= max_bytes <= MOST_MAX_BYTES:
        raise EntryRejected(f"max_bytes: from {LEAST_MAX_BYTES:,} to {MOST_MAX_BYTES:,}, not {max_bytes:,}")
    return max_bytes


def _travelling_bytes(text: str) -> int:
    """Return the size of a JSON text as a string inside a JSON-RPC message, with its comma."""
    return len(dumps(text)) - 1


def _to_json(entry: StoredEntry, fields: Collection[str], **instead: object) -> str:
    """Write some fields of an entry, some of them with other values. `data` is JSON already, and stays as it is."""
    values = {name: value for name, value in attrs.asdict(entry).items() if name in fields} | instead
    if "data" not in values:
        return dumps(values).decode()
    data = values.pop("data") or "null"
    return f'{dumps(values).decode()[:-1]}{"," if values else ""}"data":{data}}}'


def _shorten(entry: StoredEntry, room: int, fields: Collection[str]) -> str:
    """Write an entry whose long fields are cut to what fits, all to the same length."""

    def cut_to(length: int) -> str:
        full = {"component": entry.component, "message": entry.message, "data": entry.data or ""}
        long = {name: text for name, text in full.items() if name in fields and len(text) > length}
        cut: dict[str, object] = {name: f"{text[:length]}…" for name, text in long.items()}
        if "data" in cut:
            cut["data"] = dumps({"_godot": {"begins": cut["data"]}}).decode()
        lengths = {name: len(text) if name == "component" else entry.length(name) for name, text in long.items()}
        return _to_json(entry, fields, **cut, shortened=lengths)

    lengths = range(0, room, room // 256 + 1)  # within 0.4 %: each try writes up to a megabyte, twice
    fitting = bisect_right(lengths, room, key=lambda length: _travelling_bytes(cut_to(length)))
    return cut_to(lengths[fitting - 1])
