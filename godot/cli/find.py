"""The work of the commands that find entries: tail, query, trace, export, components, stats."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import trio

from godot.cli.daemon import Daemon, Style, Unanswered, Work, complain, write
from godot.cli.render import Entry, harmless, level_color, paint, renderer, table
from godot.cli.story import tell
from godot.json.text import dumps
from godot.service.exits import EXIT_NONE, EXIT_PARTIAL, EXIT_UNREACHABLE, EXIT_USAGE
from godot.toolnames import QUERY, STATS, TAIL

PAGE: Final = 1_000
PAGE_BYTES: Final = 900_000

WAIT_S: Final = 20.0
"""How long one call of `tail -f` waits for entries."""

AWAY_S: Final = 60.0
"""How long `tail -f` waits for a daemon that is away."""

RETRY_S: Final = 0.25
WATCH_S: Final = 2.0

LAST_SEEN_MAX: Final = 100
"""Components whose last entry is asked for; further ones are listed without it."""


def query_entries(asked: dict[str, Any], lines: int, output: str, style: Style, *, reverse: bool) -> Work:
    """Write the newest entries that are found, the oldest of them first unless reversed."""

    async def work(daemon: Daemon) -> int:
        found, more = await _newest(daemon, asked, lines)
        show = _shower(output, style)
        for entry in found if reverse else reversed(found):
            show(entry)
        if not found:
            complain("nothing was found")
            return EXIT_NONE
        if more:
            complain(f"these are the newest {lines:,}; -n shows more, godot export all of them")
        return 0

    return work


def export_entries(asked: dict[str, Any], output: str) -> Work:
    """Write all entries that are found, oldest first."""

    async def work(daemon: Daemon) -> int:
        show = _shower(output, Style())
        nothing = True
        async for entry in _pages(daemon, asked, "oldest"):
            nothing = False
            show(entry)
        if nothing:
            complain("nothing was found")
        return EXIT_NONE if nothing else 0

    return work


def tail_entries(asked: dict[str, Any], lines: int, output: str, style: Style, *, follow: bool) -> Work:
    """Write the newest entries, and then, if that is asked for, those that are stored from now on."""
    show = _shower(output, style)

    async def once(daemon: Daemon) -> int:
        found, _ = await _newest(daemon, asked, lines)
        for entry in reversed(found):
            show(entry)
        return 0 if found else EXIT_NONE

    async def on(daemon: Daemon) -> int:
        following = {
            name: value for name, value in asked.items() if name not in ("start_time", "end_time", "data_path")
        }
        cursor: str | None = None
        last, begun = lines, False
        away_since: float | None = None
        while True:
            begin = {"cursor": cursor} if cursor else {"last": last}
            try:
                page = await daemon.ask(
                    TAIL, timeout_s=WAIT_S + 10, **following, **begin, wait_s=WAIT_S if cursor else 0, limit=PAGE
                )
            except Unanswered as exc:
                if cursor is not None and exc.code == EXIT_USAGE and str(exc).startswith("cursor:"):
                    complain(
                        f"it is not known any more what was shown already ({exc}): it goes on from the present; "
                        "entries may be missing here, which godot query shows"
                    )
                    cursor, last, away_since = None, 0, None
                    await trio.sleep(RETRY_S)
                    continue
                now = trio.current_time()
                if exc.code != EXIT_UNREACHABLE or not begun or (away_since and now - away_since > AWAY_S):
                    raise
                if away_since is None:
                    away_since = now
                    complain(f"{exc}; waiting for it")
                await trio.sleep(RETRY_S)
                continue
            if away_since is not None:
                gap = "nothing is missing" if cursor else "it goes on from now on"
                complain(f"it is back after {trio.current_time() - away_since:.1f} s; {gap}")
                away_since = None
            cursor, begun = page["cursor"], True
            if page["missed"]:
                complain(f"{page['missed']:,} entries are not shown: they came faster than they were read")
            for entry in page["entries"]:
                show(entry)

    return on if follow else once


def tell_trace(trace_id: str, output: str, style: Style) -> Work:
    """Write a trace: as a story for a reader, entry by entry for a program."""

    async def work(daemon: Daemon) -> int:
        found = [entry async for entry in _pages(daemon, {"trace_id": trace_id}, "oldest")]
        if not found:
            complain("nothing was found; it may take a moment from a log call until the entry is stored")
            return EXIT_NONE
        if output == "pretty":
            for line in tell(trace_id, found, color=style.color, width=style.width):
                write(line)
        else:
            show = _shower(output, style)
            for entry in found:
                show(entry)
        return 0

    return work


def list_components(*, as_json: bool) -> Work:
    """Write the components that there are."""

    async def work(daemon: Daemon) -> int:
        stats = await daemon.ask(STATS)
        last: dict[str, Entry] = {}
        unanswered: list[str] = []

        async def ask_for_last(component: str) -> None:
            try:
                page = await daemon.ask(QUERY, component=component, limit=1, fields=["created_at", "level"])
            except Unanswered as exc:
                complain(f"{harmless(component)}: {exc}")
                unanswered.append(component)
                return
            if page["entries"]:
                last[component] = page["entries"][0]

        async with trio.open_nursery() as nursery:
            for component in list(stats["by_component"])[:LAST_SEEN_MAX]:
                if "*" not in component:  # it would be a pattern
                    nursery.start_soon(ask_for_last, component)
        rows = [["COMPONENT", "ENTRIES", "LAST"]]
        for component, entries in stats["by_component"].items():
            seen = last.get(component, {}).get("created_at", "")
            if as_json:
                write(dumps({"component": component, "entries": entries, "last": seen or None}).decode())
            rows.append([harmless(component), f"{entries:,}", seen])
        if not as_json and len(rows) > 1:
            for line in table(rows, right=(1,)):
                write(line)
        if further := stats.get("further_components"):
            complain(f"{further:,} further components have fewer entries")
        if len(rows) == 1:
            complain("nothing is stored yet")
            return EXIT_NONE
        return EXIT_PARTIAL if unanswered else 0

    return work


def show_stats(style: Style, *, as_json: bool, watch: bool) -> Work:
    """Write how much is stored, once or again and again."""

    async def work(daemon: Daemon) -> int:
        before: tuple[float, int] | None = None
        while True:
            stats = await daemon.ask(STATS)
            now = trio.current_time()
            rate = None if before is None else (stats["total"] - before[1]) / (now - before[0])
            if as_json:
                write(dumps(stats).decode())
            else:
                if watch and style.width is not None:
                    write("\x1b[H\x1b[2J", end="")
                for line in stats_lines(stats, rate, color=style.color):
                    write(line)
            if not watch:
                return 0
            before = now, stats["total"]
            await trio.sleep(WATCH_S)

    return work


def stats_lines(stats: Mapping[str, Any], rate: float | None, *, color: bool) -> list[str]:
    """Return the statistics for a reader.

    :param rate: entries a second since the statistics before; None: these are the first.
    """
    total = stats["total"]
    grown = "" if rate is None else f"  ({rate:+,.0f} a second)"
    rows = [["entries", f"{total:,}{grown}"]]
    if total:
        rows += [["oldest", str(stats["oldest"])], ["newest", str(stats["newest"])]]
    rows.append(["size", size(stats["size_bytes"])])
    lines = table(rows)
    for name, counts in (("LEVEL", stats["by_level"]), ("COMPONENT", stats["by_component"])):
        if any(counts.values()):
            listed = sorted(counts.items(), key=lambda each: -each[1]) if name == "COMPONENT" else counts.items()
            shares = [[harmless(key), f"{count:,}", f"{count / total:.1%}"] for key, count in listed]
            painted = [[paint(key, level_color(key), on=color and name == "LEVEL"), *rest] for key, *rest in shares]
            lines += ["", *table([[name, "ENTRIES", ""], *painted], right=(1, 2))]
    return lines


def size(count: float) -> str:
    """Write a number of bytes for a reader."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


