"""The tools by which an operator deals with entries that could not be stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, Final

import attrs

from godot.buffer.protocol import DEAD_MAX, DEAD_MAX_BYTES, DeadEntry, DeadLetters
from godot.errors import EntryRejected
from godot.json.structure import MAX_ITEMS, argument
from godot.json.text import dumps
from godot.mcp.heavy import off_the_loop
from godot.mcp.toolbox import Answer, Definition, Tool
from godot.toolnames import DEAD, DEAD_PURGE, DEAD_RETRY, STATUS

PAGE_MAX: Final = 1_000
SHOWN_MAX_CHARS: Final = 10_000
PAGE_MAX_BYTES: Final = 200 * 1024
"""Common clients drop the connection at a message of 1 MiB."""

_ID: Final = "5f0c8e1d2a3b4c6d"


@attrs.frozen
class ListArguments:
    """The arguments of `logger_dead`."""

    skip: int = argument(
        "How many of the oldest to leave out: next_skip of the answer before, for the next page.", default=0, minimum=0
    )
    limit: int = argument(f"How many at most, from 1 to {PAGE_MAX:,}.", default=100, minimum=1, maximum=PAGE_MAX)


@attrs.frozen
class ChosenArguments:
    """The arguments of `logger_dead_retry` and `logger_dead_purge`: `ids`, or `all`."""

    ids: list[str] | None = argument(
        f"Which ones: their id as {DEAD} shows it, which is not the id of the entry.",
        default=None,
        max_chars=100,
        maxItems=MAX_ITEMS,
        examples=[[_ID]],
    )
    all: bool = argument("true instead of ids: every one there is.", default=False)


LIST_TOOL: Final = Definition(
    title="Entries that could not be stored",
    description=(
        "Show the entries that were put aside because they can never be stored as they are, oldest first, "
        "each with its id here and the reason. Answers {dead: [{id, reason, entry, chars}], kept, next_skip}. "
        f"entry is the JSON text as it came, the first {SHOWN_MAX_CHARS:,} of its chars. kept is how many "
        f"there are altogether; the newest {DEAD_MAX:,} are kept, up to {DEAD_MAX_BYTES // 1024**2} MiB. When "
        f"the reason has been mended in the database or in Dewey, use {DEAD_RETRY}."
    ),
    arguments=ListArguments,
    role="admin",
    read_only=True,
)

RETRY_TOOL: Final = Definition(
    title="Try to store them again",
    description=(
        "Put entries that could not be stored back into the queue, to be stored before all others. What "
        "still cannot be stored is put aside again, so this is safe to try. No more are put back than the "
        "queue has room for. Answers {retried, kept}: how many were put back, how many are still aside."
    ),
    arguments=ChosenArguments,
    role="admin",
    idempotent=True,
)

PURGE_TOOL: Final = Definition(
    title="Delete them for ever",
    description=(
        "DELETE entries that could not be stored, for ever. Nothing brings them back; they stay counted in "
        f"dead of {STATUS}. Look at them with {DEAD} first. Answers {{purged, kept}}."
    ),
    arguments=ChosenArguments,
    role="admin",
    destructive=True,
    idempotent=True,
)


def dead_tools(dead: DeadLetters) -> list[Tool]:
    """Return the tools: to show, to try again, to delete."""
    return [
        Tool.of(LIST_TOOL, DEAD, partial(_list, dead)),
        Tool.of(RETRY_TOOL, DEAD_RETRY, partial(_act, dead, "retried", dead.retry)),
        Tool.of(PURGE_TOOL, DEAD_PURGE, partial(_act, dead, "purged", dead.purge)),
    ]


async def _list(dead: DeadLetters, arguments: ListArguments) -> Answer:
    if arguments.skip < 0 or not 1 <= arguments.limit <= PAGE_MAX:
        raise EntryRejected(f"skip: 0 or more; limit: from 1 to {PAGE_MAX:,}")
    page = await dead.dead_letters(arguments.skip, arguments.limit)
    shown: list[dict[str, object]] = []
    room = PAGE_MAX_BYTES
    for entry in page.entries:
        value = await off_the_loop(len(entry.raw), _shown, entry)
        room -= len(dumps(value))
        if room < 0 and shown:
            break
        shown.append(value)
    seen = arguments.skip + len(shown)
    return Answer.of({"dead": shown, "kept": page.kept, "next_skip": seen if shown and seen < page.kept else None})


async def _act(
    dead: DeadLetters,
    done: str,
    act: Callable[[Collection[str] | None], Awaitable[int]],
    arguments: ChosenArguments,
) -> Answer:
    """Retry or purge the chosen entries.

    :param done: the name of the count in the answer.
    :param act: gets their ids, or None for all of them; returns how many there were.
    """
    if arguments.all == bool(arguments.ids):
        raise EntryRejected("give either ids, at least one, or all=true")
    count = await act(None if arguments.all else frozenset(arguments.ids or ()))
    return Answer.of({done: count, "kept": (await dead.dead_letters(0, 0)).kept})


def _shown(entry: DeadEntry) -> dict[str, Any]:
    text = entry.raw.decode("utf-8", "replace")
    return {"id": entry.id, "reason": entry.reason, "entry": text[:SHOWN_MAX_CHARS], "chars": len(text)}
