"""The state of a conversation, which outlives its connections: what waits, what is in flight, how it was opened."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import attrs

from godot.connect.messages import Id, answered, asked, failure, is_id, parse

MAX_WAITING: Final = 1_000
MAX_WAITING_CHARACTERS: Final = 1024 * 1024
"""Beyond either, stdin is left unread. The line that goes beyond is kept."""

MAX_IN_FLIGHT: Final = 10_000
"""Requests that are remembered until they are answered; Godot itself takes fewer at once. Beyond, the oldest is
forgotten: some are never answered, such as a batch in a version without batches."""

PATIENCE_S: Final = 10.0
"""How long a request waits for a connection."""

CONNECTION_LOST: Final = 1001
NOT_CONNECTED: Final = 1002
"""Our error codes, outside of what JSON-RPC and MCP reserve."""


@attrs.define(eq=False)
class _Line:
    """A message of the host.

    :param ids: of the requests in it that have to be answered.
    :param answered: the host has its answer; a later one is withheld.
    """

    text: str
    arrived: float
    ids: tuple[Id, ...]
    batch: bool
    answered: bool = False


class Conversation:
    """A conversation of the host with Godot, over one connection after the other.

    The opening of a legacy session (`initialize`, `notifications/initialized`) is kept, and repeated on each new
    connection: `greet` returns it. A connection counts as connected once the opening has been answered.

    :param where: the URL, for the errors.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self.trouble = "there was no connection yet"
        """Why there is no connection."""
        self._connected = False
        self._alone_since = -math.inf
        self._waiting: deque[_Line] = deque()
        self._waiting_characters = 0
        self._in_flight: dict[Id, _Line] = {}
        self._hello: _Line | None = None
        self._greeted: _Line | None = None
        self._initialized: _Line | None = None

    @property
    def has_room(self) -> bool:
        """Whether another line can be taken."""
        return len(self._waiting) < MAX_WAITING and self._waiting_characters < MAX_WAITING_CHARACTERS

    @property
    def busy(self) -> bool:
        """Whether an answer is owed."""
        return bool(self._in_flight or self._waiting) or self._unanswered_hello is not None

    @property
    def patience_ends(self) -> float:
        """When `expire` has something to do next; infinite when nothing waits for a connection."""
        if self._connected:
            return math.inf
        return min((self._expires(line) for line in self._asking()), default=math.inf)

    def take(self, text: str, now: float) -> None:
        """Take in a line of the host."""
        message = parse(text)
        line = _Line(text, now, ids := asked(message), batch=isinstance(message, list) and ids != (None,))
        match message:
            case {"method": "notifications/cancelled", "params": {"requestId": request_id}}:
                if self._cancel(request_id):
                    return
            case {"method": "notifications/initialized"}:
                self._initialized = line
            case {"method": "initialize"} if ids:
                before, self._hello, self._initialized = self._unanswered_hello, line, None
                if not self._connected:  # `greet` sends it; an older one, not sent yet, goes behind
                    if before is not None and before is not self._greeted:
                        self._push(before)
                    return
        if self._connected or ids:
            self._push(line)

    def greet(self) -> str | None:
        """Return what a new connection begins with, None when it is ready.

        Call it again when `greeting` has become false.
        """
        if self._hello is not None and self._hello is not self._greeted:
            self._greeted = self._hello
            self._sent(self._hello)
            return self._hello.text
        self._connected = True
        if self._hello is not None and self._initialized is not None:
            self._keep_waiting([self._initialized, *self._waiting])
        return None

    @property
    def greeting(self) -> bool:
        """Whether the answer to what `greet` returned is still to come."""
        return self._greeted is not None and self._greeted in self._in_flight.values()

    def next_line(self) -> str | None:
        """Return what to send next; its requests are in flight from now on."""
        if not self._waiting:
            return None
        line = self._waiting.popleft()
        self._waiting_characters -= len(line.text)
        self._sent(line)
        text = line.text
        if line.ids and line is not self._hello:
            line.text = ""  # it is never sent again, and a thousand in flight may be large
        return text

    def receive(self, text: str) -> bool:
        """Take in a frame of Godot; return whether the host is to see it."""
        for request_id, succeeded in answered(parse(text)):
            line = self._in_flight.pop(request_id, None)
            if line is None:
                continue
            if line.answered:
                return False
            if line is self._hello:
                line.answered = True
                if not succeeded:
                    self._hello = self._initialized = None
        return True

    def lost(self, now: float, trouble: str) -> list[str]:
        """Note that the connection is gone; return what to answer to the requests in flight."""
        self.trouble = trouble
        self._connected = False
        self._alone_since = now
        self._greeted = None
        self._keep_waiting(line for line in self._waiting if line.ids and line is not self._hello)
        return self._give_up_in_flight(
            f"the connection to Godot at {self._where} was lost before the answer came ({trouble}), so what was asked "
            "may or may not have been done; godot connect is connecting again: ask again if doing it twice does no harm"
        )

    def expire(self, now: float) -> list[str]:
        """Return what to answer to the requests that have waited for a connection long enough."""
        if self._connected:
            return []
        return self._give_up_waiting(
            [line for line in self._asking() if self._expires(line) <= now],
            f"cannot reach Godot at {self._where} ({self.trouble}), so nothing was done; start Godot with `godot up`, "
            "or tell godot connect where it is (its argument, or GODOT_URL)",
        )

    def end(self, why: str) -> list[str]:
        """Return what to answer to everything that is still open, because nothing will be sent any more."""
        answers = self._give_up_in_flight(f"no answer came from Godot at {self._where}: {why}")
        return answers + self._give_up_waiting(list(self._asking()), f"nothing was done: {why}")

    @property
    def _unanswered_hello(self) -> _Line | None:
        return self._hello if self._hello is not None and not self._hello.answered else None

    def _asking(self) -> Iterator[_Line]:
        """Yield the requests that wait for a connection."""
        if (hello := self._unanswered_hello) is not None:
            yield hello
        for line in self._waiting:
            if line.ids and line is not hello:
                yield line

    def _expires(self, line: _Line) -> float:
        return max(line.arrived, self._alone_since) + PATIENCE_S

    def _sent(self, line: _Line) -> None:
        for request_id in line.ids:
            self._in_flight[request_id] = line
        while len(self._in_flight) > MAX_IN_FLIGHT:
            del self._in_flight[next(iter(self._in_flight))]

    def _cancel(self, request_id: Any) -> bool:
        """Expect no answer to a request any more; return whether Godot need not hear of it."""
        if not is_id(request_id):
            return False
        if self._in_flight.get(request_id) is not self._greeted:
            self._in_flight.pop(request_id, None)
        before = len(self._waiting)
        self._keep_waiting(line for line in self._waiting if line.ids != (request_id,) or line is self._hello)
        return len(self._waiting) < before

    def _push(self, line: _Line) -> None:
        self._waiting.append(line)
        self._waiting_characters += len(line.text)

    def _keep_waiting(self, lines: Iterable[_Line]) -> None:
        self._waiting = deque(lines)
        self._waiting_characters = sum(len(line.text) for line in self._waiting)

    def _give_up_waiting(self, lines: Sequence[_Line], text: str) -> list[str]:
        if self._hello in lines:
            self._hello = self._initialized = None
        given_up = set(lines)
        self._keep_waiting(line for line in self._waiting if line not in given_up)
        for line in lines:
            line.answered = True  # a greeting may be on its way: its answer comes too late
        return [failure(line.ids, NOT_CONNECTED, text, batch=line.batch) for line in lines]

    def _give_up_in_flight(self, text: str) -> list[str]:
        in_flight, self._in_flight = self._in_flight, {}
        open_ids: dict[_Line, list[Id]] = {}
        for request_id, line in in_flight.items():
            if not line.answered and line is not self._hello:  # the opening is sent again
                open_ids.setdefault(line, []).append(request_id)
        return [failure(ids, CONNECTION_LOST, text, batch=line.batch) for line, ids in open_ids.items()]
