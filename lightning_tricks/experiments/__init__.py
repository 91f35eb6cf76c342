"""Experiments: short runs on copies, each of which answers one question with a number."""

from lightning_tricks.experiments.independence import independence

__all__ = ["independence"]
