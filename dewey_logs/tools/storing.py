"""Dewey's tool that stores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs

from dewey_logs.follow import Followers
from dewey_logs.query import TRACE_ID_SHOWN
from dewey_logs.store.batch import Batch, for_each
from dewey_logs.store.protocol import LogStore, Stored
from godot.entries.entry import MAX_BATCH, EntryFields, admit_json
from godot.errors import EntryRejected
from godot.json.schema import object_schema
from godot.json.structure import argument
from godot.mcp.heavy import message_weight, off_the_loop
from godot.mcp.toolbox import Answer, Definition


@attrs.frozen
class StoreArguments:
    """Arguments of `dewey_store_logs_batch`."""

    logs: list[Any] = argument(
        f"The entries, at most {MAX_BATCH:,}. None of them is stored unless all of them are valid.",
        items=object_schema(EntryFields),
        maxItems=MAX_BATCH,
        examples=[
            [
                {
                    "component": "relay",
                    "level": "INFO",
                    "message": "tools/call took 12 ms",
                    "trace_id": TRACE_ID_SHOWN,
                    "data": {"method": "tools/call"},
                }
            ]
        ],
    )


STORE_TOOL: Final = Definition(
    title="Store log entries",
    description=(
        f"Store up to {MAX_BATCH:,} log entries in one transaction: all of them or none. For programs "
        "that deliver logs; Godot's sender is one. Storing the same entries (by id) again is "
        "harmless. Answers {stored, duplicates, warnings}: how many were new, how many were there "
        "already, and what was changed in which entry. When entries are invalid nothing is stored, "
        "and the error names each of them by its index. An empty list stores nothing, and fails "
        "when the database cannot be written to now."
    ),
    arguments=StoreArguments,
    role="write",
    idempotent=True,
    in_order=True,
)


@attrs.frozen
class Storing:
    """Stores batches, whether they come over MCP or from the Godot of the same process.

    :param on_stored: gets the outcome of each batch.
    """

    store: LogStore
    followers: Followers
    on_stored: Callable[[Stored], None] = lambda _: None

    async def keep(self, batch: Batch) -> Stored:
        """Store a batch, count it, and wake the followers."""
        result = await self.store.store(batch)
        self.on_stored(result)
        if result.stored:
            self.followers.note_stored()
        return result

    async def store_batch(self, arguments: StoreArguments) -> Answer:
        """Store entries that come over MCP."""
        batch, warnings = await off_the_loop(message_weight.get(), _admit_all, arguments.logs)
        result = await self.keep(batch)
        return Answer.of({"stored": result.stored, "duplicates": result.duplicates, "warnings": warnings})


def _admit_all(logs: list[Any]) -> tuple[Batch, list[str]]:
    """Check every entry of a batch, so that one answer names all invalid ones (DEW-001, DEW-003).

    :return: the batch, and what was changed in which entry.
    """
    if len(logs) > MAX_BATCH:
        raise EntryRejected(
            f"logs: at most {MAX_BATCH:,} entries in one call, not {len(logs):,}; send the rest in further calls"
        )
    entries, warnings = for_each(logs, admit_json)
    batch = Batch.of_entries(entries)
    return batch, [*warnings, *batch.warnings]
