"""The ways in for entries."""
