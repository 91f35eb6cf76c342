"""Frozen records of a step that turn into plain JSON."""
