"""A batch on its way into the store. Each entry has been checked, and is serialised once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

import attrs

from godot.entries.entry import Entry, of_entry
from godot.entries.wire import created_at_of, encode_entries, encode_entry, id_of
from godot.errors import BatchRefused, EntryRejected

T = TypeVar("T")
R = TypeVar("R")


@attrs.frozen
class Batch:
    """Entries that are to be stored, all of them or none.

    :param ids: of each entry.
    :param times: `created_at` of each.
    :param json: all of them as a JSON array.
    :param single: returns the JSON of one entry, by its index.
    :param warnings: what was changed in which entry, as `entry <index>: …`.
    """

    ids: Sequence[str]
    times: Sequence[str]
    json: bytes
    single: Callable[[int], bytes]
    warnings: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def json_of(self, indices: Collection[int]) -> bytes:
        """Return some of them, in their order, as a JSON array."""
        if len(indices) == len(self):
            return self.json
        return _array([self.single(index) for index in indices])

    @classmethod
    def of_serialised(cls, entries: Sequence[bytes]) -> Batch:
        """Make it of entries that `encode_entry` serialised. Nothing is looked at again."""
        return cls(
            ids=[id_of(raw) for raw in entries],
            times=[created_at_of(raw) for raw in entries],
            json=_array(entries),
            single=entries.__getitem__,
        )

    @classmethod
    def of_entries(cls, entries: Sequence[Entry]) -> Batch:
        """Make it of entries that have been checked, in one go where they are plain.

        :raises BatchRefused: some entries cannot be written as JSON.
        """
        ids = [entry.id for entry in entries]
        times = [entry.created_at for entry in entries]
        json = encode_entries(entries)
        if json is not None:
            return cls(ids, times, json, lambda index: encode_entry(entries[index], []))
        encoded, warnings = for_each(entries, encode_entry)
        return cls(ids, times, _array(encoded), encoded.__getitem__, warnings)


def for_each(values: Iterable[T], work: Callable[[T, list[str]], R]) -> tuple[list[R], list[str]]:
    """Do some work on every entry of a batch, so that one answer names all that are at fault.

    :param work: gets an entry, and a list to which it adds warnings; it raises `EntryRejected`.
    :returns: the results, and the warnings, as `entry <index>: …`.
    :raises BatchRefused: naming each entry that was rejected.
    """
    results: list[R] = []
    warnings: list[str] = []
    faults: list[tuple[int, str]] = []
    for index, value in enumerate(values):
        own: list[str] = []
        try:
            results.append(work(value, own))
        except EntryRejected as exc:
            faults.append((index, str(exc)))
        warnings += [of_entry(index, warning) for warning in own]
    if faults:
        raise BatchRefused(faults)
    return results, warnings


def _array(entries: Sequence[bytes]) -> bytes:
    return b"[%b]" % b",".join(entries)
