"""What was sent, what was acknowledged, and in which order; and the comparison with what is stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Final

import attrs
import psycopg

CHUNK: Final = 10_000
NAMED: Final = 10
"""How many ids of each fault are named."""


@attrs.frozen
class Verdict:
    """What became of the entries; each list holds ids, and all but `stored` should be nothing.

    :param lost: acknowledged, and not stored, nor put aside as may be.
    :param doubled: stored in more than one row.
    :param mixed_up: stored with the content of another.
    :param invented: stored, and never sent.
    :param unanswered: sent, and never acknowledged.
    :param out_of_order: stored before what the same connection had sent before it.
    :param put_aside: in the list of dead entries, although nothing is wrong with them.
    :param buried: those there that were only offered: something may be wrong with them.
    """

    stored: int
    lost: Sequence[str]
    doubled: Sequence[str]
    mixed_up: Sequence[str]
    invented: Sequence[str]
    unanswered: Sequence[str]
    out_of_order: Sequence[str]
    put_aside: Sequence[str]
    buried: Sequence[str]
    in_order: int
    """Entries whose order was compared."""

    def problems(self) -> Iterator[str]:
        """Yield a line for each thing that is not as it should be."""
        for name in ("lost", "doubled", "mixed_up", "invented", "unanswered", "out_of_order", "put_aside"):
            if ids := getattr(self, name):
                yield f"{name}: {len(ids)} ({', '.join(ids[:NAMED])})"


@attrs.define(eq=False)
class Ledger:
    """The books of all clients."""

    acknowledged: dict[str, bool] = attrs.Factory(dict)
    """By id: what was sent, and whether it was acknowledged."""
    calls: int = 0
    """Calls that were acknowledged."""
    tries: int = 0
    """Calls that were sent, again ones included."""
    _orders: dict[str, list[list[str]]] = attrs.Factory(lambda: defaultdict(list))
    _ties: set[str] = attrs.Factory(set)
    _again: set[str] = attrs.Factory(set)
    _offered: set[str] = attrs.Factory(set)

    @property
    def entries(self) -> int:
        """Entries that were acknowledged."""
        return sum(self.acknowledged.values())

    def send(self, ids: Sequence[str]) -> None:
        """Note that entries are sent, perhaps again."""
        self.tries += 1
        for entry_id in ids:
            self.acknowledged.setdefault(entry_id, False)

    def offer(self, entry_id: str) -> None:
        """Note that an entry is sent by somebody who does not insist on it."""
        self.tries += 1
        self._offered.add(entry_id)

    def acknowledge(self, ids: Sequence[str]) -> None:
        """Note that entries have been acknowledged as durable."""
        self.calls += 1
        for entry_id in ids:
            self.acknowledged[entry_id] = True

    def send_again(self, ids: Sequence[str]) -> None:
        """Note that entries are sent again: their place among the others of their connection is open now."""
        self._again.update(ids)

    def new_order(self, component: str, *, ties: bool) -> list[str]:
        """Return the list for the ids of one connection, to be filled in the order in which they are sent.

        :param ties: the order of entries of the same microsecond cannot be told: their ids are random.
        """
        if ties:
            self._ties.add(component)
        order: list[str] = []
        self._orders[component].append(order)
        return order

    def compare(self, database: str, dead: Sequence[str] = ()) -> Verdict:
        """Read everything that is stored, and compare. Blocks for some seconds.

        :param dead: the ids of entries that could not be stored.
        """
        buried = self._offered.intersection(dead)
        seen: set[str] = set()
        doubled, mixed_up, invented = [], [], []
        with psycopg.connect(database, connect_timeout=10) as connection:
            for entry_id, intact in _rows(connection, "SELECT id::text, starts_with(message, id::text) FROM logs"):
                if entry_id in seen:
                    doubled.append(entry_id)
                if not intact:
                    mixed_up.append(entry_id)
                if entry_id not in self.acknowledged and entry_id not in self._offered:
                    invented.append(entry_id)
                seen.add(entry_id)
            out_of_order = [entry_id for each in self._orders for entry_id in self._disordered(connection, each)]
        found = seen | buried
        return Verdict(
            stored=len(seen),
            lost=[entry_id for entry_id, sure in self.acknowledged.items() if sure and entry_id not in found],
            doubled=doubled,
            mixed_up=mixed_up,
            invented=invented,
            unanswered=[entry_id for entry_id, sure in self.acknowledged.items() if not sure],
            out_of_order=out_of_order,
            put_aside=sorted(set(dead) - buried),
            buried=sorted(buried),
            in_order=sum(len(order) for orders in self._orders.values() for order in orders) - len(self._again),
        )

    def _disordered(self, connection: psycopg.Connection[Any], component: str) -> Iterator[str]:
        statement = "SELECT id::text, created_at FROM logs WHERE component = %s ORDER BY created_at, id"
        places: dict[str, int] = {}
        before = None
        for entry_id, created_at in _rows(connection, statement, component):
            tied = component in self._ties and created_at == before
            places[entry_id] = places[next(reversed(places))] if tied else len(places)
            before = created_at
        for order in self._orders[component]:
            latest = -1
            for entry_id in order:
                if entry_id in self._again:
                    continue
                place = places.get(entry_id, latest)  # what is lost is told elsewhere
                if place < latest:
                    yield entry_id
                latest = max(latest, place)


def _rows(connection: psycopg.Connection[Any], statement: str, *values: object) -> Iterator[tuple[Any, ...]]:
    with closing(connection.cursor(name="chaos")) as cursor:
        cursor.itersize = CHUNK
        cursor.execute(statement.encode(), values or None)
        yield from cursor
