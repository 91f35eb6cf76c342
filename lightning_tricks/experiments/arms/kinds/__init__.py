"""Kinds of changes: of settings, data, learning rates, axes, of the network and of functions that its forward calls."""

from lightning_tricks.experiments.arms.kinds.axes import AXES
from lightning_tricks.experiments.arms.kinds.data import DATA
from lightning_tricks.experiments.arms.kinds.functions import FUNCTIONS
from lightning_tricks.experiments.arms.kinds.network import NETWORK
from lightning_tricks.experiments.arms.kinds.normalizing import ACTIVATION, NORMALIZING
from lightning_tricks.experiments.arms.kinds.rates import CLIP
from lightning_tricks.experiments.arms.kinds.settings import SETTINGS

__all__ = ["ACTIVATION", "AXES", "CLIP", "DATA", "FUNCTIONS", "NETWORK", "NORMALIZING", "SETTINGS"]
