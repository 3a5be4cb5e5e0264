"""What Godot asks of Dewey.

Dewey may be another process (MCP over a WebSocket) or run inside this one. Then questions go over MCP in memory: the
same client, the same tools, the same frames. What is to be stored goes over no wire there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

import trio

from godot.errors import BatchRefused, DeweyFailed, DeweyUnavailable
from godot.json.text import MAX_VALUES, dumps, loads
from godot.json.weight import separators
from godot.mcp.client import CallFailed, CallRefused, Client
from godot.mcp.heavy import message_weight, off_the_loop
from godot.mcp.server import MAX_RUNNING
from godot.mcp.toolbox import Answer, Toolbox, caller
from godot.service.shares import Shares
from godot.toolnames import DEWEY_CLEAR, DEWEY_STORE, DEWEY_TAIL

PLACES: Final = MAX_RUNNING
EACH: Final = 2
"""Questions that Dewey works on at once, and how many of them may be of one caller."""

TURN_S: Final = 30.0
"""How long a question waits for its turn. With the time for its answer it stays under the 60 s after which common
clients give up."""


class Dewey(Protocol):
    """What Godot asks of Dewey."""

    async def store(self, entries: Sequence[bytes]) -> None:
        """Store a batch of serialised entries; those stored before are not stored twice.

        A large batch goes in parts, each of which is stored as a whole or not at all.

        An empty batch asks whether Dewey could store one now.

        :raises BatchRefused: for its content; trying again will not help.
        :raises DeweyUnavailable: trying again will help some time.
        :raises DeweyFailed: it will, unless an entry of the batch is the reason.
        """

    async def ask(self, tool: str, arguments: Mapping[str, Any], *, wait_s: float = 0.0) -> Answer:
        """Call any tool of Dewey's; an answer that is an error is returned like every other.

        :param wait_s: how long the tool itself waits before it answers.
        :raises DeweyUnavailable: there is no answer.
        """


Store: TypeAlias = Callable[[Sequence[bytes]], Awaitable[None]]
"""Does what `Dewey.store` promises: a `RemoteStore`, or, where Dewey is in this process, its own."""


class RemoteStore:
    """Stores over an MCP client, which carries nothing else.

    :param timeout_s: how long a batch may take. A connection on which one took longer is dropped: a network that
        swallows everything looks like this.
    """

    def __init__(self, client: Client, *, timeout_s: float) -> None:
        self._client, self._timeout_s = client, timeout_s

    async def __call__(self, entries: Sequence[bytes]) -> None:
        """See `Dewey.store`."""
        for first, part in _parts(entries):
            arguments = b'{"logs":[%b]}' % b",".join(part)
            try:
                answer = await _call(self._client, DEWEY_STORE, arguments, self._timeout_s)
            except trio.TooSlowError as exc:
                self._client.disconnect()  # Dewey reads nothing on it before it has stored
                raise _unanswered(DEWEY_STORE, self._timeout_s) from exc
            _check_stored(answer, first)


class RemoteDewey:
    """Dewey behind MCP clients, each of which carries what must not stand in the way of the rest.

    :param store: carries what is to be stored.
    :param questions: carries what is answered as soon as Dewey has worked on it. All callers share it, each has its
        share (`EACH` of `PLACES`): further calls wait behind their own.
    :param waits: carries calls that wait for entries to come, of which there may be many.
    :param clears: carries deletions, which may take an hour.
    :param timeout_s: how long a call may take. A connection on which one took longer is dropped unless it answers
        a ping.
    """

    def __init__(self, store: Store, questions: Client, waits: Client, clears: Client, *, timeout_s: float) -> None:
        self._store, self._questions = store, questions
        self._ways = {DEWEY_TAIL: waits, DEWEY_CLEAR: clears}
        self._timeout_s = timeout_s
        self._shares = Shares(PLACES, EACH)

    async def store(self, entries: Sequence[bytes]) -> None:
        """See `Dewey.store`."""
        await self._store(entries)

    async def ask(self, tool: str, arguments: Mapping[str, Any], *, wait_s: float = 0.0) -> Answer:
        """See `Dewey.ask`."""
        if tool in self._ways:
            return await self._ask(self._ways[tool], tool, arguments, self._timeout_s + wait_s)
        who = caller.get()
        try:
            with trio.fail_after(TURN_S):
                await self._shares.take(who)
        except trio.TooSlowError as exc:
            raise DeweyUnavailable(
                f"Dewey: busy with other questions ({PLACES} at once, {EACH} of one caller), and no turn for {tool} "
                f"within {TURN_S:g} s; ask again later"
            ) from exc
        try:
            return await self._ask(self._questions, tool, arguments, self._timeout_s + wait_s)
        finally:
            self._shares.give_back(who)

    async def _ask(self, client: Client, tool: str, arguments: Mapping[str, Any], timeout_s: float) -> Answer:
        raw = await off_the_loop(message_weight.get(), dumps, arguments)
        try:
            return await _call(client, tool, raw, timeout_s)
        except trio.TooSlowError as exc:
            client.check()
            raise _unanswered(tool, timeout_s) from exc


class DirectDewey:
    """The twin of `RemoteDewey`: the same tools, called with nothing between.

    :param toolbox: Dewey's tools, over whichever store.
    """

    def __init__(self, toolbox: Toolbox) -> None:
        self._toolbox = toolbox
        self.up = True
        """False: every call raises `DeweyUnavailable`."""

    async def store(self, entries: Sequence[bytes]) -> None:
        """See `Dewey.store`."""
        _check_stored(await self.ask(DEWEY_STORE, {"logs": [loads(raw) for raw in entries]}))

    async def ask(self, tool: str, arguments: Mapping[str, Any], *, wait_s: float = 0.0) -> Answer:  # noqa: ARG002
        """See `Dewey.ask`."""
        await trio.lowlevel.checkpoint()
        if not self.up:
            raise DeweyUnavailable("Dewey: down")
        return await self._toolbox.find(tool).call(dict(arguments))


async def _call(client: Client, tool: str, arguments: bytes, timeout_s: float) -> Answer:
    try:
        with trio.fail_after(timeout_s):
            return await client.call(tool, arguments)
    except (CallFailed, CallRefused) as exc:
        raise DeweyFailed(f"Dewey: {exc}") from exc


def _unanswered(tool: str, timeout_s: float) -> DeweyFailed:
    return DeweyFailed(f"Dewey: no answer to {tool} within {timeout_s:g} s")


def _parts(entries: Sequence[bytes]) -> Iterator[tuple[int, Sequence[bytes]]]:
    """Cut a batch into parts that fit into a message (`MAX_VALUES`), each with the index of its first entry."""
    first, values = 0, 0
    for index, entry in enumerate(entries):
        more = separators(entry)
        if index > first and values + more > MAX_VALUES:
            yield first, entries[first:index]
            first, values = index, 0
        values += more
    yield first, entries[first:]


def _check_stored(answer: Answer, first: int = 0) -> None:
    """Raise what an answer means.

    :param first: the index in the batch of the first entry that was sent.
    """
    if not answer.is_error:
        return
    match answer.value:
        case {"kind": "refused", "faults": [*faults]}:
            raise BatchRefused([(first + fault["index"], fault["error"]) for fault in faults])
        case {"kind": "unavailable" | "busy"}:
            raise DeweyUnavailable(f"Dewey: {answer.json}")
    raise DeweyFailed(f"Dewey: {answer.json}")
