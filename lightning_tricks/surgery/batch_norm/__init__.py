"""Batch norm exchanged, inserted, folded, and its population statistics."""

__all__: list[str] = []
