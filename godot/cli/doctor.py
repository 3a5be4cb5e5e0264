"""`godot doctor`: checks what usually goes wrong, and says what to do about it."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import trio

from godot import __version__
from godot.cli.daemon import Daemon, Style, Unanswered, run_asking, write
from godot.cli.find import size
from godot.cli.render import harmless, paint
from godot.cli.target import read_target
from godot.combined import CombinedSettings, load_combined
from godot.embedded.binaries import find_postgres, find_redis
from godot.embedded.datadir import default_data_dir
from godot.errors import ConfigError
from godot.service.doors import make_gate
from godot.service.exits import EXIT_NONE
from godot.service.masking import masked
from godot.service.signals import Lifecycle, run_with_signals
from godot.toolnames import QUERY, STATUS

DISK_MIN_BYTES: Final = 1024**3
DELAY_MAX_S: Final = 60.0
CLOCK_MAX_S: Final = 5.0
ANSWER_S: Final = 5.0

Verdict = Literal["ok", "note", "bad"]
_COLORS: Final = {"ok": "32", "note": "33", "bad": "1;31"}


@attrs.frozen
class Finding:
    """What one check found.

    :param advice: what to do; empty when there is nothing to do.
    """

    verdict: Verdict
    what: str
    advice: str = ""

    def line(self, *, color: bool) -> str:
        """Return it as a line for a reader."""
        mark = paint(f"{self.verdict:<4}", _COLORS[self.verdict], on=color)
        return f"{mark}  {harmless(masked(self.what))}{f': {harmless(masked(self.advice))}' if self.advice else ''}"


def examine(url: str | None, token_file: Path | None, style: Style) -> int:
    """Check everything; return 0 when nothing is bad, else 1."""
    bad = 0

    def note(finding: Finding) -> None:
        nonlocal bad
        bad += finding.verdict == "bad"
        write(finding.line(color=style.color))

    for finding in here():
        note(finding)
    try:
        target, _ = read_target(url, token_file, os.environ)
    except ConfigError as exc:
        note(Finding("bad", "the daemon cannot be asked", str(exc)))
        return EXIT_NONE

    async def work(daemon: Daemon) -> int:
        for finding in await there(daemon):
            note(finding)
        return 0

    async def main(life: Lifecycle) -> int:
        return await run_asking(work, target, life)

    return trio.run(partial(run_with_signals, main)) or (EXIT_NONE if bad else 0)


def here() -> Iterator[Finding]:
    """Check this machine."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("ok", f"Godot {__version__} on Python {python}")
    settings = CombinedSettings()
    try:
        settings, warnings = load_combined(os.environ, {})
        make_gate(settings)
        yield Finding("ok", "the settings can be used")
        for warning in warnings:
            yield Finding("note", warning)
    except ConfigError as exc:
        for warning in exc.warnings:
            yield Finding("note", warning)
        for problem in exc.problems:
            yield Finding("bad", "a setting", problem)
    yield from _binaries(settings)
    yield _disk(settings)


def _binaries(settings: CombinedSettings) -> Iterator[Finding]:
    """Look for the servers that are started here, unless the settings name others."""
    wanted: list[tuple[str, Callable[[], Path], str | None]] = [
        ("Redis", find_redis, settings.redis_url),
        ("PostgreSQL", find_postgres, settings.database_url or settings.dewey_mcp_url),
    ]
    for name, find, url in wanted:
        if url is not None:
            continue
        try:
            yield Finding("ok", f"{name} that can be started: {find()}")
        except ConfigError as exc:
            yield Finding("bad", name, str(exc))


