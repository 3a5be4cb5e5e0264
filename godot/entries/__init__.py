"""What an entry is, and its bytes."""
