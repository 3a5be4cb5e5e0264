"""What a valid entry is, for all that take one in: Godot's listener, its sender, and Dewey.

`admit` is the only way to an `Entry`. It decides what is accepted, what is repaired with a warning and what is refused
(MCP-001 to MCP-003, DEW-003). An entry gets its `id` and its `created_at` here, before it is first written anywhere;
therefore sending it again is harmless.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import attrs

from godot.entries.levels import LEVELS, parse_level
from godot.entries.times import iso, iso_ns
from godot.errors import EntryRejected
from godot.json.structure import DoesNotFit, argument, shown, structure

MAX_COMPONENT_CHARS: Final = 255
"""A component is a key of an index; a btree takes at most 2,704 bytes."""

MAX_BATCH: Final = 1_000
"""Entries in one `logger_log_batch` or `dewey_store_logs_batch` (DEW-001)."""

MAX_ENTRY_BYTES: Final = 32 * 1024 * 1024
"""An entry as JSON. With a batch around it, it has to fit into one frame to Dewey (`DEWEY_MAX_MESSAGE_BYTES`)."""

MAX_DEPTH: Final = 500
"""Objects and arrays inside each other. Parsers give up at about 1,000, and an entry travels inside other objects."""

UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
NUL_SHOWN: Final = "\N{SYMBOL FOR NULL}"
SURROGATE_SHOWN: Final = "\N{REPLACEMENT CHARACTER}"
REPLACED: Final = (
    f"characters that PostgreSQL cannot store were replaced: NUL by {NUL_SHOWN}, a lone surrogate by {SURROGATE_SHOWN}"
)

_UUID: Final = re.compile("[0-9a-fA-F]{8}(-?)(?:[0-9a-fA-F]{4}\\1){3}[0-9a-fA-F]{12}")
_OUR_UUID: Final = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_OUR_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):\d\d:\d\d\.\d{6}Z", re.ASCII)
"""Ids and times in these forms stay as they are: Dewey checks once more what Godot has written."""
_OF_ENTRY: Final = re.compile("entry ([0-9]+): ")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS: Final = 253_402_300_799_999
"""The end of the year 9999; a UUIDv7 can name a time 900 years beyond."""


@attrs.frozen
class EntryFields:
    """An entry as a client writes it: its types are checked, its meaning is not."""

    component: str = argument(
        "Who says it: the name of the server or program, at most 255 characters.",
        examples=["relay", "gates", "fiedler"],
        minLength=1,
        maxLength=MAX_COMPONENT_CHARS,
    )
    level: str = argument(
        "How severe: ERROR, WARN, INFO, DEBUG, or TRACE for whole messages on the wire. Case does not matter.",
        examples=list(LEVELS),
    )
    message: str = argument("What happened, for a reader.", examples=["tools/call answered in 12 ms"])
    trace_id: Any = argument(
        "The UUID of the request this belongs to, as it was received; null when there is none. Do not make one up.",
        default=None,
        type=["string", "null"],
        examples=["0af76519-16cd-43dd-8448-eb211c80319c"],
    )
    data: dict[str, Any] | None = argument(
        "Anything more, up to whole JSON-RPC messages. Passwords and tokens belong redacted before they get here.",
        default=None,
        examples=[{"method": "tools/call", "duration_ms": 12}],
    )
    created_at: str | None = argument(
        "When it happened, ISO 8601; UTC when no offset is given. Without it: now.",
        default=None,
        examples=["2026-11-20T08:30:00.123456Z"],
    )
    id: str | None = argument(
        "A UUID of the entry's own: the same id sent again is stored once. Without it one is made.",
        default=None,
        examples=["01a1fb67-5bd0-716c-b208-6b6eb13e7800"],
    )


@attrs.frozen
class Entry:
    """An entry as it travels and is stored.

    :param id: UUID, lower case with dashes.
    :param created_at: event time, ISO 8601 in UTC with microseconds, `2026-11-20T08:30:00.000000Z`.
    """

    id: str
    trace_id: str | None
    component: str
    level: str
    message: str
    data: dict[str, Any] | None
    created_at: str


class IdSource:
    """Makes UUIDv7 ids (RFC 9562) that only grow, also within a millisecond and when a clock steps back.

    Entries are read by (created_at, id): among entries of one instant, growing ids keep the order in
    which they arrived.
    """

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self._last = 0

    def next(self) -> str:
        """Return a new id."""
        return self.of(self._now_ns())

    def of(self, now_ns: int) -> str:
        """Return a new id.

        :param now_ns: since 1970; an id of an earlier time than the last one has the time of the last one.
        """
        # 48 bits of milliseconds, then 74 bits: random at the first id of a millisecond, counted up after it.
        fresh = (now_ns // 1_000_000) << 74
        if fresh > self._last:
            self._last = fresh | random.getrandbits(73)
        else:
            self._last += 1 + random.getrandbits(8)
        millis, rest = divmod(self._last, 1 << 74)
        value = (millis << 80) | (7 << 76) | ((rest >> 62) << 64) | (0b10 << 62) | (rest & ((1 << 62) - 1))
        text = f"{value:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_ids: Final = IdSource()


def admit(fields: EntryFields, warnings: list[str], trace_id: str | None = None) -> Entry:
    """Check what the fields mean, complete them, and return the entry.

    :param warnings: one sentence is appended for each thing that was changed.
    :param trace_id: of an entry that brings none.
    :raises EntryRejected: naming the field and what is allowed.
    """
    if not fields.component:
        raise EntryRejected("component: must not be empty")
    if len(fields.component) > MAX_COMPONENT_CHARS:
        raise EntryRejected(
            f"component: at most {MAX_COMPONENT_CHARS} characters, not {len(fields.component)}; "
            "put what does not fit into data"
        )
    # Replaced here and not when it is serialised: levels, metrics and lines use the name that is stored.
    if (component := storable(fields.component)) != fields.component:
        warnings.append(REPLACED)
    data = fields.data
    if fields.trace_id is not None:
        trace_id = parse_uuid(fields.trace_id)
        if trace_id is None:
            data = copy({} if data is None else data)
            data["_godot"] = {**kept_by_us(data), "trace_id": fields.trace_id}
            warnings.append("trace_id: not a UUID; stored without it, the text is kept in data._godot.trace_id")
    # One look at the clock: where id and time name the same instant, Dewey stores with less locking.
    now_ns = time.time_ns()
    entry_id = _ids.of(now_ns) if fields.id is None else parse_uuid(fields.id)
    if entry_id is None:
        raise EntryRejected(f"id: must be a UUID, not {shown(fields.id)}; leave it out to have one made")
    if fields.created_at is not None:
        created_at = _utc(fields.created_at)
    elif fields.id is not None and is_uuid7(entry_id):
        # The same id sent again has to get the same time, or it would be a second row.
        created_at = iso(_EPOCH + timedelta(milliseconds=min(_LAST_MS, int(entry_id[:8] + entry_id[9:13], 16))))
    else:
        created_at = iso_ns(now_ns)
    return Entry(
        id=entry_id,
        trace_id=trace_id,
        component=component,
        level=parse_level(fields.level),
        message=fields.message,
        data=data,
        created_at=created_at,
    )


def admit_json(value: object, warnings: list[str], trace_id: str | None = None) -> Entry:
    """`structure` and `admit` in one, for an entry that is an element of something else.

    :raises EntryRejected: naming the field and what is allowed.
    """
    try:
        fields = structure(value, EntryFields)
    except DoesNotFit as exc:
        raise EntryRejected(str(exc)) from None
    return admit(fields, warnings, trace_id)


def storable(text: str) -> str:
    """Replace visibly what PostgreSQL cannot hold."""
    return UNSTORABLE.sub(lambda match: NUL_SHOWN if match[0] == "\x00" else SURROGATE_SHOWN, text)


def is_uuid7(entry_id: str) -> bool:
    """Whether an id (lower case, with dashes) carries its own time."""
    return entry_id[14] == "7" and entry_id[19] in "89ab"


def parse_uuid(value: object) -> str | None:
    """Return a UUID in lower case with dashes; None for anything else.

    It may also come without dashes (a trace-id of W3C), in braces, or as a URN. `uuid.UUID` would also take blanks and
    underscores anywhere.
    """
    if type(value) is str and _OUR_UUID.fullmatch(value):
        return value
    if type(value) is not str or not _UUID.fullmatch(digits := value.removeprefix("urn:uuid:").strip("{}")):
        return None
    digits = digits.replace("-", "").lower()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def kept_by_us(data: dict[str, Any]) -> dict[str, Any]:
    """Return what Godot itself has added to `data`."""
    kept = data.get("_godot")
    return kept if isinstance(kept, dict) else {}


def _utc(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
        if _OUR_TIME.fullmatch(text):
            return text
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return iso(moment)
    except (ValueError, OverflowError):
        raise EntryRejected(
            f"created_at: must be ISO 8601 between the years 1 and 9999, such as 2026-11-20T08:30:00Z, "
            f"not {shown(text)}"
        ) from None


def of_entry(index: int, warning: str) -> str:
    """Say of which entry of a batch a warning is."""
    return f"entry {index}: {warning}"


def by_line(warning: str, lines: Sequence[int]) -> str:
    """Name the line of a file in a warning, instead of the entry of the batch that was made of its lines.

    :param warning: as `of_entry` makes it; any other stays as it is.
    :param lines: the number of the line that each entry of the batch came from.
    """
    if (found := _OF_ENTRY.match(warning)) is None:
        return warning
    return f"line {lines[int(found[1])]}: {warning[found.end() :]}"
