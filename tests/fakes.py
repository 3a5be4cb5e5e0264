"""The twins in memory as tests need them: away, slow or watched; and the entries that tests send."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import attrs
import trio

from dewey_logs.clearing import Clearing
from dewey_logs.query import Query
from dewey_logs.store.batch import Batch
from dewey_logs.store.memory import MemoryStore
from dewey_logs.store.protocol import Maintained, Page, Stored
from dewey_logs.tools import DEFINITIONS, dewey_tools
from godot.buffer.memory import MemoryBuffer
from godot.buffer.protocol import QUEUE_MAX_BYTES, Counts, DeadEntry, Taken
from godot.entries.entry import Entry, admit_json
from godot.entries.wire import encode_entry
from godot.errors import BatchRefused, BufferUnavailable, DeweyUnavailable, StoreUnavailable
from godot.intake.accept import Door
from godot.json.text import loads
from godot.mcp.toolbox import Answer, Tool, Toolbox
from godot.pipeline.channel import MAX_ENTRIES, Inlet, Outlet, open_entry_channel
from godot.pipeline.dewey import DirectDewey
from godot.pipeline.levels import Levels
from godot.pipeline.status import Status
from godot.settings import Ack
from godot.stations import godot_toolbox

# Twins.


class FakeBuffer(MemoryBuffer):
    """A buffer that can be away, takes its time over a push, and notes what it was asked."""

    def __init__(self, max_size: int = 100_000, max_bytes: int = QUEUE_MAX_BYTES) -> None:
        super().__init__(max_size, max_bytes)
        self.away = False
        """Everything raises `BufferUnavailable`."""
        self.away_until = 0.0
        """On trio's clock: the same, until then."""
        self.takes_s = 0.0
        """Seconds of a push."""
        self.asked_at: list[float] = []
        """When pushes began."""
        self.taken_at: list[float] = []
        self.pushed: list[tuple[float, list[bytes]]] = []
        """Each push that was written, and when."""

    @property
    def sizes(self) -> list[tuple[float, int]]:
        """When each push was written, and how many entries it had."""
        return [(when, len(batch)) for when, batch in self.pushed]

    async def push(self, entries: Sequence[bytes]) -> Counts:
        self.asked_at.append(trio.current_time())
        await trio.sleep(self.takes_s)
        self._check()
        self.pushed.append((trio.current_time(), list(entries)))
        return await super().push(entries)

    async def take(self, limit: int) -> Taken:
        self.taken_at.append(trio.current_time())
        self._check()
        return await super().take(limit)

    async def settle(self, keep: Sequence[bytes] = (), dead: Sequence[DeadEntry] = ()) -> Counts:
        self._check()
        return await super().settle(keep, dead)

    async def hand_back(self) -> Counts:
        self._check()
        return await super().hand_back()

    async def counts(self) -> Counts:
        self._check()
        return await super().counts()

    async def note_levels(self, noted: bytes) -> None:
        self._check()
        await super().note_levels(noted)

    async def noted_levels(self) -> bytes | None:
        self._check()
        return await super().noted_levels()

    def _check(self) -> None:
        if self.away or trio.current_time() < self.away_until:
            raise BufferUnavailable("Redis: away")


class FakeStore(MemoryStore):
    """A store that can be away, takes its time, refuses what is valid, and notes what it kept."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__(now)
        self.away = False
        """Everything raises `StoreUnavailable`."""
        self.cause: Exception | None = None
        """What makes it be away."""
        self.takes_s = 0.0
        """Seconds of storing, and of a query; with `math.inf` neither comes back."""
        self.first: Callable[[], object] = lambda: None
        """Called before each storing."""
        self.refuses: set[str] = set()
        """Messages of entries that it refuses: a database has opinions of its own."""
        self.kept: list[Entry] = []
        """What was stored, in the order in which it came."""

    async def store(self, batch: Batch) -> Stored:
        await self._answer()
        self.first()
        entries = [Entry(**each) for each in loads(batch.json)]
        faults = [(index, "not today") for index, each in enumerate(entries) if each.message in self.refuses]
        if faults:
            raise BatchRefused(faults)
        done = await super().store(batch)
        self.kept += entries
        return done

    async def query(self, query: Query) -> Page:
        await self._answer()
        return await super().query(query)

    async def maintain(self, *, ahead_days: int, retention_days: int, partitioned: bool = True) -> Maintained:
        await self._answer()
        return await super().maintain(ahead_days=ahead_days, retention_days=retention_days, partitioned=partitioned)

    async def doomed_days(self, clearing: Clearing) -> int:
        await self._answer()
        return await super().doomed_days(clearing)

    async def _answer(self) -> None:
        await trio.sleep(self.takes_s)
        if self.away:
            raise StoreUnavailable("PostgreSQL: away") from self.cause


class FakeDewey(DirectDewey):
    """A Dewey over a store in memory, which notes what it was asked.

    :param store: under its tools.
    """

    def __init__(self, store: FakeStore | None = None, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.memory = store or FakeStore(now)
        super().__init__(Toolbox(dewey_tools(self.memory, now=now)))
        self.down_until = 0.0
        """On trio's clock: it stores nothing before."""
        self.silent = False
        """A batch gets no answer."""
        self.bugs: dict[str, int] = {}
        """Of which tool how many more calls raise `KeyError`."""
        self.attempts: list[tuple[float, list[bytes]]] = []
        """The batches that it was asked to store, and when."""
        self.asked: list[str] = []
        """The tools that were called."""

    @property
    def stored(self) -> list[str]:
        """The messages that are stored, in the order in which they came."""
        return [each.message for each in self.memory.kept]

    @property
    def tried_at(self) -> list[float]:
        return [when for when, _ in self.attempts]

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for _, batch in self.attempts]

    async def store(self, entries: Sequence[bytes]) -> None:
        self.attempts.append((trio.current_time(), list(entries)))
        if self.silent:
            await trio.sleep(15)
            raise DeweyUnavailable("Dewey: no answer")
        if trio.current_time() < self.down_until:
            raise DeweyUnavailable("Dewey: down")
        await super().store(entries)

    async def ask(self, tool: str, arguments: Mapping[str, Any], *, wait_s: float = 0.0) -> Answer:
        self.asked.append(tool)
        if self.bugs.get(tool, 0) > 0:
            self.bugs[tool] -= 1
            raise KeyError("a bug")
        return await super().ask(tool, arguments, wait_s=wait_s)


