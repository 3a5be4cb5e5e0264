"""What the commands that ask the running daemon share: how it is asked, and how its answer is written."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import attrs
import click
import trio

from godot import __version__
from godot.cli.target import Target
from godot.json.text import dumps, loads
from godot.mcp.client import CallFailed, CallRefused, Client
from godot.mcp.transport import in_a_line
from godot.mcp.websocket.dial import over_websocket
from godot.service.exits import EXIT_INTERRUPTED, EXIT_UNREACHABLE, EXIT_USAGE
from godot.service.masking import masked
from godot.service.signals import Lifecycle

TOO_LARGE: Final = 1009
"""The close code for a message that is larger than the daemon takes (`GODOT_MAX_MESSAGE_BYTES`)."""

ANSWER_MAX_BYTES: Final = 16 * 1024 * 1024
CALL_S: Final = 60.0
"""How long an answer may take: putting back ten thousand dead entries takes a second or two."""


class Unanswered(Exception):
    """The daemon did not do what it was asked; the text says why.

    :param code: the exit code that follows from it.
    :param refusal: how the daemon refused, if it did: an HTTP status, a close code of WebSocket, or the code of a
        JSON-RPC error.
    """

    def __init__(self, reason: str, code: int = EXIT_UNREACHABLE, refusal: int | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.refusal = refusal


class ReaderGone(Exception):
    """Nobody reads our stdout any more: the pipe is closed."""


class Daemon:
    """The daemon that runs, as commands ask it."""

    def __init__(self, client: Client, target: Target) -> None:
        self._client = client
        self.target = target

    async def ask(self, tool: str, *, timeout_s: float = CALL_S, **arguments: object) -> dict[str, Any]:
        """Call a tool; arguments that are None are left out.

        :raises Unanswered: it did not answer, or said no.
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        return await self.ask_raw(tool, dumps(given), timeout_s=timeout_s)

    async def ask_raw(self, tool: str, arguments: bytes, *, timeout_s: float = CALL_S) -> dict[str, Any]:
        """Call a tool with arguments that are JSON already.

        :raises Unanswered: see `ask`.
        """
        try:
            with trio.fail_after(timeout_s):
                answer = await self._client.call(tool, arguments)
        except CallFailed as exc:
            if exc.code == TOO_LARGE:
                raise Unanswered(exc.said or str(exc), EXIT_USAGE, exc.code) from exc
            raise Unanswered(str(exc), refusal=exc.code) from exc
        except CallRefused as exc:
            hint = f"; the daemon is older than this command ({__version__})" if "Unknown tool" in exc.message else ""
            raise Unanswered(f"{in_a_line(exc.message)}{hint}", EXIT_USAGE, exc.code) from exc
        except trio.TooSlowError as exc:
            raise Unanswered(f"no answer within {timeout_s:g} s") from exc
        if answer.kind is not None:
            raise Unanswered(answer.json, EXIT_USAGE if answer.kind == "rejected" else EXIT_UNREACHABLE)
        value: dict[str, Any] = loads(answer.json)
        return value


Work = Callable[[Daemon], Awaitable[int]]


async def run_asking(work: Work, target: Target, life: Lifecycle, *, interrupted: int = EXIT_INTERRUPTED) -> int:
    """Do the work of a command; return the exit code.

    :param interrupted: the exit code after Ctrl-C.
    """
    life.ready.set()
    code = 0
    async with trio.open_nursery() as nursery:

        async def end_when(wait: Callable[[], Awaitable[None]], ending: int) -> None:
            nonlocal code
            await wait()
            code = ending
            nursery.cancel_scope.cancel()

        nursery.start_soon(end_when, life.stop.wait, interrupted, name="signals")
        if _is_pipe(sys.stdout.fileno()):
            nursery.start_soon(end_when, _until_reader_is_gone, 0, name="reader")
        connect = over_websocket(target.address, target.token, max_message_bytes=ANSWER_MAX_BYTES)
        client = Client(connect, name=f"godot {_command()}", version=__version__)
        await nursery.start(client.run)
        try:
            code = await work(Daemon(client, target))
        except Unanswered as exc:
            address = str(target.address)
            complain(str(exc) if address in str(exc) else f"{address}: {exc}")
            code = exc.code
        except ReaderGone:
            code = 0
        nursery.cancel_scope.cancel()
    return code


def write(text: str, *, end: str = "\n") -> None:
    """Write a line of data to stdout.

    :raises ReaderGone: nobody reads it.
    """
    try:
        sys.stdout.write(text + end)
        sys.stdout.flush()
    except UnicodeEncodeError:  # the terminal's encoding
        write(text.encode("ascii", "backslashreplace").decode(), end=end)
    except BrokenPipeError:
        # Python would write its buffer again at exit, with the same result.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ReaderGone from None


def complain(text: str) -> None:
    """Write a line that is no data to stderr."""
    with suppress(OSError):
        click.echo(f"godot {_command()}: {masked(text)}", err=True)


def _command() -> str:
    context = click.get_current_context(silent=True)
    return context.command_path.partition(" ")[2] if context is not None else ""


def _is_pipe(descriptor: int) -> bool:
    return stat.S_ISFIFO(os.fstat(descriptor).st_mode)


async def _until_reader_is_gone() -> None:
    """Return when the other end of stdout, a pipe, is closed: only then does it become readable."""
    await trio.lowlevel.wait_readable(sys.stdout.fileno())
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@attrs.frozen
class Style:
    """How to write for the one who reads.

    :param color: with colours.
    :param width: columns of the terminal; None: not a terminal, lines are as long as they are.
    """

    color: bool = False
    width: int | None = None

    @classmethod
    def of_stdout(cls, color: str = "auto") -> Style:
        """Find out what stdout is.

        :param color: auto, always or never; auto heeds `NO_COLOR` (no-color.org).
        """
        terminal = sys.stdout.isatty()
        plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        return cls(
            color == "always" or (color == "auto" and terminal and not plain),
            os.get_terminal_size(sys.stdout.fileno()).columns or 80 if terminal else None,
        )
