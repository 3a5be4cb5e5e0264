"""The tools by which entries come in over MCP.

Taking an entry in is: check it, complete it, serialise it once, put it into the channel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import attrs
import trio

from godot.entries.entry import MAX_BATCH, EntryFields, admit, admit_json, of_entry
from godot.entries.wire import encode_entry
from godot.errors import BufferUnavailable, ChannelFull, EntryRejected
from godot.json.schema import object_schema
from godot.json.structure import argument
from godot.mcp.heavy import HEAVY, message_weight, off_the_loop
from godot.mcp.toolbox import Answer, Later, Tool, trace
from godot.pipeline.channel import PATIENCE_S, Inlet, Receipt
from godot.pipeline.levels import Levels
from godot.pipeline.status import Status
from godot.settings import Ack

PIECE: Final = 50
"""Entries of a batch that are looked at before others get their turn: milliseconds when every one has faults."""

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


def intake_tools(
    inlet: Inlet,
    status: Status,
    levels: Levels,
    *,
    ack: Ack = "queued",
    on_accepted: Callable[[str, str], None] = lambda _component, _level: None,
) -> list[Tool]:
    """Return the tools by which entries come in.

    :param ack: what counts for a call that does not say (`GODOT_ACK`).
    :param on_accepted: gets component and level of every entry that was taken in.
    """
    return [
        Tool(
            name="logger_log",
            title="Log an entry",
            description=(
                "Record one log entry. Answers at once; the entry is in the durable buffer within 100 ms and "
                "can be found by logger_query about as soon. With ack=durable it answers when the entry is on "
                "disk: send what was not answered so again, with the same id, and it is stored once. Use "
                "logger_log_batch for many."
            ),
            arguments=LogArguments,
            run=_log(inlet, status, levels, ack, on_accepted),
            role="write",
            in_order=True,
            aliases=["godot_logger_log"],
        ),
        Tool(
            name="logger_log_batch",
            title="Log many entries",
            description=(
                f"Record up to {MAX_BATCH:,} log entries in one call. Each entry is judged for itself: those "
                "that are not valid are named in `rejected` by their index, all others are accepted. When every "
                "entry was rejected the answer is an error, with the same object. With ack=durable, status says "
                "whether what was accepted is durable."
            ),
            arguments=BatchArguments,
            run=_log_batch(inlet, status, levels, ack, on_accepted),
            role="write",
            in_order=True,
            aliases=["godot_logger_log_batch"],
        ),
    ]


def _log(
    inlet: Inlet, status: Status, levels: Levels, ack: Ack, on_accepted: Callable[[str, str], None]
) -> Callable[[LogArguments], Awaitable[Answer | Later]]:
    async def log(arguments: LogArguments) -> Answer | Later:
        warnings: list[str] = []
        entry = admit(arguments, warnings, trace.get())
        if not levels.lets_through(entry.component, entry.level):
            status.filtered += 1
            return Answer.of(
                {"status": "filtered", "level": levels.of(entry.component), "id": entry.id, "warnings": warnings}
            )
        raw = await off_the_loop(message_weight.get(), encode_entry, entry, warnings)
        durable = (arguments.ack or ack) == "durable"
        receipt = Receipt() if durable else None
        try:
            await inlet.accept(raw, receipt)
        except ChannelFull:
            status.refused += 1
            raise
        on_accepted(entry.component, entry.level)
        if receipt is None:
            return Answer.of({"status": "queued", "id": entry.id, "warnings": warnings})
        acknowledge = partial(_acknowledgement, {"id": entry.id}, warnings)
        again = f"send it again with id {entry.id}"
        return Later(partial(_when_written, receipt, 1, status, PATIENCE_S, acknowledge, again))

    return log


def _log_batch(
    inlet: Inlet, status: Status, levels: Levels, ack: Ack, on_accepted: Callable[[str, str], None]
) -> Callable[[BatchArguments], Awaitable[Answer | Later]]:
    async def log_batch(arguments: BatchArguments) -> Answer | Later:
        if len(arguments.logs) > MAX_BATCH:
            raise EntryRejected(
                f"logs: at most {MAX_BATCH:,} entries a call, not {len(arguments.logs):,}; send several"
            )
        rejected = []
        warnings = []
        filtered = 0
        full: ChannelFull | None = None
        receipt = Receipt() if (arguments.ack or ack) == "durable" else None
        weight = message_weight.get()
        step = (
            PIECE if weight <= HEAVY else MAX_BATCH
        )  # a thread takes all of them: to begin one costs more than it does
        for start in range(0, len(arguments.logs), step):
            piece = arguments.logs[start : start + step]
            await trio.lowlevel.checkpoint()
            for index, judged in enumerate(await off_the_loop(weight, _judge, piece, levels, trace.get()), start):
                try:
                    if isinstance(judged.fault, EntryRejected):
                        raise judged.fault
                    if judged.raw is None:
                        filtered += 1
                        continue
                    if full is not None:
                        raise full  # a call waits once for room, not once an entry
                    await inlet.accept(judged.raw, receipt)
                    on_accepted(judged.component, judged.level)
                except EntryRejected as exc:
                    if isinstance(exc, ChannelFull):
                        full = exc
                        status.refused += 1
                    rejected.append({"index": index, "error": str(exc)})
                warnings += [of_entry(index, change) for change in judged.warnings]
        status.filtered += filtered
        accepted = len(arguments.logs) - len(rejected) - filtered
        numbers = {"accepted": accepted, "filtered": filtered, "rejected": rejected}
        if receipt is None or not accepted:
            answer = Answer.of({**numbers, "warnings": warnings})
            return attrs.evolve(answer, is_error=bool(rejected) and not accepted + filtered)
        acknowledge = partial(_acknowledgement, numbers, warnings)
        again = "send the batch again, with ids of your own, so that what arrived is not stored twice"
        patience_s = PATIENCE_S if full is None else 0  # nothing was written while it waited for room
        return Later(partial(_when_written, receipt, accepted, status, patience_s, acknowledge, again))

    return log_batch


@attrs.define
class _Judged:
    """What becomes of an entry of a batch.

    :param raw: the entry, serialised; None: it is filtered out, or has a fault.
    """

    warnings: list[str] = attrs.Factory(list)
    raw: bytes | None = None
    component: str = ""
    level: str = ""
    fault: EntryRejected | None = None


def _judge(values: list[Any], levels: Levels, trace_id: str | None) -> list[_Judged]:
    """Check and serialise entries of a batch."""
    all_judged = []
    for value in values:
        judged = _Judged()
        try:
            entry = admit_json(value, judged.warnings, trace_id)
            if levels.lets_through(entry.component, entry.level):
                judged.raw = encode_entry(entry, judged.warnings)
                judged.component, judged.level = entry.component, entry.level
        except EntryRejected as exc:
            judged.fault = exc
        all_judged.append(judged)
    return all_judged


def _acknowledgement(fields: Mapping[str, object], warnings: list[str], receipt: Receipt) -> Answer:
    """Answer a caller who asked for `durable`, when all is written: `queued` where that may be lost all the same.

    The first warning says why: further ones may be cut off.
    """
    if receipt.weakness is not None:
        return Answer.of({"status": "queued", **fields, "warnings": [f"not durable: {receipt.weakness}", *warnings]})
    return Answer.of({"status": "durable", **fields, "warnings": warnings})


async def _when_written(
    receipt: Receipt,
    entries: int,
    status: Status,
    patience_s: float,
    acknowledge: Callable[[Receipt], Answer],
    again: str,
) -> Answer:
    """Wait until the entries of a call are in the buffer.

    :param again: what the caller is to do when they are not.
    :param entries: how many; they are counted when they are not.
    :raises BufferUnavailable: they were not in time, and may get there yet; or some did not stay there.
    """
    with trio.move_on_after(patience_s):
        await receipt.wait()
        if receipt.dropped:
            raise BufferUnavailable(
                f"{receipt.dropped:,} of {entries:,} dropped: the queue is full, and holds fewer than came at once "
                f"(MAX_QUEUE_SIZE, GODOT_MAX_QUEUE_BYTES); {again}"
            )
        return acknowledge(receipt)
    status.unconfirmed += entries
    raise BufferUnavailable(f"not on disk within {PATIENCE_S:g} s, and not sure to get there; {again}")
