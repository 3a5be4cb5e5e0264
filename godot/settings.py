"""The settings of Godot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias, get_args

import attrs

from godot.buffer.protocol import QUEUE_MAX_BYTES
from godot.entries.entry import MAX_BATCH
from godot.service.settings import DaemonSettings, boolean, one_of, seconds, setting, url, whole, with_prefix

Ack: TypeAlias = Literal["queued", "durable"]
"""When a log call is answered: when its entry is on its way, or when it is on disk."""


@attrs.frozen(slots=False, field_transformer=with_prefix)
class GodotSettings(DaemonSettings):
    """What `godot serve` and `godot up` have to know."""

    prefix: ClassVar[str] = "GODOT"

    port: int = setting("GODOT_PORT", whole(0, 65535), "port for MCP; 0 picks a free one", default=9060)
    max_message_bytes: int = setting(
        "GODOT_MAX_MESSAGE_BYTES",
        whole(1024),
        "largest frame taken; more closes with code 1009",
        default=16 * 1024 * 1024,
    )
    redis_url: str | None = setting(
        "REDIS_URL",
        url("redis", "rediss", "unix", "redis+sentinel", "redis+cluster"),
        "Redis, also `redis+sentinel://` or `redis+cluster://`; without it Godot starts its own (SEC-005)",
        default=None,
    )
    redis_replicas: int | None = setting(
        "GODOT_REDIS_REPLICAS",
        whole(0, 100),
        "replicas that must have an entry before it counts as written; with Sentinel or Cluster 1, else 0",
        default=None,
    )
    redis_durable: bool = setting(
        "GODOT_REDIS_DURABLE",
        boolean,
        "true: every write is on disk before this Redis answers, although it forbids CONFIG or INFO, which would tell",
        default=False,
    )
    redis_persistence: str | None = setting(
        "REDIS_PERSISTENCE",
        lambda text: one_of(text, "aof", "none"),
        "`aof` or `none`, for Godot's own Redis (REL-001)",
        default=None,
    )
    redis_aof_enabled: bool | None = setting(
        "REDIS_AOF_ENABLED", boolean, "the same as true or false; an older name", default=None
    )
    ack: Ack = setting(
        "GODOT_ACK",
        lambda text: one_of(text, *get_args(Ack)),
        "when a log call is answered that does not say: `queued`, or `durable` when it is on disk",
        default="queued",
    )
    dewey_mcp_url: str | None = setting(
        "DEWEY_MCP_URL", url("ws", "wss"), "Dewey; without it, and with DATABASE_URL, Dewey runs inside", default=None
    )
    dewey_token_file: Path | None = setting(
        "GODOT_DEWEY_TOKEN_FILE", Path, "a file with the token that Dewey wants of Godot", default=None
    )
    dewey_timeout_s: float = setting(
        "GODOT_DEWEY_TIMEOUT_S", seconds(0.1), "seconds that Dewey may take for a call", default=15.0
    )
    batch_size: int = setting("BATCH_SIZE", whole(1, MAX_BATCH), "entries that make a batch full", default=100)
    batch_timeout_ms: int = setting(
        "BATCH_TIMEOUT_MS", whole(1, 60_000), "milliseconds after its first entry that a batch is written", default=100
    )
    max_queue_size: int = setting(
        "MAX_QUEUE_SIZE", whole(1), "entries that wait in Redis; beyond, the oldest go (GOD-005)", default=100_000
    )
    max_queue_bytes: int = setting(
        "GODOT_MAX_QUEUE_BYTES",
        whole(1024),
        "bytes of entries that wait in Redis; beyond, the oldest go (GOD-005)",
        default=QUEUE_MAX_BYTES,
    )
    queue_name: str = setting(
        "LOG_QUEUE_NAME", str, "the list in Redis; other keys derive from it", default="logs:queue"
    )
    daemon: str | None = setting(
        "GODOT_DAEMON", str, "name among daemons that share a Redis; stays the same over restarts", default=None
    )
    data_dir: Path | None = setting(
        "GODOT_DATA_DIR", Path, "where embedded servers keep their data; see --data-dir", default=None
    )
    drain_s: float = setting(
        "GODOT_DRAIN_S", seconds(0), "seconds that a stop goes on delivering (REL-005)", default=8.0
    )
    status_s: float = setting("GODOT_STATUS_S", seconds(0.1), "seconds between status lines", default=60.0)

    def doubts(self) -> list[str]:
        """Return a line for each set of values that is allowed, but hardly meant."""
        if self.max_queue_bytes < self.max_message_bytes:
            return [
                f"GODOT_MAX_QUEUE_BYTES is {self.max_queue_bytes:,}, and GODOT_MAX_MESSAGE_BYTES lets messages of "
                f"{self.max_message_bytes:,} in: entries that are larger than the queue are refused"
            ]
        return []

    @staticmethod
    def contradictions(values: Mapping[str, object]) -> list[str]:
        """Return a line for each set of values that do not go together."""
        if (values.get("redis_aof_enabled"), values.get("redis_persistence")) in ((True, "none"), (False, "aof")):
            return ["REDIS_AOF_ENABLED and REDIS_PERSISTENCE contradict each other; set one of them"]
        return []

    @property
    def aof(self) -> bool:
        """Whether Godot's own Redis keeps an append-only file."""
        return self.redis_aof_enabled is not False and self.redis_persistence != "none"
