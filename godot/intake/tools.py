"""The tools by which entries come in over MCP: they word for MCP what the `Door` says."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import attrs

from godot.entries.entry import MAX_BATCH, EntryFields, of_entry
from godot.errors import BufferUnavailable, ChannelFull, EntryRejected
from godot.intake.accept import Accepted, Door, Filtered, NotWritten, Outcome, Rejected, TryAgain
from godot.json.schema import object_schema
from godot.json.structure import argument
from godot.mcp.heavy import message_weight
from godot.mcp.toolbox import Answer, Later, Tool, trace
from godot.pipeline.channel import Receipt
from godot.settings import Ack
from godot.toolnames import LOG, LOG_BATCH, QUERY, deployed

_ACK: Final = argument(
    "When to answer. queued: at once; the entry is on disk within 100 ms, if nothing dies before. durable: when it is "
    "on disk, and survives whatever happens then; status is queued, and a warning says why, where Redis is not set up "
    "for that. Default: what this Godot is set to.",
    default=None,
)


@attrs.frozen
class LogArguments(EntryFields):
    """The arguments of `logger_log`."""

    ack: Ack | None = _ACK


@attrs.frozen
class BatchArguments:
    """The arguments of `logger_log_batch`."""

    logs: list[Any] = argument(
        f"The entries, oldest first, at most {MAX_BATCH:,}.", items=object_schema(EntryFields), maxItems=MAX_BATCH
    )
    ack: Ack | None = _ACK


def intake_tools(door: Door) -> list[Tool]:
    """Return the tools by which entries come in."""
    return [
        Tool(
            name=LOG,
            title="Log an entry",
            description=(
                "Record one log entry. Answers at once; the entry is in the durable buffer within 100 ms and "
                f"can be found by {QUERY} about as soon. With ack=durable it answers when the entry is on "
                "disk: send what was not answered so again, with the same id, and it is stored once. Use "
                f"{LOG_BATCH} for many."
            ),
            arguments=LogArguments,
            run=partial(_log, door),
            role="write",
            in_order=True,
            aliases=[deployed(LOG)],
        ),
        Tool(
            name=LOG_BATCH,
            title="Log many entries",
            description=(
                f"Record up to {MAX_BATCH:,} log entries in one call. Each entry is judged for itself: those "
                "that are not valid are named in `rejected` by their index, all others are accepted. When every "
                "entry was rejected the answer is an error, with the same object. With ack=durable, status says "
                "whether what was accepted is durable."
            ),
            arguments=BatchArguments,
            run=partial(_log_batch, door),
            role="write",
            in_order=True,
            aliases=[deployed(LOG_BATCH)],
        ),
    ]


async def _log(door: Door, arguments: LogArguments) -> Answer | Later:
    receipt = door.receipt(arguments.ack)
    outcome = await door.accept(arguments, trace_id=trace.get(), weight=message_weight.get(), receipt=receipt)
    match outcome:
        case Rejected(reason):
            raise EntryRejected(reason)
        case TryAgain(reason):
            raise ChannelFull(reason)
        case Filtered(entry_id, level, warnings):
            return Answer.of({"status": "filtered", "level": level, "id": entry_id, "warnings": warnings})
    fields = {"id": outcome.id, "warnings": outcome.warnings}
    if receipt is None:
        return Answer.of({"status": "queued", **fields})
    return Later(partial(_when_written, door, receipt, [outcome], fields, f"send it again with id {outcome.id}"))


async def _log_batch(door: Door, arguments: BatchArguments) -> Answer | Later:
    if len(arguments.logs) > MAX_BATCH:
        raise EntryRejected(f"logs: at most {MAX_BATCH:,} entries a call, not {len(arguments.logs):,}; send several")
    receipt = door.receipt(arguments.ack)
    outcomes = await door.accept_many(
        arguments.logs, trace_id=trace.get(), weight=message_weight.get(), receipt=receipt
    )
    accepted = sum(isinstance(each, Accepted) for each in outcomes)
    rejected = [_rejection(index, each) for index, each in enumerate(outcomes) if isinstance(each, Rejected | TryAgain)]
    fields = {
        "accepted": accepted,
        "filtered": len(outcomes) - accepted - len(rejected),
        "rejected": rejected,
        "warnings": [of_entry(index, warning) for index, each in enumerate(outcomes) for warning in each.warnings],
    }
    if receipt is None or not accepted:
        return attrs.evolve(Answer.of(fields), is_error=len(outcomes) == len(rejected) > 0)
    again = "send the batch again, with ids of your own, so that what arrived is not stored twice"
    return Later(partial(_when_written, door, receipt, outcomes, fields, again))


def _rejection(index: int, outcome: Rejected | TryAgain) -> dict[str, Any]:
    said = {"index": index, "error": outcome.reason}
    return {**said, "kind": "again"} if isinstance(outcome, TryAgain) else said


async def _when_written(
    door: Door, receipt: Receipt, outcomes: list[Outcome], fields: dict[str, Any], again: str
) -> Answer:
    """Wait until the entries of a call are in the buffer; `queued` is the answer where they may be lost all the same.

    The first warning says why: further ones may be cut off.

    :param again: what the caller is to do when they are not.
    :raises BufferUnavailable: they were not in time, and may get there yet; or some did not stay there.
    """
    written = await door.written(receipt, outcomes)
    if isinstance(written, NotWritten):
        raise BufferUnavailable(f"{written.reason}; {again}")
    if written.weakness is None:
        return Answer.of({"status": "durable", **fields})
    warnings = [f"not durable: {written.weakness}", *fields["warnings"]]
    return Answer.of({"status": "queued", **fields, "warnings": warnings})
