"""The names of the tools of both programs. A tool is served, called and spoken of by the name that stands here."""

from __future__ import annotations

from typing import Final

LOG: Final = "logger_log"
LOG_BATCH: Final = "logger_log_batch"
QUERY: Final = "logger_query"
TAIL: Final = "logger_tail"
STATS: Final = "logger_stats"
STATUS: Final = "logger_status"
SET_LEVEL: Final = "logger_set_level"
GET_LEVEL: Final = "logger_get_level"
CLEAR: Final = "logger_clear"
PIN: Final = "logger_pin"
DEAD: Final = "logger_dead"
DEAD_RETRY: Final = "logger_dead_retry"
DEAD_PURGE: Final = "logger_dead_purge"

DEWEY_STORE: Final = "dewey_store_logs_batch"
DEWEY_QUERY: Final = "dewey_query_logs"
DEWEY_TAIL: Final = "dewey_tail_logs"
DEWEY_MAINTAIN: Final = "dewey_maintain_partitions"
DEWEY_SET_LEVEL: Final = "dewey_set_log_level"
DEWEY_GET_LEVELS: Final = "dewey_get_log_levels"
DEWEY_CLEAR: Final = "dewey_clear_logs"
DEWEY_PIN: Final = "dewey_pin_trace"
DEWEY_STATS: Final = "dewey_get_log_stats"


def deployed(name: str) -> str:
    """Return the name by which clients that are deployed call a tool of Godot's. It is not listed."""
    return f"godot_{name}"
