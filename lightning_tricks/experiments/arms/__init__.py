"""Arms: changes of a training, each tried on a copy for a few steps against the unchanged one."""

from lightning_tricks.experiments.arms.arm import Arm
from lightning_tricks.experiments.arms.kinds.data import DATA
from lightning_tricks.experiments.arms.kinds.functions import FUNCTIONS
from lightning_tricks.experiments.arms.kinds.network import NETWORK
from lightning_tricks.experiments.arms.kinds.normalizing import ACTIVATION, NORMALIZING
from lightning_tricks.experiments.arms.kinds.rates import CLIP
from lightning_tricks.experiments.arms.kinds.settings import SETTINGS

# Learning rates are climbed, not listed.
ARMS: tuple[Arm, ...] = (*SETTINGS, *DATA, *FUNCTIONS, *NORMALIZING, CLIP, ACTIVATION, *NETWORK)

__all__ = ["ARMS", "Arm"]
