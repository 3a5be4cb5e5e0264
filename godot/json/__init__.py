"""JSON and what it turns into; stands alone, and knows nothing of entries or of MCP."""
