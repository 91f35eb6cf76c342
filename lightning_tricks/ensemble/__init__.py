"""Many networks as one: bagging, dropout as approximate bagging, and what makes an ensemble better than its members."""

from lightning_tricks.ensemble.bagging import BaggingEnsemble
from lightning_tricks.ensemble.data.bootstrap import Bootstrap, bootstrap
from lightning_tricks.ensemble.data.data_module import BootstrapDataModule
from lightning_tricks.ensemble.evaluation.decomposition import (
    Decomposition,
    EnsembleDecomposition,
    decompose,
    plot_error_by_size,
)
from lightning_tricks.ensemble.evaluation.monte_carlo import MonteCarloDropout
from lightning_tricks.ensemble.evaluation.out_of_bag import OutOfBag
from lightning_tricks.ensemble.evaluation.prediction import Prediction

__all__ = [
    "BaggingEnsemble",
    "BootstrapDataModule",
    "Bootstrap",
    "bootstrap",
    "Prediction",
    "MonteCarloDropout",
    "OutOfBag",
    "EnsembleDecomposition",
    "Decomposition",
    "decompose",
    "plot_error_by_size",
]
