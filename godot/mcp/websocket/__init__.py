"""MCP over WebSocket: how it is listened for, how it is dialled, how frames travel."""