def _disk(settings: CombinedSettings) -> Finding:
    """Check the room on the disk of the data directory."""
    try:
        directory = settings.data_dir or default_data_dir()
    except ConfigError as exc:
        return Finding("bad", "data directory", str(exc))
    there = next(place for place in (directory, *directory.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding("bad", f"{directory} cannot be written", "choose another one with GODOT_DATA_DIR")
    if free < DISK_MIN_BYTES:
        return Finding("bad", f"{size(free)} are free at {directory}", "make room: without, Redis refuses entries")
    return Finding("ok", f"{size(free)} are free at {directory}")


async def there(daemon: Daemon) -> list[Finding]:
    """Check the daemon."""
    address = str(daemon.target.address)
    try:
        state = await daemon.ask(STATUS, timeout_s=ANSWER_S)
    except Unanswered as exc:
        return [_why_not(daemon, exc)]
    findings = [Finding("ok", f"a daemon answers at {address}")]
    for part, advice in (
        ("redis", "entries are refused until it is back; see the status lines of the daemon"),
        ("dewey", "entries wait in Redis until it is back; check DEWEY_MCP_URL or DATABASE_URL, and its own log"),
    ):
        up = state[part] == "up"
        findings.append(Finding("ok" if up else "bad", f"{part} is {state[part]}", "" if up else advice))
    if (reason := state.get("not_durable")) is not None:
        findings.append(Finding("bad", "what Redis acknowledges may be lost", reason))
    if state["dead"]:
        findings.append(Finding("note", f"{state['dead']:,} entries could not be stored", "see godot dead list"))
    if state["dropped"]:
        full = "the queue was full (MAX_QUEUE_SIZE, GODOT_MAX_QUEUE_BYTES)"
        findings.append(Finding("note", f"{state['dropped']:,} entries were dropped", full))
    if state["dewey"] == "up":
        findings.append(await _newest(daemon))
    return findings


async def _newest(daemon: Daemon) -> Finding:
    """Compare the clocks: the newest entry must neither come from the future nor have been long on its way."""
    try:
        page = await daemon.ask(QUERY, limit=1, fields=["created_at", "ingested_at"])
    except Unanswered as exc:
        return Finding("bad", "what is stored cannot be read", str(exc))
    if not page["entries"]:
        return Finding("note", "nothing is stored yet", "try godot demo")
    newest: dict[str, Any] = page["entries"][0]
    created, stored = (datetime.fromisoformat(newest[name]) for name in ("created_at", "ingested_at"))
    ahead = (created - datetime.now(UTC)).total_seconds()
    if ahead > CLOCK_MAX_S:
        return Finding("note", f"the newest entry is {ahead:.0f} s ahead of this clock", "compare the clocks (NTP)")
    delay = (stored - created).total_seconds()
    if delay > DELAY_MAX_S:
        return Finding(
            "note", f"the newest entry was stored {delay:.0f} s after it happened", "it waited, or a clock is off"
        )
    return Finding("ok", f"the newest entry is of {newest['created_at']}, stored {max(delay, 0):.1f} s later")


def _why_not(daemon: Daemon, exc: Unanswered) -> Finding:
    """Tell why there was no answer. A daemon that refuses is there, and says why."""
    address = daemon.target.address
    why = str(exc).removeprefix(f"cannot connect to {address}: ")
    match exc.refusal:
        case 401:
            return Finding("bad", f"the daemon at {address} wants another token ({why})", "--token-file or GODOT_TOKEN")
        case 403:
            return Finding("bad", f"the daemon at {address} lets nobody in by this name ({why})")
        case 503:
            return Finding("bad", f"the daemon at {address} is busy ({why})", "raise the limit, or ask again later")
        case code if code is not None and code < 0:
            return Finding("bad", f"the daemon at {address} answers, and refuses", why)
        case code if code is not None and code >= 1000:
            return Finding("bad", f"the daemon at {address} has ended the connection", why)
    try:
        with socket.create_connection((address.host, address.port), timeout=1):
            return Finding("bad", f"no daemon answers at {address} ({why})", "something else listens there")
    except OSError:
        advice = "start one with godot up, or say where it is with --url or GODOT_URL"
        return Finding("bad", f"no daemon answers at {address} ({why})", advice)
