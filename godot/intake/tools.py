"""Godot's own port: the tools by which entries come in and are found again.

Taking an entry in is: check it, complete it, serialise it once, put it into the channel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

import attrs
import trio

from godot.buffer.protocol import Keep, Notes
from godot.config import Ack
from godot.entries.entry import MAX_BATCH, EntryFields, admit, admit_json, of_entry
from godot.entries.wire import encode_entry
from godot.errors import BufferUnavailable, ChannelFull, DeweyUnavailable, EntryRejected
from godot.json.schema import object_schema
from godot.json.structure import argument
from godot.mcp.heavy import HEAVY, message_weight, off_the_loop
from godot.mcp.toolbox import Answer, Later, Tool, Toolbox, caller, trace
from godot.pipeline.channel import PATIENCE_S, Inlet, Receipt
from godot.pipeline.dead import dead_tools
from godot.pipeline.dewey import CLEAR, GET_LEVELS, PIN, QUERY, SET_LEVEL, STATS, TAIL, Dewey
from godot.pipeline.levels import Levels
from godot.pipeline.status import Status

INSTRUCTIONS: Final = (
    "Godot is the flight recorder of a system of MCP servers. Send log entries with logger_log "
    "(one) or logger_log_batch (up to 1,000). To find out what happened, use logger_query: by trace_id for "
    "one request through all servers, by component, level, time or text for the rest. "
    "logger_status tells whether anything is held back or was dropped."
)


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


@attrs.frozen
class NoArguments:
    """For tools that take none."""


def godot_toolbox(
    inlet: Inlet,
    dewey: Dewey,
    status: Status,
    buffer: Keep,
    levels: Levels,
    *,
    ack: Ack = "queued",
    dewey_arguments: Mapping[str, type[Any]],
    on_accepted: Callable[[str, str], None] = lambda _component, _level: None,
) -> Toolbox:
    """Make the table of tools of Godot's port.

    :param ack: what counts for a call that does not say (`GODOT_ACK`).
    :param dewey_arguments: what Dewey's tools take, by their names; the facades here take the same.
    :param on_accepted: gets component and level of every entry that was taken in.
    """
    return Toolbox(
        [
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
            Tool(
                name="logger_query",
                title="Find entries",
                description=(
                    "Find log entries: all of one request with trace_id; or by component, minimum level, time and "
                    "text, in any combination. Newest first unless order says otherwise. A long result comes in "
                    "pages: call again with cursor set to next_cursor."
                ),
                arguments=dewey_arguments[QUERY],
                run=_facade(dewey, QUERY),
                role="read",
                read_only=True,
                aliases=["godot_logger_query"],
            ),
            Tool(
                name="logger_tail",
                title="Follow entries",
                description=(
                    "Wait for log entries, and get them in the order in which they are stored: nothing is left out "
                    "and nothing comes twice. Answers {entries, cursor, missed, shortened} as soon as there is an "
                    "entry, or after wait_s with none; call again with cursor, and the same filters, to go on. missed "
                    "is not 0 when the cursor was so old that entries were left out: find them with logger_query."
                ),
                arguments=dewey_arguments[TAIL],
                run=_tail(dewey, status, float(attrs.fields_dict(dewey_arguments[TAIL])["wait_s"].default or 0.0)),
                role="read",
                read_only=True,
                waits=True,
                aliases=["godot_logger_tail"],
            ),
            Tool(
                name="logger_stats",
                title="Count the entries",
                description=(
                    "Tell how much is stored: total, by_component, by_level, the times of the oldest and the newest "
                    "entry, size_bytes in the database. Exact, and fast however much it is. What is still on its way "
                    "is not in it; logger_status tells that."
                ),
                arguments=dewey_arguments[STATS],
                run=_facade(dewey, STATS),
                role="read",
                read_only=True,
                idempotent=True,
                aliases=["godot_logger_stats"],
            ),
            Tool(
                name="logger_status",
                title="State of the recorder",
                description=(
                    "Tell how the recorder itself is: entries received, stored, queued (queued_bytes), in_flight, "
                    "dropped (the queue was full, the oldest went; dropped_for_bytes of them for their bytes; vanished "
                    "of them were taken out of Redis by others), dead (could not be stored, see logger_dead; "
                    "dead_forgotten of them are not kept any more), refused (not accepted), unconfirmed (accepted, "
                    "and their callers were told that they are not on disk in time), whether redis and dewey are up, "
                    "down or unknown, and whether what Redis acknowledges is durable (null: not looked at yet), if not "
                    "why (not_durable). The totals hold over restarts; "
                    "received = stored + queued + in_flight + dropped + dead."
                ),
                arguments=NoArguments,
                run=_status(status),
                role="read",
                read_only=True,
                aliases=["godot_logger_status"],
            ),
            Tool(
                name="logger_set_level",
                title="Set a level",
                description=(
                    "Set from which level on the entries of a component are stored, for a time with for_s: entries "
                    "below it are not, and their callers are told. It counts at once, here and for connected "
                    "clients that asked to be told, and within 10 s at other Godots. Answers {component, level, until, "
                    "previous}."
                ),
                arguments=dewey_arguments[SET_LEVEL],
                run=_set_level(dewey, levels, buffer),
                role="admin",
                idempotent=True,
                aliases=["godot_logger_set_level"],
            ),
            Tool(
                name="logger_get_level",
                title="Show the levels",
                description=(
                    "Show which levels count now, also while Dewey is away: {levels: {component: {level, until, "
                    "later}}}, * for the components that have none of their own. until is null for ever, and later "
                    "what counts after it, null for everything."
                ),
                arguments=dewey_arguments[GET_LEVELS],
                run=_get_levels(levels),
                role="read",
                read_only=True,
                idempotent=True,
                aliases=["godot_logger_get_level"],
            ),
            Tool(
                name="logger_clear",
                title="Delete entries",
                description=(
                    "DELETE stored entries for ever, but never those of a pinned trace. Without any filter it deletes "
                    "what is older than the retention, as happens by itself. Filters combine. Use dry_run first: it "
                    "says how many there are. Answers {deleted, dry_run}."
                ),
                arguments=dewey_arguments[CLEAR],
                run=_facade(dewey, CLEAR, wait_s=CLEAR_S, signed=True),
                role="admin",
                destructive=True,
                idempotent=True,
                aliases=["godot_logger_clear"],
            ),
            Tool(
                name="logger_pin",
                title="Keep a trace",
                description=(
                    "Pin a trace: its entries, also those that come yet, survive retention and clearing until the pin "
                    "ends or is removed. Pinning again changes note and end. Without trace_id it only lists. Answers "
                    "{pins: [{trace_id, note, pinned_at, until}]}; until is null for ever."
                ),
                arguments=dewey_arguments[PIN],
                run=_facade(dewey, PIN, signed=True),
                role="admin",
                idempotent=True,
                aliases=["godot_logger_pin"],
            ),
            *dead_tools(buffer),
        ]
    )


def _log(
    inlet: Inlet, status: Status, levels: Levels, ack: Ack, on_accepted: Callable[[str, str], None]
) -> Callable[[LogArguments], Awaitable[Answer | Later]]:
    async def log(arguments: LogArguments) -> Answer | Later:
        warnings: list[str] = []
        entry = admit(arguments, warnings, trace.get())
        if not levels.admit(entry.component, entry.level):
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
            if levels.admit(entry.component, entry.level):
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


def _facade(
    dewey: Dewey, tool: str, *, wait_s: float = 0.0, signed: bool = False
) -> Callable[[Any], Awaitable[Answer]]:
    """Return what passes a call on to Dewey.

    :param wait_s: how long the tool may take, beyond what a question may.
    :param signed: with where the call came from, which Dewey could not know; whatever the client says there.
    """

    async def ask(arguments: Any) -> Answer:
        given = _given(arguments)
        if signed:
            given["for_peer"] = caller.get()
        return await dewey.ask(tool, given, wait_s=wait_s)

    return ask


def _set_level(dewey: Dewey, levels: Levels, notes: Notes) -> Callable[[Any], Awaitable[Answer]]:
    async def set_level(arguments: Any) -> Answer:
        answer = await dewey.ask(SET_LEVEL, _given(arguments) | {"for_peer": caller.get()})
        if not answer.is_error:
            with suppress(DeweyUnavailable):  # maintenance asks again
                await levels.refresh(dewey, notes)
        return answer

    return set_level


def _get_levels(levels: Levels) -> Callable[[Any], Awaitable[Answer]]:
    async def get_levels(arguments: Any) -> Answer:
        await trio.lowlevel.checkpoint()
        listed = {
            component: attrs.asdict(setting)
            for component, setting in levels.settings().items()
            if arguments.component in (None, component)
        }
        return Answer.of({"levels": listed})

    return get_levels


def _tail(dewey: Dewey, status: Status, default_wait_s: float) -> Callable[[Any], Awaitable[Answer]]:
    """Return what passes a call on to Dewey that waits there.

    :param default_wait_s: how long Dewey waits when nothing is said.
    """
    waiting: Counter[str] = Counter()

    async def tail(arguments: Any) -> Answer:
        who = caller.get()
        if waiting[who] >= TAILS_EACH:
            raise EntryRejected(
                f"{TAILS_EACH} calls of logger_tail wait on this connection already, which is the most for one"
            )
        asked_s = default_wait_s if arguments.wait_s is None else arguments.wait_s
        waiting[who] += 1
        status.followers += 1
        try:
            given = _given(arguments) | {"for_peer": who}
            return await dewey.ask(TAIL, given, wait_s=min(max(asked_s, 0.0), _WAIT_MAX_S))
        finally:
            status.followers -= 1
            waiting[who] -= 1
            if not waiting[who]:
                del waiting[who]

    return tail


TAILS_EACH: Final = 100
"""Calls of `logger_tail` of one connection: half of those that Dewey has places for."""

CLEAR_S: Final = 3_600.0
"""Deleting ten million entries one by one takes a quarter of an hour."""

_WAIT_MAX_S: Final = 60.0
"""Cap on our own wait, whatever was asked, so that a dead connection is noticed."""


def _given(arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in attrs.asdict(arguments, recurse=False).items() if value is not None}


def _status(status: Status) -> Callable[[NoArguments], Awaitable[Answer]]:
    async def answer(_: NoArguments) -> Answer:
        return Answer.of(await status.look())

    return answer
