"""Runs the stations of an entry's journey in one nursery. Read this first.

    MCP ──▶ listener ─┐
                      ├─▶ [channel] ─▶ batcher ─▶ buffer ─▶ sender ─▶ Dewey
    HTTP ─▶ http ─────┘                100/100 ms  Redis    backoff   PostgreSQL

The producers (listener, http, maintenance, durability, status line) run inside the cancel scope `intake`; the batcher
and the sender run outside of it, because they have to finish. A stop cancels `intake`. With it the channel's last
sender closes; the batcher runs dry and closes its own channel; the sender delivers the rest and returns; the nursery's
deadline bounds it all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

import trio

from godot.buffer.protocol import Buffer
from godot.errors import BufferUnavailable
from godot.mcp.websocket.listen import serve_websocket
from godot.pipeline.batcher import Batcher
from godot.pipeline.status import run_durability_check, run_status_line
from godot.service.exits import EXIT_FAILED
from godot.service.signals import Lifecycle
from godot.service.site import serve_http
from godot.service.supervise import supervise
from godot.settings import GodotSettings
from godot.stations import Dependencies, build

LAST_WORD_S: Final = 1.0
"""How long the sender has, when everything is delivered, to tell of drops, or to ask whether a Dewey that was away is
back. Drops that it could not tell of are kept, and told of after the next start."""

POLL_S: Final = 0.1
"""How often a drain asks whether all is delivered."""

DURABILITY_CHECK_S: Final = 5.0
"""How often Redis is checked, beside each new connection to it: CONFIG SET changes a server that runs."""


async def run_pipeline(
    settings: GodotSettings, dependencies: Dependencies, life: Lifecycle, on_ready: Callable[[], None]
) -> int:
    """Take entries in and deliver them until `life.stop`, then drain (REL-005).

    :param on_ready: called when calls are answered.
    :returns: the exit code: 0, or 1 when entries that were answered `queued` could not be written to Redis.
    """
    stations, buffer = build(settings, dependencies), dependencies.buffer
    status, batcher, written = stations.status, stations.batcher, trio.Event()
    keep_going = partial(supervise, report=lambda text: status.line("restart", reason=text))
    send = partial(keep_going, "sender", stations.sender.run)
    await status.ask_first()
    await stations.levels.recall(buffer)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_all, batcher, written, name="batcher")
        nursery.start_soon(deliver_all, send, buffer, written, name="sender")
        async with stations.inlet:
            with trio.CancelScope() as intake:
                async with trio.open_nursery() as producers:
                    await producers.start(serve_websocket, stations.server, dependencies.listeners, name="listener")
                    if dependencies.http:
                        await producers.start(serve_http, stations.site, dependencies.http, name="http")
                    producers.start_soon(keep_going, "maintenance", stations.maintain, name="maintenance")
                    producers.start_soon(run_durability_check, status, buffer, DURABILITY_CHECK_S, name="durability")
                    producers.start_soon(run_status_line, status, settings.status_s, name="status line")
                    on_ready()
                    life.ready.set()
                    await life.stop.wait()
                    status.line("draining", seconds=f"{settings.drain_s:g}")
                    nursery.cancel_scope.deadline = trio.current_time() + settings.drain_s
                    intake.cancel()

    status.line("stopped", drained=not nursery.cancel_scope.cancelled_caught, lost=batcher.unwritten)
    return EXIT_FAILED if batcher.unwritten else 0


async def write_all(batcher: Batcher, written: trio.Event) -> None:
    """Run the batcher, and set `written` when it has pushed all that was accepted."""
    await batcher.run()
    written.set()


async def deliver_all(send: Callable[[], Awaitable[None]], buffer: Buffer, written: trio.Event) -> None:
    """Run the sender until it has delivered all.

    A sender that finds Dewey away would try for the whole drain. It ends as soon as nothing is left to deliver.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_when_empty, buffer, written, nursery.cancel_scope, name="end of drain")
        await send()
        nursery.cancel_scope.cancel()


async def _end_when_empty(buffer: Buffer, written: trio.Event, sending: trio.CancelScope) -> None:
    await written.wait()
    while True:
        with suppress(BufferUnavailable):
            counts = await buffer.counts()
            if not counts.queued + counts.in_flight:
                break
        await trio.sleep(POLL_S)
    sending.deadline = trio.current_time() + LAST_WORD_S
