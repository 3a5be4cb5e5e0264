"""The fixtures of all these tests: one Godot for the session."""

from tests.interop.peers import godot, installed

__all__ = ["godot", "installed"]
