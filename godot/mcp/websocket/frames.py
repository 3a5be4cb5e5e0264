"""Finds where messages begin and end in the bytes of a WebSocket client: a state machine with no socket in sight.

It neither decodes nor checks messages; trio-websocket does. Its purpose is to know the size of a message before the
message is read (RFC 6455, 5.2). Bytes that are not WebSocket have no meaning here; trio-websocket refuses them.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

import attrs

_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
"""Ends the upgrade request, by the rule of h11."""

_HTTP: Final = re.compile(rb"[A-Z]+ [^\r\n]+ HTTP/1\.[01]\r?\n")
_UPGRADE: Final = re.compile(rb"\nupgrade:[^\n]*websocket", re.IGNORECASE)

_CONTROL: Final = 0x8
_FIN: Final = 0x80


def ends_request(seen: bytes, before: int) -> bool:
    """Whether a request is complete.

    :param before: so many bytes of it have been searched already.
    """
    return _BLANK_LINE.search(seen, max(0, before - 2)) is not None


def is_plain_http(request: bytes) -> bool:
    """Whether a request is HTTP and does not ask for a WebSocket."""
    return _HTTP.match(request) is not None and ends_request(request, 0) and _UPGRADE.search(request) is None


@attrs.frozen
class Begin:
    """A message begins.

    :param size: of its first frame.
    :param is_whole: this frame is the whole message.
    """

    size: int
    is_whole: bool


@attrs.frozen
class Part:
    """Another frame of a message begins."""

    size: int


@attrs.frozen
class End:
    """A message is complete."""


@attrs.frozen
class Control:
    """A frame that belongs to no message begins: a ping, a pong, or the end of the connection."""


Event: TypeAlias = Begin | Part | End | Control


class FrameScanner:
    """Follows what one client sends, from its upgrade request on."""

    def __init__(self) -> None:
        self._is_upgraded = False
        self._tail = b""
        """A possible beginning of a blank line or of a frame's header."""
        self._left = 0
        self._is_open = False
        """A message has begun and not ended."""
        self._is_last = False
        """The frame under way ends its message."""

    @property
    def is_open(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._is_open

    @property
    def is_ending(self) -> bool:
        """Whether a message is complete, and its end is the next event."""
        return self._is_open and self._is_last and not self._left

    def scan(self, data: bytes, start: int) -> tuple[int, Event | None]:
        """Read on to the next event; return the offset behind it, or the end of `data` when there is none."""
        if not self._is_upgraded:
            start = self._skip_request(data, start)
        while True:
            if self._left:
                step = min(self._left, len(data) - start)
                self._left -= step
                start += step
            if self._left:
                return start, None
            if self.is_ending:
                self._is_open = self._is_last = False
                return start, End()
            if start == len(data):
                return start, None
            start, event = self._read_header(data, start)
            if event is not None:
                return start, event

    def _skip_request(self, data: bytes, start: int) -> int:
        seen = self._tail + data[start:]
        if (blank := _BLANK_LINE.search(seen)) is None:
            self._tail = seen[-2:]
            return len(data)
        self._is_upgraded = True
        end = start + blank.end() - len(self._tail)
        self._tail = b""
        return end

    def _read_header(self, data: bytes, start: int) -> tuple[int, Event | None]:
        head = self._tail + data[start : start + 14]
        wanted = 2 if len(head) < 2 else _header_size(head[1])
        if len(head) < wanted:
            self._tail = head
            return len(data), None
        start += wanted - len(self._tail)
        self._tail = b""
        size = head[1] & 0x7F
        if size > 125:
            size = int.from_bytes(head[2 : 4 if size == 126 else 10], "big")
        self._left = size
        if head[0] & _CONTROL:
            return start, Control()
        self._is_last = bool(head[0] & _FIN)
        if self._is_open:
            return start, Part(size)
        self._is_open = True
        return start, Begin(size, self._is_last)


def _header_size(second: int) -> int:
    """Return how long a frame's header is: two bytes, the extended length, the mask."""
    length = {126: 2, 127: 8}.get(second & 0x7F, 0)
    return 2 + length + (4 if second & 0x80 else 0)
