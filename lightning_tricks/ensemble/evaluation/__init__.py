"""What an ensemble says about patterns, and why it is better than its members."""

from lightning_tricks.ensemble.evaluation.decomposition import (
    Decomposition,
    EnsembleDecomposition,
    decompose,
    plot_error_by_size,
)
from lightning_tricks.ensemble.evaluation.monte_carlo import MonteCarloDropout
from lightning_tricks.ensemble.evaluation.out_of_bag import OutOfBag, OutOfBagDecomposition
from lightning_tricks.ensemble.evaluation.prediction import MeanOfMembers, Prediction
from lightning_tricks.ensemble.evaluation.predictor import EnsemblePredictor

__all__ = [
    "Prediction",
    "MeanOfMembers",
    "EnsemblePredictor",
    "MonteCarloDropout",
    "OutOfBag",
    "OutOfBagDecomposition",
    "Decomposition",
    "EnsembleDecomposition",
    "decompose",
    "plot_error_by_size",
]
