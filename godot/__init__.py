"""Godot, the flight recorder for systems of MCP servers."""

__version__ = "0.1.0"
