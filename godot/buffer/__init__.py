"""The durable queue between taking entries in and delivering them."""
