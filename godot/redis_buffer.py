"""The durable buffer: a Redis list, and the scripts that are the only ones to change it.

Each script is atomic, and with `appendfsync always` its effect is on disk before its answer is sent.
Each is safe to run again when that answer was lost: redis-py's own retry is off, because it would
write twice without telling; the batcher and the sender retry in the open.

Keys, all derived from the queue's name, so that `{logs}:queue` keeps them in one slot of a cluster:

    logs:queue                      list; head newest, tail oldest (GOD-001)
    logs:queue:inflight:<daemon>    list; what a sender has taken, same direction
    logs:queue:lease:<daemon>       expires when that sender has not been heard of for LEASE_MS
    logs:queue:daemons              set; who may have something in flight
    logs:queue:dead                 list of JSON {"reason", "entry"}; bounded
    logs:queue:counts               hash; see `Counts`, and below

Only commands of Redis 6.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, Final, TypeVar

import redis
import trio
from redis.backoff import NoBackoff
from redis.retry import Retry

from godot import codec
from godot.buffer import TAKE_MAX_BYTES, Counts, DeadEntry
from godot.errors import BufferUnavailable, ConfigError

T = TypeVar("T")

SOCKET_TIMEOUT_S: Final = 2.0
"""A deadline cannot interrupt a worker thread, so this is what bounds one."""

LEASE_MS: Final = 30_000
"""Shorter than a sender may try one batch: what is then sent by two is stored once, by its ids."""

DEAD_MAX: Final = 10_000

# In every script: KEYS[1] the queue, KEYS[2] the counts. `expected` is the length that our own last
# script left behind: what is more was pushed by somebody else and counts as received, what is less was
# taken away and counts as dropped. So the equation of `godot.buffer` holds whoever touches the list.
_PRELUDE: Final = """
local queue, counts = KEYS[1], KEYS[2]
local function count(name, by)
  if by ~= 0 then redis.call('HINCRBY', counts, name, by) end
end
local function notice_strangers()
  local length = redis.call('LLEN', queue)
  local more = length - tonumber(redis.call('HGET', counts, 'expected') or 0)
  if more ~= 0 then
    count('received', math.max(0, more))
    count('dropped', math.max(0, -more))
    redis.call('HSET', counts, 'expected', length)
  end
end
local function cut(max_size)
  local excess = redis.call('LLEN', queue) - max_size
  if excess > 0 then
    redis.call('LTRIM', queue, 0, max_size - 1)
    count('dropped', excess)
  end
end
local function report()
  local length = redis.call('LLEN', queue)
  local all = redis.call('HMGET', counts, 'in_flight', 'received', 'stored', 'dropped', 'dead', 'expected')
  for i = 1, 6 do all[i] = tonumber(all[i] or 0) end
  local more = length - all[6]
  return {length, all[1], all[2] + math.max(0, more), all[3], all[4] + math.max(0, -more), all[5]}
end
local function done()
  redis.call('HSET', counts, 'expected', redis.call('LLEN', queue))
  return report()
