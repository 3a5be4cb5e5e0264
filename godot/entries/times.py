"""Times as text: the one place where moments and lengths of time are written and read."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_SPAN: Final = re.compile("([0-9]{1,9})([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def iso(moment: datetime, timespec: str = "microseconds") -> str:
    """Write a moment as entries carry it, ISO 8601 in UTC; such texts sort by time.

    :param timespec: as `datetime.isoformat` takes it.
    """
    return moment.astimezone(UTC).isoformat(timespec=timespec).removesuffix("+00:00") + "Z"


def iso_ns(moment_ns: int) -> str:
    """Write as `iso` does a moment of this second, or of the last few: every entry needs one.

    :param moment_ns: nanoseconds since 1970.
    """
    seconds, rest_ns = divmod(moment_ns, 1_000_000_000)
    return f"{_second(seconds)}.{rest_ns // 1000:06d}Z"


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").removesuffix("+00:00")


def span(text: str) -> timedelta | None:
    """Read a length of time, such as `90s`, `30m`, `2h`, `7d` or `1w`; return None when it is none."""
    if not (found := _SPAN.fullmatch(text)):
        return None
    try:
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError:
        return None
