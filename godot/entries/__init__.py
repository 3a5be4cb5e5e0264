"""What an entry is, its bytes, its level and its times."""
