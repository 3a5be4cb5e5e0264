"""The one way in for entries, whatever carried them: check, complete, serialise once, put into the channel.

MCP (`godot.intake.tools`) and NDJSON (`godot.intake.ndjson`) read entries, hand them to the `Door`, and word what
became of them for their own readers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import attrs
import trio

from godot.entries.entry import MAX_BATCH, EntryFields, admit, admit_json
from godot.entries.wire import encode_entry
from godot.errors import ChannelFull, EntryRejected
from godot.mcp.heavy import HEAVY, off_the_loop
from godot.pipeline.channel import PATIENCE_S, Inlet, Receipt
from godot.pipeline.levels import Filter, Levels
from godot.pipeline.status import Status
from godot.settings import Ack

PIECE: Final = 50
"""Entries of a batch that are looked at before others get their turn: milliseconds when every one has faults."""


@attrs.define
class Accepted:
    """The entry is in the channel: it will be stored, unless this process dies within the next 100 ms.

    :param warnings: one sentence for each thing that was changed; so in all outcomes.
    """

    id: str
    warnings: Sequence[str] = ()


@attrs.define
class Filtered:
    """The entry is below the level of its component.

    :param level: the least severe one that is taken in.
    """

    id: str
    level: str | None
    warnings: Sequence[str] = ()


@attrs.define
class Rejected:
    """The entry does not follow the rules; sending it again does not help."""

    reason: str
    warnings: Sequence[str] = ()


@attrs.define
class TryAgain:
    """There was no room for the entry; sending it again later is right."""

    reason: str
    warnings: Sequence[str] = ()


Outcome: TypeAlias = Accepted | Filtered | Rejected | TryAgain


@attrs.define
class Written:
    """All that was accepted is in the buffer.

    :param weakness: why it may be lost all the same (`Counts.weakness`); None: it is durable.
    """

    weakness: str | None


@attrs.define
class NotWritten:
    """Some of what was accepted is not in the buffer, or nobody knows yet."""

    reason: str


@attrs.define
class _Checked:
    """An entry that may come in.

    :param raw: the entry, serialised.
    """

    id: str
    component: str
    level: str
    raw: bytes
    warnings: list[str]


class Door:
    """Where entries come in.

    :param ack: what counts where a caller does not say (`GODOT_ACK`).
    :param on_accepted: gets component and level of every entry that was accepted.
    """

    def __init__(
        self,
        inlet: Inlet,
        status: Status,
        levels: Levels,
        *,
        ack: Ack = "queued",
        on_accepted: Callable[[str, str], None] = lambda _component, _level: None,
    ) -> None:
        self._inlet, self._status, self._levels = inlet, status, levels
        self._ack, self._on_accepted = ack, on_accepted

    def receipt(self, ack: Ack | None) -> Receipt | None:
        """Return what to wait with (`written`) until entries are on disk; None: the caller does not ask for it."""
        return Receipt() if (ack or self._ack) == "durable" else None

    async def accept(
        self, fields: EntryFields, *, trace_id: str | None = None, weight: int = 0, receipt: Receipt | None = None
    ) -> Outcome:
        """Take one entry in.

        :param trace_id: of an entry that brings none.
        :param weight: of the message that brought it (`godot.json.weight`).
        """
        judged = await off_the_loop(weight, _check, admit, fields, self._levels.filter(), trace_id)
        return self._count(await self._put(judged, receipt) if isinstance(judged, _Checked) else judged)

    async def accept_many(
        self,
        values: Sequence[Any],
        *,
        trace_id: str | None = None,
        weight: int = 0,
        receipt: Receipt | None = None,
    ) -> list[Outcome]:
        """Take a batch of at most `MAX_BATCH` entries in, each judged for itself.

        :param values: the entries, as JSON values.
        :return: what became of each, in their order.
        """
        outcomes: list[Outcome] = []
        full: TryAgain | None = None
        # A thread takes all of them at once: to begin one costs more than others wait for it.
        step = PIECE if weight <= HEAVY else MAX_BATCH
        for start in range(0, len(values), step):
            await trio.lowlevel.checkpoint()
            piece = values[start : start + step]
            for judged in await off_the_loop(weight, _check_all, piece, self._levels.filter(), trace_id):
                outcome: Outcome
                if not isinstance(judged, _Checked):
                    outcome = judged
                elif full is not None:  # a call waits once for room, not once an entry
                    outcome = TryAgain(full.reason, judged.warnings)
                else:
                    outcome = await self._put(judged, receipt)
                    full = outcome if isinstance(outcome, TryAgain) else None
                outcomes.append(self._count(outcome))
        return outcomes

    async def written(self, receipt: Receipt, outcomes: Sequence[Outcome]) -> Written | NotWritten:
        """Wait until what was accepted with a receipt is in the buffer, for `PATIENCE_S` at most."""
        accepted = sum(isinstance(each, Accepted) for each in outcomes)
        # Nothing was written while a call waited for room.
        patience_s = 0.0 if any(isinstance(each, TryAgain) for each in outcomes) else PATIENCE_S
        with trio.move_on_after(patience_s):
            await receipt.wait()
            if not receipt.dropped:
                return Written(receipt.weakness)
            return NotWritten(
                f"{receipt.dropped:,} of {accepted:,} dropped: the queue is full, and holds fewer than came at once "
                "(MAX_QUEUE_SIZE, GODOT_MAX_QUEUE_BYTES)"
            )
        self._status.unconfirmed += accepted
        return NotWritten(f"not on disk within {PATIENCE_S:g} s, and not sure to get there")

    def _count(self, outcome: Outcome) -> Outcome:
        match outcome:
            case Filtered():
                self._status.filtered += 1
            case TryAgain():
                self._status.refused += 1
        return outcome

    async def _put(self, checked: _Checked, receipt: Receipt | None) -> Accepted | Rejected | TryAgain:
        try:
            await self._inlet.accept(checked.raw, receipt)
        except ChannelFull as exc:
            return TryAgain(str(exc), checked.warnings)
        except EntryRejected as exc:
            return Rejected(str(exc), checked.warnings)
        self._on_accepted(checked.component, checked.level)
        return Accepted(checked.id, checked.warnings)


def _check(
    admitted: Callable[[Any, list[str], str | None], Any], value: Any, passing: Filter, trace_id: str | None
) -> _Checked | Filtered | Rejected:
    """Check, complete and serialise an entry.

    :param admitted: `admit` or `admit_json`, as the value is.
    """
    warnings: list[str] = []
    try:
        entry = admitted(value, warnings, trace_id)
        if not passing.lets_through(entry.component, entry.level):
            return Filtered(entry.id, passing.of(entry.component), warnings)
        return _Checked(entry.id, entry.component, entry.level, encode_entry(entry, warnings), warnings)
    except EntryRejected as exc:
        return Rejected(str(exc), warnings)


def _check_all(values: Sequence[Any], passing: Filter, trace_id: str | None) -> list[_Checked | Filtered | Rejected]:
    return [_check(admit_json, value, passing, trace_id) for value in values]
