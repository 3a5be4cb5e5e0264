"""The signals that stop a daemon: SIGTERM, SIGINT, and SIGHUP, which a closed terminal sends (REL-005).

SIGQUIT keeps its meaning: it ends the process at once, with a core dump if the system makes one.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import attrs
import trio


@attrs.define(eq=False)
class Lifecycle:
    """The events between a daemon and its signals."""

    ready: trio.Event = attrs.Factory(trio.Event)
    """Set by the daemon when it has something to drain; until then a signal ends it at once."""
    stop: trio.Event = attrs.Factory(trio.Event)
    """Set by the first signal: stop taking entries in, finish, return."""


async def run_with_signals(main: Callable[[Lifecycle], Awaitable[int]]) -> int:
    """Run a daemon until it returns. The first signal sets `stop`; a second SIGTERM or SIGINT ends it at once.

    A second SIGHUP is ignored, because a shell that ends and its terminal that closes each send one. If SIGHUP was
    ignored when the daemon started (nohup), it stays ignored.

    :returns: the exit code: what `main` returned, or 128 + the signal that ended it.
    """
    life = Lifecycle()
    code = 0

    async def watch(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        nonlocal code
        async for number in signals:
            if number == signal.SIGHUP and life.stop.is_set():
                continue
            if life.stop.is_set() or not life.ready.is_set():
                code = 128 + number
                scope.cancel()
            life.stop.set()

    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    # When the receiver closes, trio delivers a pending signal once more, to the handler from before. By then the daemon
    # is at its end, and must not be killed on its last line.
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
    with trio.open_signal_receiver(*numbers) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, signals, nursery.cancel_scope, name="signals")
            code = await main(life)
            nursery.cancel_scope.cancel()
    return code
