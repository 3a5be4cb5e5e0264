"""Clients that mean no good, among the others: each kind does one thing again and again, for as long as the load runs.

Law of this package: what a hostile client gets is of no concern, and is only counted. What has to hold is judged
elsewhere: every acknowledged entry is stored once (theirs too), the bystander is answered, memory is bounded.
"""

from __future__ import annotations

from typing import Final

from tests.chaos.hostile import connections, messages, questions, readers
from tests.chaos.hostile.crew import Crew, Kind

KINDS: Final[tuple[Kind, ...]] = (*messages.KINDS, *readers.KINDS, *questions.KINDS, *connections.KINDS)

__all__ = ["KINDS", "Crew"]
