"""Arms: changes of a training, each tried on a copy for a few steps against the unchanged one."""

from lightning_tricks.experiments.arms.arm import Arm
from lightning_tricks.experiments.arms.data import DATA
from lightning_tricks.experiments.arms.network import NETWORK
from lightning_tricks.experiments.arms.rates import CLIP
from lightning_tricks.experiments.arms.settings import SETTINGS

ARMS: tuple[Arm, ...] = (*SETTINGS, *DATA, CLIP, *NETWORK)  # learning rates are climbed, not listed

__all__ = ["ARMS", "Arm"]
