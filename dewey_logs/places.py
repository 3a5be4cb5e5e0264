"""Places in the two orders of entries, and the cursors that name them to a client.

Paging is by keyset: a cursor holds the place of the last entry shown, and the next page begins strictly behind it.
Entries that arrive meanwhile shift nothing. Pure: no driver.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from typing import Final

import attrs

from dewey_logs.filters import bounded, identifier, moment
from godot.errors import EntryRejected
from godot.json.structure import shown

MAX_CURSOR_CHARS: Final = 200

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@attrs.frozen(order=True)
class Cursor:
    """The place of an entry in the order in which entries are read."""

    created_at: str
    id: str

    def encode(self) -> str:
        """Return the text that a client passes back. Its content is ours to change."""
        return urlsafe_b64encode(f"{self.created_at} {self.id}".encode()).decode()

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """Read it back.

        :raises EntryRejected: it is not one of our cursors.
        """
        try:
            bounded("cursor", text, MAX_CURSOR_CHARS)
            created_at, entry_id = urlsafe_b64decode(text.encode()).decode().split(" ")
            return cls(moment("cursor", created_at, _EPOCH), identifier("cursor", entry_id))
        except (binascii.Error, ValueError, EntryRejected):
            raise EntryRejected(f"cursor: must be the next_cursor of an earlier answer, not {shown(text)}") from None


@attrs.frozen(order=True)
class Place:
    """The place of an entry in the order in which entries were stored.

    A place without time and id stands before all entries of its insert.

    :param stored_in: the number of the insert that stored the entry. Numbers grow.
    """

    stored_in: int
    created_at: str = ""
    id: str = ""

    def encode(self, identity: str) -> str:
        """Return the text that a client passes back.

        :param identity: of the database, since numbers mean nothing in another one.
        """
        return urlsafe_b64encode(f"tail {identity} {self.stored_in} {self.created_at} {self.id}".encode()).decode()

    @classmethod
    def decode(cls, text: str, identity: str, end: int) -> Place:
        """Read it back.

        :param end: the largest number that a place can have by now.
        :raises EntryRejected: it is not one of our cursors, or is of another database, or of a time that the database
            has not reached.
        """
        try:
            bounded("cursor", text, MAX_CURSOR_CHARS)
            kind, of, stored_in, created_at, entry_id = urlsafe_b64decode(text.encode()).decode().split(" ")
            place = cls(
                int(stored_in),
                created_at and moment("cursor", created_at, _EPOCH),
                entry_id and identifier("cursor", entry_id),
            )
            if kind != "tail" or not 0 <= place.stored_in < 2**63 or bool(place.created_at) is not bool(place.id):
                raise ValueError(kind)
        except (binascii.Error, ValueError, EntryRejected):
            raise EntryRejected(
                f"cursor: must be the cursor of an earlier answer of this tool, not {shown(text)}"
            ) from None
        # Cursors from before schema/0008 name only the server.
        if of not in (identity, identity.partition(".")[0]) or place.stored_in > end:
            raise EntryRejected(
                "cursor: is of another database than this one, or from before this one was restored or taken over by a "
                "standby; begin again without it"
            )
        return place
