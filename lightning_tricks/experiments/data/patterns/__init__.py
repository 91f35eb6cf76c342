"""Patterns: what is read of a loader, what is near to what, and which are copies; experiments ask of these."""

__all__: list[str] = []
