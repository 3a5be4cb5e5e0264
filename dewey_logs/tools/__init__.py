"""Dewey's MCP tools."""
