"""How the programs end: their exit codes. 0: all is fine.

A signal that ends a daemon at once gives 128 and its number (`godot.service.signals`).
"""

from __future__ import annotations

from typing import Final

EXIT_NONE: Final = 1
"""A command: the answer is no, such as nothing found."""

EXIT_FAILED: Final = 1
"""A daemon: it crashed, or entries that it had accepted are not in Redis."""

EXIT_USAGE: Final = 2
"""Options or settings cannot be used, or the daemon does not take what it was asked."""

EXIT_UNREACHABLE: Final = 3
"""The daemon cannot be reached, refuses us, or cannot do it now."""

EXIT_PARTIAL: Final = 4
"""A part was done."""

EXIT_INTERRUPTED: Final = 130
"""Ctrl-C, as shells have it. A command that follows ends with 0 then, because that is how it is ended."""
