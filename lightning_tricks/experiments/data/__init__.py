"""The data: what can be asked of them without a training, and without a network."""

from lightning_tricks.experiments.data.classes import classes
from lightning_tricks.experiments.data.constant_features import constant_features
from lightning_tricks.experiments.data.duplicates import duplicates
from lightning_tricks.experiments.data.finite_values import finite_values
from lightning_tricks.experiments.data.leaking_features import leaking_features
from lightning_tricks.experiments.data.paired_transforms import paired_transforms
from lightning_tricks.experiments.data.scales import scales
from lightning_tricks.experiments.data.wrong_labels import wrong_labels
from lightning_tricks.experiments.data.wrong_values import wrong_values

__all__ = [
    "classes",
    "constant_features",
    "duplicates",
    "finite_values",
    "leaking_features",
    "paired_transforms",
    "scales",
    "wrong_labels",
    "wrong_values",
]
