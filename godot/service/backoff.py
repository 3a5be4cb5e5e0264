"""Delays before the next try."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import Final, TypeAlias

Jitter: TypeAlias = Callable[[float], float]

MAX_DELAY_S: Final = 30.0
"""No delay grows beyond this (REL-002)."""


def jittered(delay: float) -> float:
    """Shorten a delay at random by up to a half, so that programs that failed together do not return together."""
    return delay * random.uniform(0.5, 1.0)


def delays(first: float, *, longest: float = MAX_DELAY_S, jitter: Jitter = jittered) -> Iterator[float]:
    """Yield delays in seconds without end, each twice the one before up to `longest`, then jittered."""
    growing = []
    while first < longest:
        growing.append(first)
        first *= 2
    return map(jitter, chain(growing, repeat(longest)))