@attrs.define
class Table:
    """The tools of Godot's port, and all that they stand on, in memory.

    :param max_entries: that the channel holds.
    :param entry_max_bytes: of one entry.
    """

    buffer: FakeBuffer = attrs.Factory(FakeBuffer)
    dewey: DirectDewey = attrs.Factory(FakeDewey)
    levels: Levels = attrs.Factory(Levels)
    ack: Ack = "queued"
    max_entries: int = MAX_ENTRIES
    entry_max_bytes: float = math.inf
    lines: list[str] = attrs.Factory(list)
    accepted: list[tuple[str, str]] = attrs.Factory(list)
    """Component and level of each entry that was accepted."""
    status: Status = attrs.field(init=False)
    inlet: Inlet = attrs.field(init=False)
    outlet: Outlet = attrs.field(init=False)
    toolbox: Toolbox = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.status = Status(self.lines.append, self.buffer, max_size=100_000)
        self.inlet, self.outlet = open_entry_channel(self.max_entries, entry_max_bytes=self.entry_max_bytes)
        door = Door(self.inlet, self.status, self.levels, ack=self.ack, on_accepted=self._note)
        self.toolbox = godot_toolbox(door, self.dewey, self.status, self.buffer, self.levels, definitions=DEFINITIONS)

    def _note(self, component: str, level: str) -> None:
        self.accepted.append((component, level))

    async def answer(self, tool: str, **arguments: Any) -> Answer:
        """Call a tool."""
        return await self.toolbox.find(tool).call(arguments)

    async def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool that succeeds; return what it says."""
        answer = await self.answer(tool, **arguments)
        assert not answer.is_error, answer.json
        return loads(answer.json)


@attrs.frozen
class Nothing:
    """The arguments of a tool that takes none."""


class SlowTool:
    """A tool that is done when it is let."""

    def __init__(self) -> None:
        self.running = 0
        self.let = trio.Event()
        self.toolbox = Toolbox([Tool(name="slow", title="Slow", description="Waits.", arguments=Nothing, run=self.run)])

    async def run(self, _: Nothing) -> Answer:
        self.running += 1
        await self.let.wait()
        self.running -= 1
        return Answer.of({})


# Entries.


def said(message: str = "something happened", **fields: object) -> dict[str, Any]:
    """Return an entry as a client says it."""
    return {"component": "relay", "level": "INFO", "message": message, **fields}


def entry(message: str = "something happened", **fields: object) -> Entry:
    """Return an entry as the store gets it."""
    return admit_json(said(message, **fields), [])


def raw_entry(message: str = "something happened", **fields: object) -> bytes:
    """Return an entry as it travels."""
    return encode_entry(entry(message, **fields), [])


def raw_entries(count: int, first: int = 0) -> list[bytes]:
    """Return entries that count."""
    return [raw_entry(str(number)) for number in range(first, first + count)]


def numbers(count: int, first: int = 0) -> list[str]:
    """Return the messages of such entries."""
    return [str(number) for number in range(first, first + count)]


ENTRIES = attrgetter("queued", "in_flight", "received", "stored", "dropped", "dead")
"""What a buffer holds in entries."""


class Held(Counts):
    """`Counts` that equal all others with the same numbers of entries: for tests that are not about bytes."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counts) and ENTRIES(self) == ENTRIES(other)