end
"""

# ARGV: bound, field of this daemon's last push, digest of this push, entries oldest first.
_PUSH: Final = """
if redis.call('HGET', counts, ARGV[2]) == ARGV[3] then return report() end
notice_strangers()
redis.call('LPUSH', queue, unpack(ARGV, 4))
count('received', #ARGV - 3)
cut(tonumber(ARGV[1]))
redis.call('HSET', counts, ARGV[2], ARGV[3])
return done()
"""

# KEYS: in flight, lease, daemons. ARGV: limit, bytes, lease in ms, daemon.
# Nothing is written when there is nothing to take: an idle sender looks often.
_TAKE: Final = """
local inflight = KEYS[3]
local taken = redis.call('LRANGE', inflight, 0, -1)
if #taken > 0 then
  local oldest_first = {}
  for i = #taken, 1, -1 do oldest_first[#oldest_first + 1] = taken[i] end
  return oldest_first
end
if redis.call('LLEN', queue) == 0 then return {} end
redis.call('DEL', KEYS[4])  -- a script whose first write frees memory may go on when memory is full
notice_strangers()
local limit, room = tonumber(ARGV[1]), tonumber(ARGV[2])
while #taken < limit and room > 0 do
  local entry = redis.call('RPOPLPUSH', queue, inflight)
  if not entry then break end
  taken[#taken + 1] = entry
  room = room - #entry
end
count('in_flight', #taken)
redis.call('SET', KEYS[4], '1', 'PX', ARGV[3])
redis.call('SADD', KEYS[5], ARGV[4])
done()
return taken
"""

# KEYS: in flight, lease, daemons, dead. ARGV: lease in ms, daemon, how many may be dead, how many die now,
# for each the entry and what is kept of it, then what stays in flight, oldest first.
_SETTLE: Final = """
local inflight, dead = KEYS[3], KEYS[6]
local dying = tonumber(ARGV[4])
for i = 0, dying - 1 do
  if redis.call('LREM', inflight, 1, ARGV[5 + 2 * i]) > 0 then
    redis.call('LPUSH', dead, ARGV[6 + 2 * i])
    count('dead', 1)
    count('in_flight', -1)
  end
end
if dying > 0 then redis.call('LTRIM', dead, 0, tonumber(ARGV[3]) - 1) end
local kept = #ARGV - 4 - 2 * dying
local settled = redis.call('LLEN', inflight) - kept
redis.call('DEL', inflight)  -- first, so that settling works when memory is full
count('stored', settled)
count('in_flight', -settled)
if kept > 0 then
  redis.call('LPUSH', inflight, unpack(ARGV, #ARGV - kept + 1))
  redis.call('SET', KEYS[4], '1', 'PX', ARGV[1])
  redis.call('SADD', KEYS[5], ARGV[2])
end
return report()
"""

# KEYS: in flight, lease, daemons. ARGV: bound, daemon, '1' when it is the caller itself.
_HAND_BACK: Final = """
local inflight, lease = KEYS[3], KEYS[4]
if ARGV[3] ~= '1' and redis.call('EXISTS', lease) == 1 then return report() end
local newest_first = redis.call('LRANGE', inflight, 0, -1)
redis.call('SREM', KEYS[5], ARGV[2])
redis.call('DEL', inflight, lease)
if #newest_first == 0 and redis.call('LLEN', queue) <= tonumber(ARGV[1]) then return report() end
notice_strangers()
for i = 1, #newest_first, 1000 do
  redis.call('RPUSH', queue, unpack(newest_first, i, math.min(i + 999, #newest_first)))
end
count('in_flight', -#newest_first)
cut(tonumber(ARGV[1]))
return done()
"""


class _Lane:
    """One client in one worker thread: what runs in one lane waits for nothing that runs in another."""

    def __init__(self, url: str) -> None:
        try:
            self.client: redis.Redis = redis.Redis.from_url(
                url,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=SOCKET_TIMEOUT_S,
                socket_connect_timeout=SOCKET_TIMEOUT_S,
            )
        except ValueError as exc:
            raise ConfigError(f"REDIS_URL: {exc}") from exc
        self._limiter = trio.CapacityLimiter(1)

    async def run(self, call: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(call, limiter=self._limiter)
        except redis.RedisError as exc:
            raise BufferUnavailable(f"Redis: {exc}") from exc


class RedisBuffer:
    """See `Buffer` and the top of this module.

    :param url: as redis-py takes it: `redis://`, `rediss://` or `unix://`.
    :param daemon: this daemon's name among those that share the queue; the same after a restart, so that
        it finds what it had in flight.
    :param max_size: entries that may be queued (`MAX_QUEUE_SIZE`).
    :raises ConfigError: the URL is none.
    """

    def __init__(self, url: str, *, queue: str, daemon: str, max_size: int) -> None:
        self._pushes, self._takes, self._looks = _Lane(url), _Lane(url), _Lane(url)
        self._queue, self._daemon, self._max_size = queue, daemon, max_size
        self._push = self._script(self._pushes, _PUSH)
        self._take = self._script(self._takes, _TAKE)
        self._settle = self._script(self._takes, _SETTLE)
        self._hand_back = self._script(self._takes, _HAND_BACK)
        self._report = self._script(self._looks, "return report()")

    async def push(self, entries: Sequence[bytes]) -> Counts:
        """See `Buffer.push`."""
        digest = blake2b(b"\n".join(entries), digest_size=16).hexdigest()
        argv = [self._max_size, f"pushed:{self._daemon}", digest, *entries]
        return _counts(await self._pushes.run(partial(self._push, [], argv)))

    async def take(self, limit: int) -> list[bytes]:
        """See `Buffer.take`."""
        argv = [limit, TAKE_MAX_BYTES, LEASE_MS, self._daemon]
        taken: list[bytes] = await self._takes.run(partial(self._take, self._keys_of(self._daemon), argv))
        return taken

    async def settle(self, keep: Sequence[bytes] = (), dead: Sequence[DeadEntry] = ()) -> Counts:
        """See `Buffer.settle`."""
        graves = [part for entry in dead for part in (entry.raw, _grave(entry))]
        keys = [*self._keys_of(self._daemon), self._key("dead")]
        argv = [LEASE_MS, self._daemon, DEAD_MAX, len(dead), *graves, *keep]
        return _counts(await self._takes.run(partial(self._settle, keys, argv)))

    async def hand_back(self) -> Counts:
        """See `Buffer.hand_back`."""
        return await self._takes.run(self._hand_back_all)

    async def counts(self) -> Counts:
        """See `Buffer.counts`."""
        return _counts(await self._looks.run(partial(self._report, [], [])))

    def _hand_back_all(self) -> Counts:
        members: Any = self._takes.client.smembers(self._key("daemons"))
        names = {member.decode("utf-8", "replace") for member in members}
        for name in sorted(names - {self._daemon}):
            self._hand_back_of(name, own=False)
        return self._hand_back_of(self._daemon, own=True)

    def _hand_back_of(self, daemon: str, *, own: bool) -> Counts:
        return _counts(self._hand_back(self._keys_of(daemon), [self._max_size, daemon, "1" if own else "0"]))

    def _script(self, lane: _Lane, source: str) -> Callable[[list[str], list[Any]], Any]:
        script = lane.client.register_script(_PRELUDE + source)

        def run(keys: list[str], argv: list[Any]) -> Any:
            return script(keys=[self._queue, self._key("counts"), *keys], args=argv)

        return run

    def _keys_of(self, daemon: str) -> list[str]:
        return [self._key("inflight", daemon), self._key("lease", daemon), self._key("daemons")]

    def _key(self, *parts: str) -> str:
        return ":".join((self._queue, *parts))


def _counts(report: list[int]) -> Counts:
    queued, in_flight, received, stored, dropped, dead = report
    return Counts(queued, in_flight, received, stored, dropped, dead)


def _grave(entry: DeadEntry) -> bytes:
    return codec.dumps({"reason": entry.reason, "entry": entry.raw.decode("utf-8", "replace")})
