"""Batch norm exchanged, inserted, folded, and its population statistics."""
