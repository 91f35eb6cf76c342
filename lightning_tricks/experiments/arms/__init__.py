"""Arms: changes of a training, each tried on a copy for a few steps against the unchanged one."""

from lightning_tricks.experiments.arms.arm import Arm
from lightning_tricks.experiments.arms.kinds import (
    ACTIVATION,
    AXES,
    CLIP,
    DATA,
    FUNCTIONS,
    NETWORK,
    NORMALIZING,
    SETTINGS,
)

# Learning rates are climbed, not listed.
ARMS: tuple[Arm, ...] = (*SETTINGS, *DATA, *AXES, *FUNCTIONS, *NORMALIZING, CLIP, ACTIVATION, *NETWORK)

__all__ = ["ARMS", "Arm"]
