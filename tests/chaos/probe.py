"""The bystander: a client that does nothing to anybody, and looks whether it is answered.

Four times a second it logs an entry, durably, on a connection of its own that goes past the links. An answer may take
long, or say no, while something is done to Godot or to Redis, and until the first acknowledgement after that. What is
done to Dewey, to PostgreSQL, or by other clients, is no excuse.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import attrs
import orjson
import trio

from godot.entries.entry import IdSource
from godot.mcp.transport import TransportClosed, Unreachable
from godot.mcp.websocket.dial import Address, over_websocket
from tests.chaos.clients import ANSWER_MAX_BYTES, Call, Conversation
from tests.chaos.faults import Storms
from tests.chaos.ledger import Ledger
from tests.chaos.system import Service

NAME: Final = "bystander"

EVERY_S: Final = 0.25
AGAIN_S: Final = 0.1
"""Between two tries to connect."""

RECOVERED_S: Final = 60.0
"""So long after the end of a fault there has to be an acknowledgement."""

EXCUSES: Final = ("godot", "redis")
"""Parts and links on which an acknowledgement depends."""


@attrs.frozen
class Result:
    """What came of one call.

    :param acknowledged: the answer was yes.
    """

    began: float
    ended: float
    answered: bool
    acknowledged: bool


@attrs.define(eq=False)
class Record:
    """What the answers were like, and what of it had an excuse.

    :param silence_s: without an acknowledgement, from which on it is a problem.
    """

    silence_s: float
    acknowledged: list[float] = attrs.Factory(list)
    """How long each answer took that nothing had disturbed."""
    refused: int = 0
    """Answered in time, with a no, without an excuse."""
    unanswered: int = 0
    """Without an excuse."""
    excused: int = 0
    """There was a fault, or nothing was acknowledged since it."""
    longest_silence_s: float = 0.0
    """Between two acknowledgements without a fault in between."""
    slowest_recovery_s: float = 0.0
    is_silent: bool = False
    """Whether the latest call without an excuse was not answered."""
    _latest_ack: float = -math.inf

    def take(self, result: Result, disturbed: float) -> None:
        """Take note of what came of a call.

        :param disturbed: when the last disturbance ended; now, while there is one.
        """
        if result.acknowledged:
            self._acknowledge(result, disturbed)
        elif self._latest_ack < disturbed or disturbed >= result.began:
            self.excused += 1
            if result.ended - disturbed > RECOVERED_S:
                self.slowest_recovery_s = max(self.slowest_recovery_s, result.ended - disturbed)
        elif result.answered:
            self.refused += 1
        else:
            self.unanswered += 1
            self.is_silent = True

    def _acknowledge(self, result: Result, disturbed: float) -> None:
        self.is_silent = False
        if disturbed >= result.began:  # it may have been acknowledged before that
            self.excused += 1
            return
        if self._latest_ack < disturbed:
            self.excused += 1
            self.slowest_recovery_s = max(self.slowest_recovery_s, result.ended - disturbed)
        else:
            self.acknowledged.append(result.ended - result.began)
            self.longest_silence_s = max(self.longest_silence_s, result.ended - self._latest_ack)
        self._latest_ack = result.ended

    def lines(self) -> Iterator[str]:
        """Yield what it has to say."""
        asked = len(self.acknowledged) + self.refused + self.unanswered
        yield (
            f"bystander       {asked} calls that no fault excuses: {len(self.acknowledged)} acknowledged, "
            f"{self.refused} refused, {self.unanswered} unanswered; {self.excused} more within faults"
        )
        if times := sorted(self.acknowledged):
            p50, p99 = (times[int(share * (len(times) - 1))] for share in (0.5, 0.99))
            yield (
                f"                p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms, longest {times[-1]:.2f} s, "
                f"longest silence {self.longest_silence_s:.2f} s, slowest recovery {self.slowest_recovery_s:.1f} s"
            )

    def problems(self) -> Iterator[str]:
        """Yield a line for each thing that is not as it should be."""
        if self.unanswered:
            yield f"the bystander was not answered {self.unanswered} times, without a fault to excuse it"
        if self.longest_silence_s > self.silence_s:
            yield f"the bystander heard nothing for {self.longest_silence_s:.1f} s, without a fault to excuse it"
        if self.slowest_recovery_s > RECOVERED_S:
            yield f"the bystander was acknowledged {self.slowest_recovery_s:.1f} s after a fault had ended"
        if not self.acknowledged:
            yield "the bystander was never acknowledged outside of faults"


@attrs.define(eq=False)
class Probe:
    """Asks.

    :param daemon: that it talks to, as long as that takes calls.
    :param record: takes what comes of it.
    :param on_silence: called for the first call that is not answered and has no excuse, and again after the next
        acknowledgement.
    """

    daemon: Service
    storms: Storms
    ledger: Ledger
    record: Record
    on_silence: Callable[[], None]
    own_lag_s: float = 0.0
    """How late this process itself was at the worst: what it says of others is no better than that."""
    _conversation: Conversation | None = None
    _connected: trio.Event = attrs.Factory(trio.Event)
    _new_id: Callable[[], str] = attrs.Factory(lambda: IdSource().next)

    async def run(self, permit: Callable[[], Awaitable[bool]]) -> None:
        """Ask until there is no permission any more, and every question has found its end."""
        async with trio.open_nursery() as connection:
            connection.start_soon(self._keep_connected)
            async with trio.open_nursery() as questions:
                due = trio.current_time()
                while await permit():
                    questions.start_soon(self._ask)
                    due = max(due + EVERY_S, trio.current_time())
                    await trio.sleep_until(due)
                    self.own_lag_s = max(self.own_lag_s, trio.current_time() - due)
            connection.cancel_scope.cancel()

    def lines(self) -> Iterator[str]:
        """Yield the record."""
        yield from self.record.lines()
        yield f"                (the clients' own process was {self.own_lag_s:.2f} s late at the worst)"

    async def _ask(self) -> None:
        began = trio.current_time()
        entry_id = self._new_id()
        entry = {"id": entry_id, "component": NAME, "level": "INFO", "message": entry_id, "ack": "durable"}
        call = Call("logger_log", orjson.dumps(entry), [entry_id])
        self.ledger.offer(entry_id)
        response = None
        with trio.move_on_after(self.record.silence_s):
            while self._conversation is None:
                await self._connected.wait()
            conversation = self._conversation
            response = await conversation.ask(call, within_s=math.inf)
        is_durable = response is not None and "result" in response and not response["result"]["isError"]
        if is_durable:
            self.ledger.acknowledge([entry_id])
        disturbed = max(self.storms.disturbed(EXCUSES), self.daemon.disturbed())
        was_silent = self.record.is_silent
        self.record.take(Result(began, trio.current_time(), response is not None, is_durable), disturbed)
        if self.record.is_silent and not was_silent:
            self.on_silence()

    async def _keep_connected(self) -> None:
        while True:
            if url := self.daemon.url:
                try:
                    async with over_websocket(Address.parse(url), max_message_bytes=ANSWER_MAX_BYTES)() as transport:
                        with trio.CancelScope() as scope:
                            self._conversation = Conversation(transport, scope, [])
                            self._connected.set()
                            try:
                                await self._conversation.read()
                            finally:
                                self._conversation = None
                                self._connected = trio.Event()
                except* (Unreachable, TransportClosed):
                    pass
            await trio.sleep(AGAIN_S)
