"""Whether what Redis answers is on disk, and stays there: only then `durable` is true.

Each new connection is checked before its first use, since another server may be behind it. The check is repeated at
intervals, since settings change while a server runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import redis

Ask = Callable[..., Any]
"""Sends a command and returns the reply as it came."""

LostFile = Callable[[int], bool]
"""Returns whether the server would read another file at its next start than the one to which it appends: that one was
deleted or cut off, or another one is in its place. It gets how many bytes the server takes the file to have."""

_WANTED = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}


def find_weakness(ask: Ask, *, vouched: bool, lost_file: LostFile | None = None) -> str | None:
    """Return why an answered write may be lost, and what to do about that; None: it is on disk, and stays there.

    Managed servers forbid CONFIG. What Redis does not tell counts as weak, unless the operator vouches for it
    (`GODOT_REDIS_DURABLE`). What it does tell counts in any case.

    A lost file is written anew.

    :param lost_file: for a server whose files we can see.
    :raises redis.RedisError: it does not answer.
    """
    silent = None
    config: Mapping[str, str] = {}
    state: Mapping[str, str] = {}
    try:
        config = _pairs(ask("CONFIG", "GET", "*append*"))
    except redis.ResponseError as exc:
        silent = f"CONFIG: {exc}"
    try:
        state = _lines(ask("INFO"))
    except redis.ResponseError as exc:
        silent = f"INFO: {exc}"
    if state.get("role") == "slave":
        return "Redis is a replica, and loses what is written to it when it next follows its master; use its master"
    if config and (weakness := _of_file(config, state) or _of_first_file(ask, state)) is not None:
        return weakness
    if state.get("maxmemory", "0") != "0" and state.get("maxmemory_policy") != "noeviction":
        return (
            f"Redis throws entries away when its memory is full (maxmemory-policy {state.get('maxmemory_policy')}); "
            "set maxmemory-policy noeviction"
        )
    if lost_file is not None and _is_lost(ask, lost_file):
        with suppress(redis.ResponseError):  # it is already being written
            ask("BGREWRITEAOF")
        return (
            "the append-only file of Redis was deleted, cut off, or replaced by another one, and its death would lose "
            "what waits; it is being written anew"
        )
    if silent is not None and not vouched:
        return (
            f"Redis does not tell whether every write is on disk before it answers ({silent}); set "
            "GODOT_REDIS_DURABLE=true if you know that it is"
        )
    return None


def _of_file(config: Mapping[str, str], state: Mapping[str, str]) -> str | None:
    wrong = {name: config[name] for name, wanted in _WANTED.items() if config.get(name, wanted) != wanted}
    if wrong:
        return (
            "Redis does not have every write on disk before it answers "
            f"({', '.join(f'{name} {value}' for name, value in wrong.items())}): when it dies, entries that were "
            "acknowledged may be lost. If Godot started this Redis, start Godot with REDIS_PERSISTENCE=aof; else set "
            f"{' and '.join(f'{name} {_WANTED[name]}' for name in wrong)} in Redis"
        )
    if state.get("aof_last_write_status", "ok") != "ok":
        return "Redis could not write to its append-only file (aof_last_write_status err); see to its disk"
    return None


def _of_first_file(ask: Ask, state: Mapping[str, str]) -> str | None:
    # After CONFIG SET appendonly yes nothing that is written can be read again until the first file is complete.
    # Redis 6.2 says for so long that the file is empty. From Redis 7 on it grows at once, but WAITAOF does not confirm
    # what this connection wrote.
    is_being_made = "1" in (state.get("aof_rewrite_in_progress"), state.get("aof_rewrite_scheduled"))
    if state.get("aof_enabled", "1") != "1" or (
        is_being_made and (state.get("aof_current_size") == "0" or not _confirms_writes(ask))
    ):
        return "Redis has no append-only file yet, although appendonly is yes; wait until it is written"
    return None


def _confirms_writes(ask: Ask) -> bool:
    try:
        local, _ = ask("WAITAOF", "0", "0", "0")
    except redis.ResponseError:  # older than Redis 7.2, or forbidden
        return True
    return bool(local)


def _is_lost(ask: Ask, lost_file: LostFile) -> bool:
    # A rewrite puts another file in its place; but not twice in a row between the question and the look.
    return all(lost_file(int(_lines(ask("INFO", "persistence")).get("aof_current_size", 0))) for _ in range(2))


def _pairs(reply: list[bytes]) -> dict[str, str]:
    texts = [each.decode("utf-8", "replace") for each in reply]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _lines(reply: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines())
    return {name: value for name, _, value in lines}
