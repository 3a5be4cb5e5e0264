"""What Dewey asks of its database, and a store in memory that answers the same."""
