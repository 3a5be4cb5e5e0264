"""What Godot asks of Dewey, over MCP.

Dewey may be another process (a WebSocket) or run inside this one (memory channels): the same client,
the same tools, the same frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import trio

from godot import codec
from godot.errors import BatchRefused, DeweyFailed, DeweyUnavailable
from godot.mcp.client import CallFailed, CallRefused, Client
from godot.mcp.tools import Answer, Toolbox

STORE: Final = "dewey_store_logs_batch"
QUERY: Final = "dewey_query_logs"
TAIL: Final = "dewey_tail_logs"
STATS: Final = "dewey_get_log_stats"
CLEAR: Final = "dewey_clear_logs"
PIN: Final = "dewey_pin_trace"
SET_LEVEL: Final = "dewey_set_log_level"
GET_LEVELS: Final = "dewey_get_log_levels"
MAINTAIN: Final = "dewey_maintain_partitions"


class Dewey(Protocol):
    """What Godot asks of Dewey."""

    async def store(self, entries: Sequence[bytes]) -> None:
        """Store a batch of serialised entries, all or none of it; those stored before are not stored twice.

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


class RemoteDewey:
    """Dewey behind MCP clients.

    :param stores: carries what is to be stored, and nothing else: a slow query must not delay it.
    :param questions: carries everything else,
    :param waits: except for calls that wait, of which there may be many.
    :param timeout_s: how long a call may take. A connection that gave no answer in that time is
        dropped: a network that swallows everything looks like this.
    """

    def __init__(self, stores: Client, questions: Client, waits: Client, *, timeout_s: float) -> None:
        self._stores, self._questions, self._waits = stores, questions, waits
        self._timeout_s = timeout_s

    async def store(self, entries: Sequence[bytes]) -> None:
        """See `Dewey.store`."""
        _check_stored(await self._call(self._stores, STORE, b'{"logs":[%b]}' % b",".join(entries)))

    async def ask(self, tool: str, arguments: Mapping[str, Any], *, wait_s: float = 0.0) -> Answer:
        """See `Dewey.ask`."""
        client = self._waits if wait_s else self._questions
        return await self._call(client, tool, codec.dumps(arguments), wait_s)

    async def _call(self, client: Client, tool: str, arguments: bytes, wait_s: float = 0.0) -> Answer:
        try:
            with trio.fail_after(self._timeout_s + wait_s):
                return await client.call(tool, arguments)
        except (CallFailed, CallRefused) as exc:
            raise DeweyFailed(f"Dewey: {exc}") from exc
        except trio.TooSlowError as exc:
            client.disconnect()
            raise DeweyFailed(f"Dewey: no answer to {tool} within {self._timeout_s + wait_s:g} s") from exc


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
        _check_stored(await self.ask(STORE, {"logs": [codec.loads(raw) for raw in entries]}))

    async def ask(self, tool: str, arguments: Mapping[str, Any], *, wait_s: float = 0.0) -> Answer:  # noqa: ARG002
        """See `Dewey.ask`."""
        await trio.lowlevel.checkpoint()
        if not self.up:
            raise DeweyUnavailable("Dewey: down")
        return await self._toolbox.find(tool).call(dict(arguments))


def _check_stored(answer: Answer) -> None:
    if not answer.is_error:
        return
    match answer.value:
        case {"kind": "refused", "faults": [*faults]}:
            raise BatchRefused([(fault["index"], fault["error"]) for fault in faults])
        case {"kind": "unavailable" | "busy"}:
            raise DeweyUnavailable(f"Dewey: {answer.json}")
    raise DeweyFailed(f"Dewey: {answer.json}")
