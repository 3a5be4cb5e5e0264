"""The settings of Dewey, alone or inside of Godot."""

from __future__ import annotations

from typing import ClassVar

import attrs

from godot.entries.entry import MAX_ENTRY_BYTES
from godot.service.settings import DaemonSettings, boolean, dsn, seconds, setting, whole, with_prefix


@attrs.frozen(slots=False)
class DeweySettings:
    """The settings that Dewey needs wherever it runs."""

    database_url: str | None = setting(
        "DATABASE_URL", dsn, "PostgreSQL, where Dewey stores (the database is called winni)", default=None
    )
    retention_days: int = setting(
        "LOG_RETENTION_DAYS", whole(1, 3650), "days that entries are kept (DEW-009)", default=7
    )
    database_role: str | None = setting(
        "DEWEY_DATABASE_ROLE",
        str,
        "role as which entries are stored, such as godot_log_writer, which may do nothing else (CONST-001)",
        default=None,
    )
    partition_enabled: bool = setting(
        "LOG_PARTITION_ENABLED", boolean, "whether daily partitions are made (DEW-005)", default=True
    )
    partitions_ahead: int = setting(
        "DEWEY_PARTITIONS_AHEAD", whole(1, 60), "days that have their partition ahead of time", default=7
    )
    query_timeout_s: float = setting(
        "DEWEY_QUERY_TIMEOUT_S", seconds(0.1), "seconds after which a query is ended", default=10.0
    )


@attrs.frozen(slots=False, field_transformer=with_prefix)
class DeweyServeSettings(DeweySettings, DaemonSettings):
    """The settings of `dewey serve`."""

    prefix: ClassVar[str] = "DEWEY"

    port: int = setting("DEWEY_PORT", whole(0, 65535), "port for MCP; 0 picks a free one", default=9020)
    max_message_bytes: int = setting(
        "DEWEY_MAX_MESSAGE_BYTES",
        whole(2 * MAX_ENTRY_BYTES),
        "largest frame taken; more closes with code 1009",
        default=2 * MAX_ENTRY_BYTES,
    )
