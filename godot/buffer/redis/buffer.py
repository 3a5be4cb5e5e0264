"""The buffer in Redis: which script does what is asked, with which keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from hashlib import blake2b
from typing import Any, Final, cast
from uuid import uuid4

import attrs
import redis

from godot.buffer.protocol import (
    DEAD_MAX,
    DEAD_MAX_BYTES,
    QUEUE_MAX_BYTES,
    TAKE_MAX_BYTES,
    Counts,
    DeadEntry,
    DeadPage,
    Drops,
    Taken,
    chosen,
)
from godot.buffer.redis.durability import LostFile, find_weakness
from godot.buffer.redis.lane import RedisLane
from godot.buffer.redis.servers import find_servers
from godot.entries.entry import MAX_ENTRY_BYTES
from godot.errors import NotInFlight

LEASE_MS: Final = 30_000
"""A sender may try one batch for longer than this. Then two senders send it, and its ids see to it that it is stored
once."""

ACCOUNT_MS: Final = 7 * 24 * 3_600_000
"""How long the last push and take of a daemon are remembered. Daemons come and go; each name would stay for ever."""

_RECORDS_AT_ONCE: Final = 100


class RedisBuffer:
    """See `Buffer`, `Holes`, `DeadLetters` and `LevelNotes`, and the top of this package.

    :param url: as redis-py takes it (`redis://`, `rediss://`, `unix://`), or `redis+sentinel://` or
        `redis+cluster://`, see `servers.py`.
    :param daemon: this daemon's name among those that share the queue. It has to be the same after a restart, so that
        the daemon finds what it had in flight.
    :param max_size: entries that may be queued (`MAX_QUEUE_SIZE`).
    :param max_bytes: bytes of entries that may be queued (`GODOT_MAX_QUEUE_BYTES`).
    :param entry_max_bytes: bytes that an entry may have; larger ones of others are put aside.
    :param replicas: how many have to have a batch before it counts as pushed: replication is asynchronous, and a
        failover loses what no replica had. None: 1 where there are failovers (Sentinel, Cluster), else 0.
    :param vouched: the operator says that Redis is durable where it does not tell (`GODOT_REDIS_DURABLE`).
    :param lost_file: looks at the append-only file of a Redis of our own.
    :raises ConfigError: the URL cannot be read, or the name of the queue is not possible on a cluster.
    """

    def __init__(
        self,
        url: str,
        *,
        queue: str,
        daemon: str,
        max_size: int,
        max_bytes: int = QUEUE_MAX_BYTES,
        dead_max: int = DEAD_MAX,
        dead_max_bytes: int = DEAD_MAX_BYTES,
        entry_max_bytes: int = MAX_ENTRY_BYTES,
        replicas: int | None = None,
        vouched: bool = False,
        lost_file: LostFile | None = None,
    ) -> None:
        servers = find_servers(url, queue)
        replicas = int(servers.replicated) if replicas is None else replicas
        self._forgetful = servers.replicated and not replicas
        self._pushes = RedisLane(servers, replicas=replicas, greet=self._check)
        self._takes, self._others = (RedisLane(servers, replicas=replicas) for _ in range(2))
        self._queue, self._daemon = queue, daemon
        self._max_bytes = max_bytes
        self._bounds = (max_size, max_bytes, dead_max, dead_max_bytes, entry_max_bytes)
        self._vouched, self._lost_file = vouched, lost_file
        self._weakness: str | None = None  # of the server behind the connection of the pushes; set in their thread
        self._flight = ""  # the name of what was taken last

    async def push(self, entries: Sequence[bytes]) -> Counts:
        """See `Buffer.push`."""
        digest = blake2b(b"\n".join(entries), digest_size=16).hexdigest()
        argv = [*self._bounds, ACCOUNT_MS, digest, *entries]
        keys = [*self._keys(), self._key("pushed", self._daemon)]

        def work(client: redis.Redis) -> Counts:
            pushed = _counts(self._pushes.confirm(client, "push", keys, argv))
            # Read here: outside, another connection may have been checked already.
            return attrs.evolve(pushed, weakness=self._weakness)

        return await self._pushes.call(work)

    async def take(self, limit: int) -> Taken:
        """See `Buffer.take`."""
        argv = [*self._bounds, limit, TAKE_MAX_BYTES, LEASE_MS, self._daemon, uuid4().hex, ACCOUNT_MS]
        answer: list[bytes] = await self._takes.run("take", self._keys_of(self._daemon), argv)
        if not answer:
            return Taken([])
        flight, unchecked, *entries = answer
        self._flight = _text(flight)
        return Taken(entries, unchecked == b"1")

    async def settle(self, keep: Sequence[bytes] = (), dead: Sequence[DeadEntry] = ()) -> Counts:
        """See `Buffer.settle`."""
        records = [part for entry in dead for part in (entry.raw, entry.packed)]
        argv = [*self._bounds, LEASE_MS, self._daemon, self._flight, len(dead), *records, *keep]
        # What is kept may just have got its ids. If a failover lost them, it would be stored twice.
        run = self._takes.run_confirmed if keep else self._takes.run
        if not (report := await run("settle", self._keys_of(self._daemon), argv)):
            raise NotInFlight("what was taken was given to another daemon meanwhile: the lease had run out")
        return _counts(report)

    async def hand_back(self) -> Counts:
        """See `Buffer.hand_back`."""
        members: list[bytes] = await self._takes.run("daemons", self._keys("daemons"), self._bounds)
        names = {member.decode("utf-8", "replace") for member in members}
        for name in sorted(names - {self._daemon}):
            await self._hand_back_of(name, own=False)
        counts = await self._hand_back_of(self._daemon, own=True)
        self._flight = ""
        return counts

    async def counts(self) -> Counts:
        """See `Buffer.counts`."""
        return _counts(await self._others.run("counts", self._keys(), self._bounds))

    async def hole(self, describe: Callable[[Drops], bytes]) -> bytes | None:
        """See `Holes.hole`."""
        found: list[bytes] = await self._takes.run("hole", self._keys("hole"), self._bounds)
        while found:
            # Described here, because a script has neither a clock nor ids to give.
            entry = describe(_drops(found)) if len(found) > 1 else found[0]
            # If a failover lost it once it was sent, the same run would be told of again under another id.
            argv = [*self._bounds, b"\0".join(found), entry]
            found = await self._takes.run_confirmed("hole", self._keys("hole"), argv)
            if len(found) == 1:
                return found[0]
        return None

    async def hole_told(self, entry: bytes, refused: str | None = None) -> Counts:
        """See `Holes.hole_told`."""
        record = [] if refused is None else [DeadEntry(entry, refused).packed]
        argv = [*self._bounds, entry, *record]
        return _counts(await self._takes.run("hole_told", self._keys("hole"), argv))

    async def dead_letters(self, skip: int, limit: int) -> DeadPage:
        """See `DeadLetters.dead_letters`."""
        kept, records = await self._dead_records(skip, limit)
        return DeadPage([DeadEntry.unpack(record) for record in records], kept)

    async def retry(self, ids: Collection[str] | None = None) -> int:
        """See `DeadLetters.retry`."""

        async def move(records: Sequence[bytes]) -> int:
            argv = [part for record in records for part in (record, DeadEntry.unpack(record).raw)]
            moved: int = await self._others.run_confirmed("retry", self._keys(), [*self._bounds, *argv])
            return moved

        return await self._each_page(lambda entry: chosen(entry, ids) and entry.may_return(self._max_bytes), move)

    async def purge(self, ids: Collection[str] | None = None) -> int:
        """See `DeadLetters.purge`."""

        async def delete(records: Sequence[bytes]) -> int:
            deleted: int = await self._others.run("purge", self._keys(), [*self._bounds, *records])
            return deleted

        return await self._each_page(lambda entry: chosen(entry, ids), delete)

    async def oldest(self) -> bytes | None:
        """See `Buffer.oldest`."""
        found: bytes | None = await self._others.run("oldest", self._keys(), self._bounds)
        return found

    async def note_levels(self, noted: bytes) -> None:
        """See `LevelNotes.note_levels`."""
        await self._others.call(lambda client: client.set(self._key("levels"), noted))

    async def noted_levels(self) -> bytes | None:
        """See `LevelNotes.noted_levels`."""
        noted: Any = await self._others.call(lambda client: client.get(self._key("levels")))
        return cast("bytes | None", noted)

    async def weakness(self) -> str | None:
        """See `Buffer.weakness`."""

        def check(client: redis.Redis) -> str | None:
            connection = client.connection_pool.get_connection()
            try:
                self._check(connection)
            finally:
                client.connection_pool.release(connection)
            return self._weakness

        return await self._pushes.call(check)

    def _check(self, connection: Any) -> None:
        """Check the server behind a connection, on that connection: another one may lead to another server."""

        def ask(*command: str) -> Any:
            connection.send_command(*command)
            return connection.read_response()

        found = find_weakness(ask, vouched=self._vouched, lost_file=self._lost_file)
        if found is None and self._forgetful:
            found = "with GODOT_REDIS_REPLICAS=0 a failover may lose what was acknowledged, if no replica had it yet"
        self._weakness = found

    async def _each_page(
        self, is_chosen: Callable[[DeadEntry], bool], act: Callable[[Sequence[bytes]], Awaitable[int]]
    ) -> int:
        """Give `act` the chosen dead entries, page by page, until it takes fewer than it gets.

        A page is one script: whatever dies between two of them, an entry is either dead or it is not. Entries that die
        meanwhile come behind the others and are left alone.
        """
        acted = passed = 0
        unseen, _ = await self._dead_records(0, 0)
        while unseen > 0:
            _, records = await self._dead_records(passed, min(_RECORDS_AT_ONCE, unseen))
            if not records:
                break
            found = [record for record in records if is_chosen(DeadEntry.unpack(record))]
            done = await act(found) if found else 0
            acted += done
            if done < len(found):
                break
            unseen -= len(records)
            passed += len(records) - done
        return acted

    async def _dead_records(self, skip: int, limit: int) -> tuple[int, list[bytes]]:
        kept, *records = await self._others.run(
            "dead_letters", self._keys(), [*self._bounds, skip, limit, TAKE_MAX_BYTES]
        )
        return kept, records

    async def _hand_back_of(self, daemon: str, *, own: bool) -> Counts:
        argv = [*self._bounds, daemon, "1" if own else "0"]
        return _counts(await self._takes.run("hand_back", self._keys_of(daemon), argv))

    def _keys_of(self, daemon: str) -> list[str]:
        own = [self._key(each, daemon) for each in ("inflight", "lease")]
        return [*self._keys(), *own, self._key("daemons"), self._key("flight", daemon)]

    def _keys(self, *names: str) -> list[str]:
        return [self._queue, *(self._key(name) for name in ("counts", "drops", "dead", *names))]

    def _key(self, *parts: str) -> str:
        return ":".join((self._queue, *parts))


def _counts(report: Sequence[Any]) -> Counts:
    """Read what `report` of lua/prelude.lua returns."""
    return Counts(*report)


def _drops(found: Sequence[bytes]) -> Drops:
    fields = dict(zip(map(_text, found[::2]), map(_text, found[1::2]), strict=True))
    return Drops(
        dropped=int(fields["dropped"]),
        first=fields.get("first"),
        last=fields.get("last"),
        for_bytes=int(fields.get("for_bytes", 0)),
        components={name[3:]: int(value) for name, value in fields.items() if name.startswith("of:")},
        others=int(fields.get("others", 0)),
    )


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
