"""Levels: from which severity on the entries of a component are taken in (DEW-011).

Dewey keeps them. Godot has a copy, so that they hold while Dewey is away, and notes it beside its queue, so that they
hold after a restart, too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import attrs
import trio

from godot.buffer.protocol import LevelNotes
from godot.entries.levels import LEVELS, RANK, LevelSetting
from godot.errors import BufferUnavailable, DeweyUnavailable
from godot.json.text import NotJSON, dumps, loads
from godot.pipeline.dewey import Dewey
from godot.toolnames import DEWEY_GET_LEVELS

EVERYBODY: Final = "*"
"""Stands for the components that have no level of their own."""

CAPABILITY: Final = "godot/levels"
"""A client that names it in `capabilities.experimental` of `initialize` gets the levels in the answer, and as
`notifications/godot/levels` whenever they change."""


@attrs.frozen
class Filter:
    """The levels at one instant. A filter never changes, so a thread may ask it.

    :param ranks: of the components that have a level of their own; `other` counts for all others.
    """

    ranks: Mapping[str, int] = attrs.Factory(dict)
    other: int = len(LEVELS)

    def lets_through(self, component: str, level: str) -> bool:
        """Whether an entry is taken in. Called for every entry."""
        return RANK[level] <= self.ranks.get(component, self.other)

    def of(self, component: str) -> str | None:
        """Return the level that counts for a component; None: all are taken in."""
        rank = self.ranks.get(component, self.other)
        return LEVELS[rank] if rank < len(LEVELS) else None


class Levels:
    """The levels that count now.

    :param now: seconds since 1970.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._settings: Mapping[str, LevelSetting] = {}
        self._filter = Filter()
        self._changes_at = math.inf
        self._changed = trio.Event()
        self._noted = True

    def filter(self) -> Filter:
        """Return what is taken in now. Called for every message."""
        if self._now() >= self._changes_at:
            self._settle()
        return self._filter

    def settings(self) -> dict[str, LevelSetting]:
        """Return what is set now, by component; a setting that has ended is replaced by its `later`."""
        now = self._now()
        return {
            component: setting if now < setting.ends else LevelSetting(setting.later)
            for component, setting in sorted(self._settings.items())
            if now < setting.ends or setting.later is not None
        }

    def current(self) -> dict[str, str]:
        """Return the levels that count now, by component."""
        return {component: each.level for component, each in self.settings().items() if each.level is not None}

    async def changed(self) -> None:
        """Return when they have changed."""
        await self._changed.wait()

    async def recall(self, notes: LevelNotes) -> None:
        """Take over what was noted, if it can be read."""
        try:
            noted = await notes.noted_levels()
        except BufferUnavailable:
            return
        if noted is not None:
            try:
                self._take_over({component: LevelSetting(**setting) for component, setting in loads(noted).items()})
            except (NotJSON, AttributeError, LookupError, TypeError, ValueError):
                self._take_over({})  # Dewey has the truth, and is asked soon

    async def refresh(self, dewey: Dewey, notes: LevelNotes) -> None:
        """Ask Dewey, and note what is new.

        :raises DeweyUnavailable: then the levels stay as they were.
        """
        answer = await dewey.ask(DEWEY_GET_LEVELS, {})
        if answer.is_error:
            raise DeweyUnavailable(f"Dewey: {answer.json}")
        told: Mapping[str, Any] = loads(answer.json)["levels"]
        if self._take_over({component: LevelSetting(**setting) for component, setting in told.items()}):
            self._noted = False
        if not self._noted:
            with suppress(BufferUnavailable):  # noted at the next refresh
                await notes.note_levels(dumps(told))
                self._noted = True

    def _take_over(self, settings: Mapping[str, LevelSetting]) -> bool:
        is_new = settings != self._settings
        self._settings = settings
        self._settle()
        return is_new

    def _settle(self) -> None:
        """Work out what counts now, and wake those who wait for a change of it."""
        now = self._now()
        ranks = {component: RANK[level] for component, level in self.current().items()}
        passing = Filter(other=ranks.pop(EVERYBODY, len(LEVELS)), ranks=ranks)
        self._changes_at = min((each.ends for each in self._settings.values() if each.ends > now), default=math.inf)
        if passing != self._filter:
            self._filter = passing
            self._changed.set()
            self._changed = trio.Event()
