"""Godot's own port: the tools by which entries come in and are found again.

Taking an entry in is: check it, complete it, serialise it once, put it into the channel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs

from godot import codec
from godot.channel import Inlet
from godot.dewey import QUERY, Dewey
from godot.entries import MAX_BATCH, EntryFields, admit, admit_json
from godot.errors import ChannelFull, EntryRejected
from godot.mcp.tools import Answer, Tool, Toolbox, argument, object_schema
from godot.status import Status

INSTRUCTIONS: Final = (
    "Godot is the flight recorder of a system of MCP servers. Send log entries with logger_log "
    "(one) or logger_log_batch (up to 1,000). To find out what happened, use logger_query: by trace_id for "
    "one request through all servers, by component, level, time or text for the rest. "
    "logger_status tells whether anything is held back or was dropped."
)


@attrs.frozen
class BatchArguments:
    """The arguments of `logger_log_batch`."""

    logs: list[Any] = argument(
        f"The entries, oldest first, at most {MAX_BATCH:,}.", items=object_schema(EntryFields), maxItems=MAX_BATCH
    )


@attrs.frozen
class NoArguments:
    """For tools that take none."""


def godot_toolbox(inlet: Inlet, dewey: Dewey, status: Status, *, query_arguments: type[Any]) -> Toolbox:
    """Make the table of tools of Godot's port.

    :param query_arguments: what Dewey's query takes; `logger_query` takes the same.
    """
    return Toolbox(
        [
            Tool(
                name="logger_log",
                title="Log an entry",
                description=(
                    "Record one log entry. Answers at once; the entry is in the durable buffer within 100 ms and "
                    "can be found by logger_query about as soon. Use logger_log_batch for many."
                ),
                arguments=EntryFields,
                run=_log(inlet, status),
                role="write",
                in_order=True,
                aliases=["godot_logger_log"],
            ),
            Tool(
                name="logger_log_batch",
                title="Log many entries",
                description=(
                    f"Record up to {MAX_BATCH:,} log entries in one call. Each entry is judged for itself: those "
                    "that are not valid are named in `rejected` by their index, all others are accepted."
                ),
                arguments=BatchArguments,
                run=_log_batch(inlet, status),
                role="write",
                in_order=True,
                aliases=["godot_logger_log_batch"],
            ),
            Tool(
                name="logger_query",
                title="Find entries",
                description=(
                    "Find log entries: all of one request with trace_id; or by component, minimum level, time and "
                    "text, in any combination. Newest first unless order says otherwise. A long result comes in "
                    "pages: call again with cursor set to next_cursor."
                ),
                arguments=query_arguments,
                run=_facade(dewey, QUERY),
                role="read",
                read_only=True,
                aliases=["godot_logger_query"],
            ),
            Tool(
                name="logger_status",
                title="State of the recorder",
                description=(
                    "Tell how the recorder itself is: entries received, stored, queued, in_flight, dropped (the "
                    "queue was full, the oldest went), dead (refused by the database), refused (not accepted), and "
                    "whether redis and dewey are up. The totals hold over restarts; received = stored + queued + "
                    "in_flight + dropped + dead."
                ),
                arguments=NoArguments,
                run=_status(status),
                role="read",
                read_only=True,
                aliases=["godot_logger_status"],
            ),
        ]
    )


def _log(inlet: Inlet, status: Status) -> Callable[[EntryFields], Awaitable[Answer]]:
    async def log(fields: EntryFields) -> Answer:
        warnings: list[str] = []
        entry = admit(fields, warnings)
        raw = codec.encode_entry(entry, warnings)
        try:
            await inlet.accept(raw)
        except ChannelFull:
            status.refused += 1
            raise
        return Answer.of({"status": "queued", "id": entry.id, "warnings": warnings})

    return log


def _log_batch(inlet: Inlet, status: Status) -> Callable[[BatchArguments], Awaitable[Answer]]:
    async def log_batch(arguments: BatchArguments) -> Answer:
        if len(arguments.logs) > MAX_BATCH:
            raise EntryRejected(
                f"logs: at most {MAX_BATCH:,} entries a call, not {len(arguments.logs):,}; send several"
            )
        rejected = []
        warnings = []
        full: ChannelFull | None = None
        for index, value in enumerate(arguments.logs):
            changes: list[str] = []
            try:
                raw = codec.encode_entry(admit_json(value, changes), changes)
                if full is not None:
                    raise full  # a call waits once for room, not once an entry
                await inlet.accept(raw)
            except EntryRejected as exc:
                if isinstance(exc, ChannelFull):
                    full = exc
                    status.refused += 1
                rejected.append({"index": index, "error": str(exc)})
            warnings += [f"entry {index}: {change}" for change in changes]
        accepted = len(arguments.logs) - len(rejected)
        return Answer.of({"accepted": accepted, "filtered": 0, "rejected": rejected, "warnings": warnings})

    return log_batch


def _facade(dewey: Dewey, tool: str) -> Callable[[Any], Awaitable[Answer]]:
    async def ask(arguments: Any) -> Answer:
        given = {name: value for name, value in attrs.asdict(arguments).items() if value is not None}
        return await dewey.ask(tool, given)

    return ask


def _status(status: Status) -> Callable[[NoArguments], Awaitable[Answer]]:
    async def answer(_: NoArguments) -> Answer:
        return Answer.of(await status.look())

    return answer
