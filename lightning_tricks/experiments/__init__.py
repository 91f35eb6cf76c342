"""Experiments: short runs on copies, each of which answers one question with a number.

Each is a function of a model (a LightningModule, or any module with a ``loss_fn``) and a batch or data, and gives an
:class:`~lightning_tricks.Experiment`.
"""

from lightning_tricks.experiments.batch_entries import batch_entries
from lightning_tricks.experiments.batch_order import batch_order
from lightning_tricks.experiments.changes import changes
from lightning_tricks.experiments.channel_axis import channel_axis
from lightning_tricks.experiments.data import (
    classes,
    constant_features,
    duplicates,
    finite_values,
    leaking_features,
    paired_transforms,
    scales,
    wrong_labels,
    wrong_values,
)
from lightning_tricks.experiments.evaluation_gap import evaluation_gap
from lightning_tricks.experiments.free_outputs import free_outputs, share
from lightning_tricks.experiments.independence import independence
from lightning_tricks.experiments.input_statistics import input_statistics
from lightning_tricks.experiments.learnable import learnable
from lightning_tricks.experiments.memorise import memorise
from lightning_tricks.experiments.never_read import never_read
from lightning_tricks.experiments.own_input import own_input
from lightning_tricks.experiments.padding import padding
from lightning_tricks.experiments.rate import rate
from lightning_tricks.experiments.reach import reach
from lightning_tricks.experiments.same_sample_twice import same_sample_twice
from lightning_tricks.experiments.token_ids import token_ids
from lightning_tricks.experiments.validation_like_training import validation_like_training

__all__ = [
    "batch_entries",
    "batch_order",
    "changes",
    "channel_axis",
    "classes",
    "constant_features",
    "duplicates",
    "evaluation_gap",
    "finite_values",
    "free_outputs",
    "independence",
    "input_statistics",
    "leaking_features",
    "learnable",
    "memorise",
    "never_read",
    "own_input",
    "padding",
    "paired_transforms",
    "rate",
    "reach",
    "same_sample_twice",
    "scales",
    "share",
    "token_ids",
    "validation_like_training",
    "wrong_labels",
    "wrong_values",
]
