"""`godot dead`: entries that could not be stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from godot.cli.daemon import Daemon, Work, complain, write
from godot.cli.render import harmless
from godot.json.text import dumps
from godot.service.exits import EXIT_NONE
from godot.toolnames import DEAD, DEAD_PURGE, DEAD_RETRY

SHOWN_CHARS: Final = 160


def list_dead(limit: int | None, *, as_json: bool) -> Work:
    """Write the dead entries, oldest first."""

    async def work(daemon: Daemon) -> int:
        skip, left = 0, limit
        while left is None or left > 0:
            page = await daemon.ask(DEAD, skip=skip, limit=min(1_000, left or 1_000))
            for entry in page["dead"]:
                write(dumps(entry).decode() if as_json else "\n".join(_lines(entry)))
            left = None if left is None else left - len(page["dead"])
            if page["next_skip"] is None:
                break
            skip = page["next_skip"]
        if skip == 0 and not page["dead"]:
            complain("there are none")
            return EXIT_NONE
        return 0

    return work


def act_on_dead(action: str, ids: tuple[str, ...], *, as_json: bool) -> Work:
    """Put entries back (`retry`) or delete them (`purge`): those of these ids or, without any, all.

    Ids without an entry are reported.
    """
    tool, count = (DEAD_RETRY, "retried") if action == "retry" else (DEAD_PURGE, "purged")

    async def work(daemon: Daemon) -> int:
        done = await daemon.ask(tool, **({"ids": list(ids)} if ids else {"all": True}))
        write(dumps(done).decode() if as_json else " ".join(f"{name}={value}" for name, value in done.items()))
        if (missing := len(set(ids)) - done[count]) > 0:
            other = "" if action == "purge" else ", or the queue has no room for it"
            which = f"there is no entry {harmless(ids[0])}" if len(ids) == 1 else f"{missing} of these are not there"
            complain(f"{which}{other} (see godot dead list)")
        return 0 if done[count] else EXIT_NONE

    return work


def _lines(entry: Mapping[str, Any]) -> Iterator[str]:
    yield f"{entry['id']}  {harmless(entry['reason'])}"
    text = harmless(entry["entry"])
    yield f"    {text[:SHOWN_CHARS]}{'…' if entry['chars'] > SHOWN_CHARS else ''}"
