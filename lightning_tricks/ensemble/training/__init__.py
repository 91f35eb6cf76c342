"""One step, one epoch and one optimiser for all members of an ensemble."""

from lightning_tricks.ensemble.training.backend import BackendBenchmark
from lightning_tricks.ensemble.training.batched import BatchedLayers
from lightning_tricks.ensemble.training.epoch_hooks import EpochHooks
from lightning_tricks.ensemble.training.member_logger import MemberLogger
from lightning_tricks.ensemble.training.separate import SeparateOptimizers
from lightning_tricks.ensemble.training.stack import Stack
from lightning_tricks.ensemble.training.steps import looped_losses, mapped_losses
from lightning_tricks.ensemble.training.stopping import MemberStopping

__all__ = [
    "Stack",
    "mapped_losses",
    "looped_losses",
    "BatchedLayers",
    "BackendBenchmark",
    "SeparateOptimizers",
    "MemberLogger",
    "MemberStopping",
    "EpochHooks",
]
