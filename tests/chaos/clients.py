"""The load: clients that log durably, and send again whatever was not acknowledged, until it is.

Law of this module: an entry is made once, with an id of its own; what is sent again is the same, byte for byte.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final
from uuid import UUID

import attrs
import orjson
import trio

from godot.entries.entry import IdSource
from godot.mcp.transport import Transport, TransportClosed, Unreachable
from godot.mcp.websocket.dial import Address, over_websocket
from tests.chaos.ledger import Ledger
from tests.programs import CallFault, answer

ANSWER_S: Final = 4.0
"""A call that is not answered by then is sent again."""

AGAIN_S: Final = 0.2
"""Between a call that was not acknowledged and the next try, at the longest."""

CATCH_UP_S: Final = 1.0
"""So much of the load that was held up is made good for."""

IMPATIENCE: Final = 0.7
"""How often a client whose call was not answered opens another connection for the next try."""

ANSWER_MAX_BYTES: Final = 1024 * 1024

_call_ids = count(1)


@attrs.frozen
class Manner:
    """How a client behaves.

    :param batch: entries in a call, at the most; 1 for `logger_log`.
    :param window: calls on the way at once, on one connection.
    :param version: of its UUIDs.
    :param dated: it says itself when an entry happened, which may be days ago.
    :param again: the share of calls that it sends again although they were acknowledged.
    :param share: of the load.
    """

    name: str
    batch: int
    window: int
    version: int
    dated: bool
    again: float
    share: float


MANNERS: Final = (
    Manner("one-by-one-v4", batch=1, window=1, version=4, dated=False, again=0.0, share=0.03),
    Manner("one-by-one-v7", batch=1, window=8, version=7, dated=False, again=0.0, share=0.07),
    Manner("twice-v4", batch=1, window=4, version=4, dated=False, again=0.5, share=0.05),
    Manner("twice-v7-dated", batch=1, window=2, version=7, dated=True, again=0.5, share=0.05),
    Manner("batches-v7", batch=50, window=2, version=7, dated=False, again=0.0, share=0.3),
    Manner("batches-v4-dated", batch=50, window=2, version=4, dated=True, again=0.1, share=0.3),
    Manner("batches-twice-v4", batch=20, window=2, version=4, dated=False, again=0.3, share=0.2),
)


@attrs.define(eq=False)
class Load:
    """What all clients share.

    :param urls: where they may connect, asked anew for each connection.
    :param on_ack: gets the name of a client at each of its acknowledgements.
    """

    rate: float
    ledger: Ledger
    urls: Callable[[], Sequence[str]]
    on_ack: Callable[[str], None]
    refusals: Counter[str] = attrs.Factory(Counter)
    """What calls were answered that were not acknowledged, and how often."""
    surprises: list[str] = attrs.Factory(list)
    """Answers that there should not be."""
    stopped: bool = False
    _running: trio.Event = attrs.Factory(trio.Event)
    _busy: int = 0

    async def run(self, rng: random.Random) -> None:
        """Let a client of each manner log. Returns when stopped, and all is acknowledged."""
        self.resume()
        async with trio.open_nursery() as nursery:
            for manner in MANNERS:
                client = Client(manner, self, random.Random(rng.random()))
                nursery.start_soon(client.run, name=manner.name)

    def resume(self) -> None:
        """Let the clients make new calls."""
        self._running.set()

    def pause(self) -> None:
        """Let the clients finish what is on its way, and make no new calls."""
        self._running = trio.Event()

    def stop(self) -> None:
        """The same, for ever."""
        self.stopped = True
        self._running.set()

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return not self._busy

    async def permit(self) -> bool:
        """Wait until a call may be made; False when there will be none."""
        await self._running.wait()
        return not self.stopped

    async def going_on(self) -> bool:
        """Tell whether there is load to come, at once also in a pause."""
        await trio.lowlevel.checkpoint()
        return not self.stopped

    @contextmanager
    def call(self) -> Iterator[None]:
        """Enter before a call is made, leave when it is acknowledged."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1


@attrs.frozen
class Call:
    """A call as it is sent, each time.

    :param ids: of its entries.
    """

    tool: str
    arguments: bytes
    ids: Sequence[str]

    def acknowledged_by(self, value: Any) -> bool:
        """Tell whether all entries are said to be on disk."""
        if self.tool == "logger_log":
            return bool(value["status"] == "durable" and value["id"] == self.ids[0])
        return bool(value["accepted"] == len(self.ids) and not value["rejected"])


class Conversation:
    """One connection, and the calls that wait for an answer on it."""

    def __init__(self, transport: Transport, scope: trio.CancelScope, order: list[str]) -> None:
        self.order = order
        """The ids that were sent for the first time on it."""
        self._transport = transport
        self._scope = scope
        self._waiting: dict[int, list[Any]] = {}
        self._answered = trio.Event()
        self._over = False

    async def ask(self, call: Call, *, within_s: float = ANSWER_S) -> Any:
        """Send a call; return its response, or None when there is none, or none in time."""
        request_id = next(_call_ids)
        frame = b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"%b","arguments":%b}}'
        response = self._waiting[request_id] = []
        sent = False
        try:
            with trio.move_on_after(within_s):
                await self._transport.send((frame % (request_id, call.tool.encode(), call.arguments)).decode())
                sent = True
                while not response and not self._over:
                    await self._answered.wait()
        except TransportClosed:
            self.drop()
        finally:
            del self._waiting[request_id]
            if not sent:
                self.drop()  # half a frame may have been written
        return response[0] if response else None

    def drop(self) -> None:
        """End the connection."""
        self._scope.cancel()

    async def read(self) -> None:
        """Hand out the responses.

        :raises TransportClosed: there will be no more.
        """
        try:
            while True:
                response = orjson.loads(await self._transport.receive())
                if (waiting := self._waiting.get(response.get("id"))) is not None:
                    waiting.append(response)
                self._wake()
        finally:
            self._over = True
            self._wake()

    def _wake(self) -> None:
        self._answered.set()
        self._answered = trio.Event()