async def _newest(daemon: Daemon, asked: dict[str, Any], lines: int) -> tuple[list[Entry], bool]:
    """Return the newest entries, newest first, and whether there are more."""
    found: list[Entry] = []
    if lines == 0:
        return found, False
    async for entry in _pages(daemon, asked, "newest", limit=min(lines + 1, PAGE)):
        if len(found) == lines:
            return found, True
        found.append(entry)
    return found, False


async def _pages(
    daemon: Daemon, asked: dict[str, Any], order: str, *, limit: int = PAGE
) -> AsyncIterator[dict[str, Any]]:
    """Yield what is found, page after page."""
    # A moment that is relative to now would move from page to page.
    now = datetime.now(UTC)
    asked = asked | {name: _fixed(asked.get(name), now) for name in ("start_time", "end_time")}
    cursor = None
    while True:
        page = await daemon.ask(QUERY, **asked, order=order, limit=limit, cursor=cursor, max_bytes=PAGE_BYTES)
        if page.get("shortened"):
            complain(f"{page['shortened']} entries are so large that they are shown shortened")
        for entry in page["entries"]:
            yield entry
        if (cursor := page["next_cursor"]) is None:
            return


def _fixed(moment: str | None, now: datetime) -> str | None:
    from dewey_logs.filters import moment as fix

    return None if moment is None else fix("time", moment, now)


def _shower(output: str, style: Style) -> Callable[[Entry], None]:
    """Return a function that writes an entry; write the heading now."""
    head, render = renderer(output, color=style.color, width=style.width)
    if head is not None:
        write(head)

    def show(entry: Entry) -> None:
        write(render(entry))

    return show
