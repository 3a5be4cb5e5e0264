"""The work of the commands that change what is kept: level, pin, clear."""

from __future__ import annotations

import sys
from typing import Any, Final

import click
import trio

from godot.cli.daemon import Daemon, Work, complain, write
from godot.cli.render import counted, harmless, table
from godot.json.text import dumps
from godot.service.exits import EXIT_NONE, EXIT_USAGE
from godot.toolnames import CLEAR, GET_LEVEL, PIN, SET_LEVEL

CLEAR_S: Final = 3_600.0
"""Deleting millions of entries one by one takes minutes."""


def show_levels(component: str | None, *, as_json: bool) -> Work:
    """Write which levels are set."""

    async def work(daemon: Daemon) -> int:
        levels = (await daemon.ask(GET_LEVEL, component=component))["levels"]
        if as_json:
            write(dumps(levels).decode())
        elif levels:
            rows = [[harmless(name), each["level"], each["until"] or ""] for name, each in levels.items()]
            for line in table([["COMPONENT", "LEVEL", "UNTIL"], *rows]):
                write(line)
        if not levels:
            complain("none is set: everything is stored")
            return EXIT_NONE
        return 0

    return work


def set_level(component: str, level: str | None, span: int | None, *, as_json: bool) -> Work:
    """Set a level, or forget it."""

    async def work(daemon: Daemon) -> int:
        # null forgets a level, so it has to be sent: `ask` leaves out what is None.
        given = dumps({"component": component, "level": level, **({"for_s": span} if span else {})})
        done = await daemon.ask_raw(SET_LEVEL, given)
        if as_json:
            write(dumps(done).decode())
        else:
            until = f" until {done['until']}" if done.get("until") else ""
            before = f" (it was {done['previous']})" if done.get("previous") else ""
            write(f"{harmless(component)}: {done['level'] or 'everything is stored'}{until}{before}")
        return 0

    return work


def pin_trace(trace_id: str | None, note: str | None, span: int | None, *, remove: bool, as_json: bool) -> Work:
    """Pin a trace or let it go, and write what is pinned."""

    async def work(daemon: Daemon) -> int:
        until = None if span is None else f"{span}s"
        before = {each["trace_id"] for each in (await daemon.ask(PIN))["pins"]} if remove else set()
        pins = (await daemon.ask(PIN, trace_id=trace_id, note=note, until=until, remove=remove or None))["pins"]
        if as_json:
            write(dumps(pins).decode())
        elif pins:
            rows = [
                [each["trace_id"], each["pinned_at"], each["until"] or "for ever", harmless(each["note"] or "")]
                for each in pins
            ]
            for line in table([["TRACE", "SINCE", "UNTIL", "NOTE"], *rows]):
                write(line)
        if trace_id is not None and remove:
            was_pinned = trace_id in before
            complain(f"{trace_id} is no longer pinned" if was_pinned else f"{trace_id} was not pinned")
            return 0 if was_pinned else EXIT_NONE
        if not pins:
            complain("nothing is pinned")
        return 0 if pins else EXIT_NONE

    return work


def clear_entries(asked: dict[str, Any], *, dry_run: bool, yes: bool, as_json: bool) -> Work:
    """Delete entries, after asking on a terminal."""

    async def work(daemon: Daemon) -> int:
        if not (dry_run or yes):
            if not sys.stdin.isatty():
                complain("they will be gone for ever; say --yes if that is meant")
                return EXIT_USAGE
            count = (await daemon.ask(CLEAR, timeout_s=CLEAR_S, **asked, dry_run=True))["deleted"]
            click.echo(f"{counted(count)} will be gone for ever. Delete them? [y/N] ", err=True, nl=False)
            answer = await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
            if answer.strip().lower() not in ("y", "yes"):
                complain("nothing was deleted")
                return EXIT_NONE
        done = await daemon.ask(CLEAR, timeout_s=CLEAR_S, **asked, dry_run=dry_run)
        if as_json:
            write(dumps(done).decode())
        else:
            verb = "would be" if dry_run else "was" if done["deleted"] == 1 else "were"
            write(f"{counted(done['deleted'])} {verb} deleted")
        return 0 if done["deleted"] else EXIT_NONE

    return work
