"""What any daemon of ours is made of."""
