"""Bootstrap sets, and the batches in which each member finds its own."""
