"""Work that grows with a message, done so that the event loop goes on meanwhile (LIM-001).

What a small message needs is done at once: a worker thread costs more than that. What a large one needs is done in a
thread, one at a time. Threads of Python take turns, so the loop waits for the longest single call into C at most: that
one is bounded by `entries.MAX_VALUES`.
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
"""What the message weighs that is being worked on."""


async def off_the_loop(weight: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do work of some weight: at once when it is light, else in a thread.

    :param work: touches nothing that the event loop touches too.
    """
    if weight <= HEAVY:
        return work(*args, **kwargs)
    return await trio.to_thread.run_sync(_without_gc, partial(work, *args, **kwargs), limiter=_one_at_a_time)


def _without_gc(work: Callable[[], T]) -> T:
    """Work while Python does not look for cycles: over and over in all that was made so far, and JSON has none.

    A look at everything is one call into C. What was made is put among the old objects, where Python looks last.
    """
    gc.disable()
    try:
        return work()
    finally:
        gc.freeze()
        gc.unfreeze()
        gc.enable()
