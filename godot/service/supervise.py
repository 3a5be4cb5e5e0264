"""Restarts a task that talks to other programs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from godot.errors import ConfigError
from godot.service.backoff import Jitter, delays, jittered

STEADY_S = 60.0
"""After a task ran for so long, the delay before its next restart begins again at the shortest."""


async def supervise(
    name: str, run: Callable[[], Awaitable[None]], *, report: Callable[[str], None], jitter: Jitter = jittered
) -> None:
    """Run `run`, again and again while it ends by an error. Returns when `run` returns.

    Only for tasks that talk to other programs (sender, maintenance): a bug in the batcher or the listener has to end
    the process, because entries would pile up behind it.

    :param report: called with one line for each restart.
    :raises ConfigError: as `run` raised it; trying again would not mend it.
    """
    pauses = delays(1.0, jitter=jitter)
    while True:
        started = trio.current_time()
        try:
            await run()
            return
        except ConfigError:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it is, the entries are safe in Redis
            if trio.current_time() - started >= STEADY_S:
                pauses = delays(1.0, jitter=jitter)
            pause = next(pauses)
            report(f"{name} failed and starts again in {pause:.1f} s: {exc!r}")
        await trio.sleep(pause)
