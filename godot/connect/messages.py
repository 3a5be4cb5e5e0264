"""Reads which answers a JSON-RPC message asks for, and which it gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from godot.json.text import NotJSON, dumps, loads
from godot.mcp.jsonrpc import RequestId

Id: TypeAlias = RequestId | None
"""Of a request; None stands for a message that is answered with an error of id null."""


def parse(text: str) -> Any:
    """Return what a message says, None when it is no JSON."""
    try:
        return loads(text)
    except NotJSON:
        return None


def is_id(value: object) -> bool:
    """Whether a request may have this id; True is not one, although it is an int in Python."""
    return type(value) is int or type(value) is str


def asked(message: Any) -> tuple[Id, ...]:
    """Return the ids under which a message is answered: none if it is not, (None,) if it is not understood."""
    parts = message if isinstance(message, list) else [message]
    ids: list[Id] = []
    silent = bool(parts)
    for part in parts:
        match part:
            case {"jsonrpc": "2.0", "method": str(), "id": request_id} if is_id(request_id):
                ids.append(request_id)
            case {"jsonrpc": "2.0", "method": str(), **rest} if "id" not in rest:
                pass
            case {"result": _, **rest} | {"error": _, **rest} if "method" not in rest:
                pass
            case _:
                silent = False
    return tuple(ids) if ids or silent else (None,)


def answered(message: Any) -> Iterator[tuple[Id, bool]]:
    """Yield the id of each answer, and whether it is a result."""
    for part in message if isinstance(message, list) else [message]:
        match part:
            case {"id": request_id, **rest} if "method" not in rest and is_id(request_id):
                yield request_id, "result" in rest
            case {"id": None, "error": _}:
                yield None, False


def failure(ids: Sequence[Id], code: int, text: str, *, batch: bool = False) -> str:
    """Make the error that answers a request, or one array of errors for a batch."""
    errors = [{"jsonrpc": "2.0", "id": each, "error": {"code": code, "message": text}} for each in ids]
    return dumps(errors if batch else errors[0]).decode()
