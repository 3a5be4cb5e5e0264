"""Keeps the event loop going during work that grows with a message (LIM-001).

Work on a small message is done at once: a worker thread would cost more. Work on a large message is done in a thread,
one at a time. Python's threads take turns, so the loop waits at most for the longest single call into C, which
`json.text.MAX_VALUES` bounds.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Final, ParamSpec, TypeVar

import trio

P = ParamSpec("P")
T = TypeVar("T")

HEAVY: Final = 256 * 1024
"""The weight, in bytes, above which a thread is worth what it costs."""

_one_at_a_time: Final = trio.CapacityLimiter(1)

message_weight: Final[ContextVar[int]] = ContextVar("message_weight", default=0)
"""The weight of the message that is being worked on."""


async def off_the_loop(weight: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do work of some weight: at once if it is light, else in a thread.

    :param work: must touch nothing that the event loop touches too.
    """
    if weight <= HEAVY:
        return work(*args, **kwargs)
    return await trio.to_thread.run_sync(_without_gc, partial(work, *args, **kwargs), limiter=_one_at_a_time)


def _without_gc(work: Callable[[], T]) -> T:
    """Work without Python's garbage collector, which would search all new objects again and again for cycles.

    JSON has none. The new objects are then put into the oldest generation, which is searched least: a search of
    everything is one call into C.
    """
    gc.disable()
    try:
        return work()
    finally:
        gc.freeze()
        gc.unfreeze()
        gc.enable()
