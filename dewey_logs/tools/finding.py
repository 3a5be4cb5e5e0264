"""Dewey's tools that find entries and follow them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

import attrs

from dewey_logs.filters import MAX_WORD_CHARS
from dewey_logs.follow import LAG_MAX, Followers
from dewey_logs.query import (
    DEFAULT_LIMIT,
    LONG,
    MAX_LIMIT,
    MAX_SEARCH_CHARS,
    MAX_TEXT_CHARS,
    MAX_WANTED,
    TRACE_ID_SHOWN,
    Order,
    Query,
)
from dewey_logs.store.protocol import LogStore, StoredEntry
from dewey_logs.tools.answers import (
    DEFAULT_MAX_BYTES,
    FIELDS,
    LEAST_MAX_BYTES,
    MOST_MAX_BYTES,
    Field,
    checked_max_bytes,
    page_answer,
    tail_answer,
)
from dewey_logs.tools.callers import FOR_PEER, where_from
from godot.entries.entry import MAX_COMPONENT_CHARS
from godot.entries.levels import LEVELS
from godot.errors import EntryRejected
from godot.json.structure import argument
from godot.mcp.heavy import message_weight, off_the_loop
from godot.mcp.toolbox import Answer, Definition, Later

DEFAULT_WAIT_S: Final = 20.0
MOST_WAIT_S: Final = 30.0
"""Common clients give up an answer after 60 s."""

MAX_CURSOR_CHARS: Final = 500


@attrs.frozen
class QueryArguments:
    """Arguments of `dewey_query_logs`; all may be left out or null, and all that are given must hold."""

    trace_id: str | None = argument(
        "Only entries of this request: a UUID.", default=None, max_chars=MAX_WORD_CHARS, examples=[TRACE_ID_SHOWN]
    )
    component: str | list[str] | None = argument(
        "Only entries of this component, or of one of these: exact names, or patterns in which * stands for anything.",
        default=None,
        max_chars=MAX_COMPONENT_CHARS,
        examples=["relay", "gates*", ["relay", "marco-*"]],
    )
    level: str | None = argument(
        "Only entries that are at least this severe; the levels are, most severe first, "
        f"{', '.join(LEVELS)}. WARN gives ERROR and WARN.",
        default=None,
        max_chars=MAX_WORD_CHARS,
        examples=["WARN"],
    )
    start_time: str | None = argument(
        "Only entries that happened at this time or later: ISO 8601, UTC when it has no offset; or relative to "
        "now, with s, m, h, d or w.",
        default=None,
        max_chars=MAX_WORD_CHARS,
        examples=["2026-11-20T08:30:00Z", "-15m", "-2h", "-7d"],
    )
    end_time: str | None = argument(
        "Only entries that happened before this time, written as start_time is.",
        default=None,
        max_chars=MAX_WORD_CHARS,
        examples=["2026-11-20T09:00:00+01:00", "-5m", "now"],
    )
    search: str | None = argument(
        "Only entries whose message contains these words, in any order and case: whole words, not parts "
        'of them. "a phrase" in quotes, -word for without, or between alternatives. Punctuation separates '
        "words: tools/call is the phrase of tools and call. The first 65,536 characters of a message "
        "are searched, its data is not.",
        default=None,
        max_chars=MAX_SEARCH_CHARS,
        examples=["timeout", '"no such tool" -marco', "tools/call or tools/list"],
    )
    contains: str | None = argument(
        "Only entries whose message contains this text, literally, in any case, also inside of a word. It "
        "reads the message of every entry that the other filters leave: give a time, a component or a level.",
        default=None,
        max_chars=MAX_TEXT_CHARS,
        examples=["timeout after 3"],
    )
    data: dict[str, Any] | None = argument(
        "Only entries whose data contains this object: the same keys with the same values, at the same depth; "
        f"what else is there does not matter. At most {MAX_WANTED:,} values.",
        default=None,
        examples=[{"method": "tools/call"}, {"params": {"name": "marco"}}],
    )
    data_path: str | None = argument(
        "Only entries in whose data this SQL/JSON path (as PostgreSQL has it) selects something, or of which it "
        "is true.",
        default=None,
        max_chars=MAX_TEXT_CHARS,
        examples=['$.params.name == "marco"', "$.tools[*] ? (@.calls > 5)", "$.**.inputSchema"],
    )
    limit: int | None = argument(
        f"How many entries at most, from 1 to {MAX_LIMIT:,}.",
        default=DEFAULT_LIMIT,
        minimum=1,
        maximum=MAX_LIMIT,
    )
    order: Order | None = argument(
        "Which entries come first: newest (the default) or oldest, by created_at.", default="newest"
    )
    cursor: str | None = argument(
        "next_cursor of the answer before, to go on behind its last entry; with the same other arguments.",
        default=None,
        max_chars=MAX_CURSOR_CHARS,
    )
    fields: list[Field] | None = argument(
        "Which fields of an entry to show, to fit more entries into an answer; default: all.",
        default=None,
        examples=[["created_at", "component", "message"]],
    )
    max_bytes: int | None = argument(
        f"How large the answer may be as it travels, in bytes, from {LEAST_MAX_BYTES:,} to "
        f"{MOST_MAX_BYTES:,}. Entries that do not fit are left to the next page; one that is larger by "
        "itself is shortened.",
        default=DEFAULT_MAX_BYTES,
        minimum=LEAST_MAX_BYTES,
        maximum=MOST_MAX_BYTES,
    )


def _as_in_query(name: str) -> Any:
    """Return an argument of a query, which means the same here."""
    field = getattr(attrs.fields(QueryArguments), name)
    return attrs.field(default=field.default, metadata=field.metadata, validator=field.validator)


@attrs.frozen
class TailArguments:
    """Arguments of `dewey_tail_logs`; all may be left out or null."""

    cursor: str | None = argument(
        "cursor of the answer before, to go on behind it; with the same filters. Without it the present is where it "
        "begins.",
        default=None,
        max_chars=MAX_CURSOR_CHARS,
    )
    last: int | None = argument(
        f"Without a cursor: begin with so many of the newest entries there are, at most {MAX_LIMIT:,}.",
        default=0,
        minimum=0,
        maximum=MAX_LIMIT,
    )
    wait_s: float | None = argument(
        f"How many seconds to wait when there is nothing yet, from 0 to {MOST_WAIT_S:g}.",
        default=DEFAULT_WAIT_S,
        minimum=0,
        maximum=MOST_WAIT_S,
    )
    trace_id: str | None = _as_in_query("trace_id")
    component: str | list[str] | None = _as_in_query("component")
    level: str | None = _as_in_query("level")
    search: str | None = _as_in_query("search")
    contains: str | None = _as_in_query("contains")
    data: dict[str, Any] | None = _as_in_query("data")
    limit: int | None = _as_in_query("limit")
    fields: list[Field] | None = _as_in_query("fields")
    max_bytes: int | None = _as_in_query("max_bytes")
    for_peer: str | None = FOR_PEER


QUERY_TOOL: Final = Definition(
    title="Find log entries",
    description=(
        "Find log entries of all components: follow one request by its trace_id, see what a component said between two "
        "times, list the errors, search for words, or in the data. Filters combine; without any, the newest entries "
        "are shown. Answers {entries, count, next_cursor, shortened}. An entry has id, trace_id, component, level "
        "(ERROR, WARN, INFO, DEBUG, TRACE), message, data, created_at (when it happened), ingested_at (when it was "
        "stored; both UTC) and age (seconds since it happened). next_cursor is null when there is no more; else pass "
        "it as cursor for the next page. An entry too large for the answer has a field shortened, which gives the full "
        "length, in characters, of each field that was cut (cut data is text in data._godot.begins, data that could "
        "not be read in time has data._godot.unread), and the answer's shortened counts them; ask with a larger "
        "max_bytes, or with fields for fewer fields, to see more of it."
    ),
    arguments=QueryArguments,
    role="read",
    read_only=True,
    idempotent=True,
)

TAIL_TOOL: Final = Definition(
    title="Follow log entries",
    description=(
        "Wait for log entries, and get them in the order in which they are stored: nothing is left out and nothing "
        "comes twice, also of entries that happened long before they came. Answers {entries, cursor, missed, "
        "shortened} as soon as there is an entry, or after wait_s with none. Call again with cursor, and the same "
        "filters, to go on; a cursor stays valid over restarts. missed is not 0 when the cursor was so old that more "
        f"than {LAG_MAX:,} entries had come since: these are left out."
    ),
    arguments=TailArguments,
    role="read",
    read_only=True,
    waits=True,
)


@attrs.frozen
class Finding:
    """Finds and follows the entries of a store.

    :param now: what relative times count from.
    """

    store: LogStore
    followers: Followers
    now: Callable[[], datetime]

    async def query(self, arguments: QueryArguments) -> Answer:
        """Return a page of the entries that are found."""
        asked = attrs.asdict(arguments, recurse=False)
        fields = asked.pop("fields")
        max_bytes = checked_max_bytes(asked.pop("max_bytes"))
        asking = await off_the_loop(message_weight.get(), partial(Query.parse, **asked, now=self.now))
        page = await self.store.query(attrs.evolve(asking, long=LONG & set(fields or FIELDS)))
        return await off_the_loop(_size(page.entries), page_answer, page, max_bytes, fields or FIELDS)

    async def tail(self, arguments: TailArguments) -> Later:
        """Wait for entries; making the answer comes later."""
        asked = attrs.asdict(arguments, recurse=False)
        fields = asked.pop("fields")
        max_bytes = checked_max_bytes(asked.pop("max_bytes"))
        cursor, last, wait_s = (asked.pop(name) for name in ("cursor", "last", "wait_s"))
        who = where_from(asked.pop("for_peer"))
        if not 0 <= (last := last or 0) <= MAX_LIMIT:
            raise EntryRejected(f"last: from 0 to {MAX_LIMIT:,}, not {last:,}")
        if not 0 <= (wait_s := DEFAULT_WAIT_S if wait_s is None else wait_s) <= MOST_WAIT_S:
            raise EntryRejected(f"wait_s: from 0 to {MOST_WAIT_S:g} seconds, not {wait_s:g}")
        asking = await off_the_loop(message_weight.get(), partial(Query.parse, **asked, now=self.now))
        found = await self.followers.tail(
            attrs.evolve(asking, long=LONG & set(fields or FIELDS)),
            cursor,
            last=last,
            wait_s=wait_s,
            max_bytes=max_bytes,
            who=who,
        )
        size = _size([entry for _, entry in found.entries])
        fit = partial(tail_answer, found, max_bytes, fields or FIELDS, newest_only=cursor is None)
        return Later(partial(off_the_loop, size, fit))


def _size(entries: Sequence[StoredEntry]) -> int:
    return sum(len(entry.message) + len(entry.data or "") for entry in entries)
