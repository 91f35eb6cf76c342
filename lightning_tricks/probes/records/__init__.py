"""Frozen records of a step that turn into plain JSON."""

__all__: list[str] = []
