"""The exit codes of our programs; 0 means success.

When a signal ends a daemon at once, the code is 128 plus its number (`godot.service.signals`).
"""

from __future__ import annotations

from typing import Final

EXIT_NONE: Final = 1
"""Of a command: the answer is no, such as nothing found."""

EXIT_FAILED: Final = 1
"""Of a daemon: it crashed, or entries that it had accepted are not in Redis."""

EXIT_USAGE: Final = 2
"""Options or settings cannot be used, or the daemon rejects the request."""

EXIT_UNREACHABLE: Final = 3
"""The daemon cannot be reached, refuses the connection, or cannot do it now."""

EXIT_PARTIAL: Final = 4
"""Only a part was done."""

EXIT_INTERRUPTED: Final = 130
"""Ctrl-C, as shells count it. A command that follows ends with 0, because Ctrl-C is its usual end."""
