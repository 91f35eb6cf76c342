"""Experiments: short runs on copies, each of which answers one question with a number."""

from lightning_tricks.experiments.free_outputs import free_outputs, share

__all__ = ["free_outputs", "share"]
