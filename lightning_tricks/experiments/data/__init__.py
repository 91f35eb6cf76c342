"""The data: what can be asked of them without a training, and without a network."""

from lightning_tricks.experiments.data.duplicates import duplicates
from lightning_tricks.experiments.data.leaking_features import leaking_features
from lightning_tricks.experiments.data.wrong_labels import wrong_labels

__all__ = ["duplicates", "leaking_features", "wrong_labels"]
