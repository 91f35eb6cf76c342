"""The data: what can be asked of them without a training, and without a network."""

from lightning_tricks.experiments.data.duplicates import duplicates

__all__ = ["duplicates"]
