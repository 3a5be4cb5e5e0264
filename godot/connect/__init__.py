"""`godot connect`: lets a host that only starts programs talk to Godot's WebSocket.

    host ── stdin ──▶ a line is a message ──▶ text frame ──▶ Godot
         ◀─ stdout ── one line ◀──────────── text frame ◀──

Rule 1: `Conversation` decides what is remembered, dropped, or answered in Godot's place. It does no I/O, and is told
the time.
Rule 2: a request gets one answer, Godot's or ours. Any other message may be lost with a connection.
Rule 3: messages pass as they are. They are read for their ids, and for the three methods that reconnecting and
cancelling need; they are never rewritten.
"""

from __future__ import annotations

from godot.connect.lines import MAX_MESSAGE_BYTES
from godot.connect.pipe import HostGone, Pipe

__all__ = ["MAX_MESSAGE_BYTES", "HostGone", "Pipe"]
