"""Every error of Godot and Dewey, by whose fault it is.

    GodotError
    ├── ConfigError           the operator's: the start ends, exit code 2
    ├── EntryRejected         the client's: carries what to answer
    │   └── ChannelFull         nobody's: the client has to send it again later
    ├── BatchRefused          the batch's: names the entries at fault by index
    ├── NotInFlight           nobody's: the sender slept, another has its batch; it takes anew
    └── Unavailable           the world's: retried with backoff, never a reason to drop an entry
        ├── BufferUnavailable   Redis
        ├── DeweyUnavailable    Dewey, or the way to it
        │   └── DeweyFailed       the same, perhaps because of what it was asked to store
        └── StoreUnavailable    PostgreSQL
            ├── StoreBusy         the same, because others hold what the call needs
            └── StoreFailed       the same, perhaps because of what it was asked to do

Any other exception is a bug, and stays a plain exception.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from godot.mcp.errors import ToolError


class GodotError(ToolError):
    """The root; never raised itself."""


class ConfigError(GodotError):
    """A setting, a file or a server that the operator has to put right.

    :param problems: one line each: what, where, what to do.
    :param warnings: the same, for what would not have prevented the start.
    """

    def __init__(self, *problems: str, warnings: Sequence[str] = ()) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.warnings = warnings


class EntryRejected(GodotError):
    """An entry or an argument that does not follow the rules; the text is the answer to its sender."""


class ChannelFull(EntryRejected):
    """There was no room for an entry in all the time that a client is made to wait."""


class BatchRefused(GodotError):
    """A store refused a batch for its content and stored nothing of it (DEW-003, DEW-004).

    :param faults: (index in the batch, what is wrong with that entry), at least one.
    """

    kind: ClassVar[str] = "refused"

    def __init__(self, faults: Sequence[tuple[int, str]]) -> None:
        shown = "; ".join(f"entry {index}: {fault}" for index, fault in faults[:5])
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        super().__init__(f"{shown}{more}")
        self.faults = tuple(faults)

    def details(self) -> Mapping[str, Any]:
        """Name each entry at fault."""
        return {"faults": [{"index": index, "error": fault} for index, fault in self.faults]}


class NotInFlight(GodotError):
    """The batch of a sender belongs to another one by now; the first must neither send nor settle it."""


class Unavailable(GodotError):
    """Something outside of this process does not answer; trying again later is right."""

    kind: ClassVar[str] = "unavailable"


class BufferUnavailable(Unavailable):
    """Redis does not answer, or refuses to write."""


class DeweyUnavailable(Unavailable):
    """Dewey cannot be reached, does not answer in time, or says that its database is away."""


class DeweyFailed(DeweyUnavailable):
    """Dewey gave no answer, or one that says neither what is away nor which entry is at fault.

    It may be away, or it may fail on something that it was asked to store.
    """


class StoreUnavailable(Unavailable):
    """PostgreSQL does not answer, or cannot write now."""


class StoreBusy(StoreUnavailable):
    """PostgreSQL answered that somebody else holds a lock that the call needs. It is up."""

    kind: ClassVar[str] = "busy"


class StoreFailed(StoreUnavailable):
    """PostgreSQL broke off one call: it took too long, or needed too much. It is up, as far as is known.

    The reason may be the call itself, or a busy database; one such failure does not tell which.
    """

    kind: ClassVar[str] = "failed"


def why_unreadable(exc: OSError | UnicodeDecodeError) -> str:
    """Say why a text file cannot be read; its name is not repeated."""
    return (exc.strerror or str(exc)) if isinstance(exc, OSError) else "it is no text in UTF-8"
