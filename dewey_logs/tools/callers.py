"""Where a call came from, and what its caller says of itself, for the notes that are kept."""

from __future__ import annotations

from typing import Final

from dewey_logs.filters import storable
from godot.errors import EntryRejected
from godot.json.structure import argument
from godot.mcp.toolbox import INSIDE, caller

MAX_BY_CHARS: Final = 255

BY: Final = argument(
    f"Who asks, in at most {MAX_BY_CHARS} characters, for the note that is kept. Where the call came from is kept too.",
    default=None,
)
FOR_PEER: Final = argument(
    "Where the call came from, when it is passed on: Godot sets it, always. Leave it out.", default=None
)


def where_from(for_peer: str | None) -> str:
    """Return where a call came from.

    A program that passed it on is named too, unless it is the Godot around this Dewey.
    """
    here = caller.get()
    if for_peer is None:
        return here
    peer = _short("for_peer", for_peer)
    return peer if here == INSIDE else f"{peer} by way of {here}"


def given_name(by: str | None) -> str | None:
    """Return what a caller says of itself.

    :raises EntryRejected: it is too long, or cannot be stored.
    """
    return None if by is None else _short("by", by)


def _short(name: str, text: str) -> str:
    if len(text) > MAX_BY_CHARS:
        raise EntryRejected(f"{name}: at most {MAX_BY_CHARS} characters, not {len(text):,}")
    return storable(name, text)
