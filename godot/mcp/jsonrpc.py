"""JSON-RPC 2.0: how a frame is read, how answers and errors are written, what a batch is. Pure."""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

import attrs

from godot.json.text import NotJSON, TooManyValues, dumps, loads, loads_as_said

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603

BATCH_ANSWER_MAX_BYTES: Final = 8 * 1024 * 1024
"""Size of all answers of a batch, which are one frame; further answers become errors."""

_ID_FIRST: Final = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(-?\d{1,18}|"[^"\\]{0,100}")\s*,')
_ID_LAST: Final = re.compile(rb',\s*"id"\s*:\s*(-?\d{1,18}|"[^"\\]{0,100}")\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')
"""The two places where clients write the id of a request; used on a frame that is not parsed."""

RequestId: TypeAlias = int | str


class RequestError(Exception):
    """A request is answered with an error instead of a result."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message} | ({} if data is None else {"data": data})


@attrs.frozen
class Parsed:
    """The message in a frame, or the frame that answers one without a message."""

    message: Any = None
    fault: str | None = None


def parse(frame: str | bytes) -> Parsed:
    """Read a frame. The time grows with the frame, and a thread may do it: no state is touched."""
    try:
        return Parsed(loads_as_said(frame))
    except TooManyValues as exc:
        return Parsed(fault=to_frame(failure(_id_of(frame), INVALID_REQUEST, f"Invalid Request: {exc}")))
    except NotJSON as exc:
        return Parsed(fault=to_frame(failure(None, PARSE_ERROR, f"Parse error: {exc}")))


def _id_of(frame: str | bytes) -> RequestId | None:
    """Return the id of a request that is not parsed, if it is at the beginning or at the end."""
    head, tail = (
        each.encode("utf-8", "replace") if isinstance(each, str) else each for each in (frame[:200], frame[-200:])
    )
    found = _ID_FIRST.match(head) or _ID_LAST.search(tail)
    if found is None:
        return None
    request_id: RequestId = loads(found[1])
    return request_id


def success(request_id: RequestId, result: dict[str, Any]) -> dict[str, Any]:
    """Make the answer of a request that has a result."""
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def failure(request_id: RequestId | None, code: int, message: str) -> dict[str, Any]:
    """Make the answer of a request that failed.

    :param request_id: None when the id could not be read.
    """
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}


def to_frame(message: object) -> str:
    """Serialise a message."""
    return dumps(message).decode()


@attrs.define(eq=False)
class Batch:
    """A batch: its answers go out as one array, as soon as the last one is there.

    :param open: calls in it that are not answered yet.
    :param chars: length of the answers.
    """

    open: int = 0
    answers: list[str] = attrs.Factory(list)
    chars: int = 0

    def add(self, response: dict[str, Any]) -> None:
        """Add an answer; one for which there is no more room becomes an error."""
        text = to_frame(response)
        if self.chars + len(text) > BATCH_ANSWER_MAX_BYTES:
            reason = f"the answers of one batch may have {BATCH_ANSWER_MAX_BYTES:,} bytes; ask for this one alone"
            text = to_frame(failure(response["id"], INVALID_REQUEST, reason))
        self.answers.append(text)
        self.chars += len(text)

    def frame(self) -> str | None:
        """Return the frame with all answers; None while some are missing, or when nothing in it asked for one."""
        return None if self.open or not self.answers else f"[{','.join(self.answers)}]"
