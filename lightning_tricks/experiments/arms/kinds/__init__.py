"""Kinds of changes: of settings, data, learning rates, of the network and of functions that its forward calls."""
