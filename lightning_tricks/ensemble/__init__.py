"""Many networks as one: bagging, dropout as approximate bagging, and what makes an ensemble better than its members."""

from lightning_tricks.ensemble.bagging import BaggingEnsemble
from lightning_tricks.ensemble.bootstrap import Bootstrap, bootstrap
from lightning_tricks.ensemble.data import BootstrapDataModule
from lightning_tricks.ensemble.decomposition import Decomposition, EnsembleDecomposition, decompose
from lightning_tricks.ensemble.figures import plot_error_by_size
from lightning_tricks.ensemble.monte_carlo import MonteCarloDropout
from lightning_tricks.ensemble.out_of_bag import OutOfBag
from lightning_tricks.ensemble.prediction import Prediction

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
