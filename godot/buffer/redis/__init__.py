"""The durable buffer: a Redis list, and the scripts that are the only ones to change it.

Each script (`lua/`) is atomic, and with `appendfsync always` its effect is on disk before its answer is sent. Each is
safe to run again when that answer was lost. redis-py's own retry is off, because it would write twice without a word;
the batcher and the sender try again themselves.

    buffer.py      what is asked of a buffer, and the script that does it
    lane.py        one connection in one worker thread, running scripts
    durability.py  whether what Redis answers is on disk, and stays
    sending.py     how long a connection may take for what it sends
    servers.py     which server that is: the one of the URL, a Sentinel's master, a cluster's primary

Keys, all derived from the queue's name, so that `{logs}:queue` keeps them in one slot of a cluster:

    logs:queue                      list; head newest, tail oldest (GOD-001)
    logs:queue:inflight:<daemon>    list; what a sender has taken, same direction
    logs:queue:lease:<daemon>       expires when that sender has not been heard of for LEASE_MS
    logs:queue:flight:<daemon>      the name of that take; expires, like the next, when the daemon is long gone
    logs:queue:pushed:<daemon>      digest of its last push, so that the same one again does nothing
    logs:queue:daemons              set; who may have something in flight
    logs:queue:dead                 list of JSON {"reason", "entry"}; head newest; bounded
    logs:queue:drops                hash; the run of drops that nobody was told of yet, see `Drops`
    logs:queue:hole                 the entry that tells of the run before it, until it is stored
    logs:queue:levels               what was last known of levels, as JSON
    logs:queue:counts               hash; see `Counts`, and lua/prelude.lua

The scripts use only commands of Redis 6.2, which every Valkey has.
"""

from __future__ import annotations

from godot.buffer.redis.buffer import ACCOUNT_MS, LEASE_MS, RedisBuffer

__all__ = ["ACCOUNT_MS", "LEASE_MS", "RedisBuffer"]
