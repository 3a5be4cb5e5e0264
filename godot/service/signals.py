"""How a daemon is told to stop: SIGTERM, SIGINT, and SIGHUP, which a terminal sends that is closed (REL-005).

SIGQUIT stays what it is: the end at once, with a core dump where the system makes one.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import attrs
import trio


@attrs.define(eq=False)
class Lifecycle:
    """What a daemon and its signals tell each other."""

    ready: trio.Event = attrs.Factory(trio.Event)
    """The daemon sets it when it has something to drain; until then a signal ends it at once."""
    stop: trio.Event = attrs.Factory(trio.Event)
    """Set by the first signal: stop taking things in, finish, return."""


async def run_with_signals(main: Callable[[Lifecycle], Awaitable[int]]) -> int:
    """Run a daemon until it returns, passing it the first signal; a second SIGTERM or SIGINT ends it at once.

    A second SIGHUP means nothing: a shell that ends and the terminal that closes each send one. A daemon whose
    SIGHUP was ignored when it started (nohup) goes on ignoring it.

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
    # trio delivers a signal that is still pending when the receiver closes once more, to whatever handled
    # it before. By then the daemon is at its end, and must not be killed on its last line.
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
    with trio.open_signal_receiver(*numbers) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, signals, nursery.cancel_scope, name="signals")
            code = await main(life)
            nursery.cancel_scope.cancel()
    return code