class Client:
    """One client: a connection that is opened again whenever it ends, and calls that are made until they succeed."""

    def __init__(self, manner: Manner, load: Load, rng: random.Random) -> None:
        self._manner, self._load, self._rng = manner, load, rng
        self._new_id7 = IdSource().next
        self._sequence = count(1)
        self._conversation: Conversation | None = None
        self._connected = trio.Event()
        self._next_call = 0.0

    async def run(self) -> None:
        """Log. Returns when the load is stopped and all is acknowledged."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_connected)
            async with trio.open_nursery() as slots:
                for _ in range(self._manner.window):
                    slots.start_soon(self._make_calls, slots)
            nursery.cancel_scope.cancel()

    async def _keep_connected(self) -> None:
        while True:
            try:
                address = Address.parse(self._rng.choice(self._load.urls()))
                async with over_websocket(address, max_message_bytes=ANSWER_MAX_BYTES)() as transport:
                    with trio.CancelScope() as scope:
                        untold = not self._manner.dated
                        order = self._load.ledger.new_order(self._manner.name, ties=self._manner.version == 4)
                        # What a client dates itself has the order that the client wants.
                        self._conversation = Conversation(transport, scope, order if untold else [])
                        self._connected.set()
                        try:
                            await self._conversation.read()
                        finally:
                            self._conversation = None
                            self._connected = trio.Event()
            except* (Unreachable, TransportClosed):
                pass
            await self._rest()

    async def _make_calls(self, others: trio.Nursery) -> None:
        while await self._load.permit():
            with self._load.call():
                size = self._rng.randint(1, self._manner.batch)
                await self._pace(size)
                conversation = await self._connection()
                # From here to the sending nothing else runs: what is made first is sent first.
                call = self._new_call(size)
                conversation.order.extend(call.ids)
                if not await self._acknowledged(call, conversation):
                    self._load.ledger.send_again(call.ids)
                    await self._deliver(call)
                if self._rng.random() < self._manner.again:
                    if self._manner.version == 4:  # it gets another time, and whichever is stored first stays
                        self._load.ledger.send_again(call.ids)
                    await others.start(self._deliver_again, call)

    async def _deliver_again(self, call: Call, task_status: trio.TaskStatus[None]) -> None:
        with self._load.call():
            task_status.started()
            await trio.sleep(self._rng.choice((0, 0, 1, 5)))
            await self._deliver(call)

    async def _pace(self, entries: int) -> None:
        now = trio.current_time()
        self._next_call = max(now - CATCH_UP_S, self._next_call) + entries / (self._load.rate * self._manner.share)
        await trio.sleep_until(self._next_call)

    async def _connection(self) -> Conversation:
        while self._conversation is None:
            await self._connected.wait()
        return self._conversation

    async def _deliver(self, call: Call) -> None:
        while not await self._acknowledged(call, await self._connection()):
            await self._rest()

    async def _rest(self) -> None:
        await trio.sleep(self._rng.uniform(0, AGAIN_S))

    async def _acknowledged(self, call: Call, conversation: Conversation) -> bool:
        self._load.ledger.send(call.ids)
        response = await conversation.ask(call)
        if response is None:
            if self._rng.random() < IMPATIENCE:
                conversation.drop()
            return False
        if self._accepted(call, response):
            self._load.ledger.acknowledge(call.ids)
            self._load.on_ack(self._manner.name)
            return True
        return False

    def _accepted(self, call: Call, response: Any) -> bool:
        try:
            if call.acknowledged_by(value := answer(response)):
                return True
            self._load.refusals[f"{value}"[:60]] += 1
        except CallFault as exc:
            self._load.refusals[f"{exc}"[:60]] += 1
        except (KeyError, IndexError, TypeError, ValueError):
            self._load.surprises.append(f"{self._manner.name}: {response!s:.300}")
        return False

    def _new_call(self, size: int) -> Call:
        entries = [self._new_entry() for _ in range(size)]
        ids = [entry["id"] for entry in entries]
        if self._manner.batch == 1:
            return Call("logger_log", orjson.dumps({**entries[0], "ack": "durable"}), ids)
        return Call("logger_log_batch", orjson.dumps({"logs": entries, "ack": "durable"}), ids)

    def _new_entry(self) -> dict[str, Any]:
        entry_id = (
            self._new_id7() if self._manner.version == 7 else str(UUID(int=self._rng.getrandbits(128), version=4))
        )
        size = 100_000 if self._rng.random() < 0.001 else int(self._rng.expovariate(1 / 200))
        entry: dict[str, Any] = {
            "id": entry_id,
            "component": self._manner.name,
            "level": self._rng.choice(("INFO", "INFO", "WARN", "ERROR", "debug")),
            "message": f"{entry_id} {next(self._sequence)}",
            "data": {"filling": "x" * size},
        }
        if self._manner.dated:
            age = timedelta(days=self._rng.choice((0, 0, 0, 1, 5, 3000)))
            entry["created_at"] = (datetime.now(UTC) - age).isoformat()
        return entry
