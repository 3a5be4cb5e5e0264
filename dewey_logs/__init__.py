"""Dewey: the log store on PostgreSQL and its MCP tools."""
