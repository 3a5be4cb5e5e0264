"""`godot dead`: the tools of `godot.dead`, called on the daemon that runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import attrs
import click
import trio

from godot import __version__, codec
from godot.cli.connect import Target
from godot.dead import LIST, PURGE, RETRY
from godot.mcp.client import CallFailed, CallRefused, Client
from godot.mcp.dial import over_websocket
from godot.signals import Life

EXIT_NONE: Final = 1
EXIT_UNREACHABLE: Final = 3

ANSWER_MAX_BYTES: Final = 16 * 1024 * 1024
CALL_S: Final = 60.0
"""How long an answer may take: putting back ten thousand entries takes a second or two."""

SHOWN_CHARS: Final = 160


class Unanswered(Exception):
    """The daemon did not do what it was asked; the text says why."""


@attrs.frozen
class Call:
    """What to ask, of whom, and how to write what comes back.

    :param json: as JSON lines; else for a reader.
    """

    target: Target
    json: bool


class Daemon:
    """The daemon, as the commands ask it."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def ask(self, tool: str, **arguments: object) -> dict[str, Any]:
        """Call a tool.

        :raises Unanswered: it did not answer, or said no.
        """
        try:
            with trio.fail_after(CALL_S):
                answer = await self._client.call(tool, codec.dumps(arguments))
        except CallFailed as exc:
            raise Unanswered(str(exc)) from exc
        except CallRefused as exc:
            raise Unanswered(f"{exc}; a token with the role admin is needed, and a Godot that has {tool}") from exc
        except trio.TooSlowError as exc:
            raise Unanswered(f"no answer within {CALL_S:g} s") from exc
        if answer.is_error:
            raise Unanswered(answer.json)
        value: dict[str, Any] = codec.loads(answer.json)
        return value


async def run_list(limit: int | None, call: Call, life: Life) -> int:
    """Write the dead entries, oldest first; return the exit code."""

    async def show(daemon: Daemon) -> int:
        skip, left = 0, limit
        while left is None or left > 0:
            page = await daemon.ask(LIST, skip=skip, limit=min(1_000, left or 1_000))
            for entry in page["dead"]:
                click.echo(codec.dumps(entry) if call.json else "\n".join(_lines(entry)))
            left = None if left is None else left - len(page["dead"])
            if page["next_skip"] is None:
                break
            skip = page["next_skip"]
        if skip == 0 and not page["dead"]:
            click.echo("godot dead: there are none", err=True)
            return EXIT_NONE
        return 0

    return await _with_daemon(show, call, life)


async def run_act(tool: str, ids: tuple[str, ...], call: Call, life: Life) -> int:
    """Put entries back or delete them, those of these ids or, without any, all; return the exit code."""

    async def act(daemon: Daemon) -> int:
        done = await daemon.ask(tool, **({"ids": list(ids)} if ids else {"all": True}))
        click.echo(codec.dumps(done) if call.json else " ".join(f"{name}={value}" for name, value in done.items()))
        return 0 if done["retried" if tool == RETRY else "purged"] else EXIT_NONE

    return await _with_daemon(act, call, life)


run_retry: Final = partial(run_act, RETRY)
run_purge: Final = partial(run_act, PURGE)


async def _with_daemon(work: Callable[[Daemon], Awaitable[int]], call: Call, life: Life) -> int:
    life.ready.set()
    address = call.target.address
    code = EXIT_UNREACHABLE
    async with trio.open_nursery() as nursery:
        connect = over_websocket(address, call.target.token, max_message_bytes=ANSWER_MAX_BYTES)
        client = Client(connect, name="godot dead", version=__version__)
        await nursery.start(client.run)
        try:
            code = await work(Daemon(client))
        except Unanswered as exc:
            click.echo(f"godot dead: {address}: {exc}", err=True)
        nursery.cancel_scope.cancel()
    return code


def _lines(entry: Mapping[str, Any]) -> Iterator[str]:
    yield f"{entry['id']}  {_plain(entry['reason'])}"
    text = _plain(entry["entry"])
    yield f"    {text[:SHOWN_CHARS]}{'…' if entry['chars'] > SHOWN_CHARS else ''}"


def _plain(text: str) -> str:
    """Write what a terminal would obey as escapes: the text may be anybody's."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
