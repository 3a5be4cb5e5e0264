"""MCP over WebSocket: listening for it, opening it, and how its frames travel."""
