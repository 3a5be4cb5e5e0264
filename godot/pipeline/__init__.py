"""The stations of an entry's journey, and what an operator sees of them."""
