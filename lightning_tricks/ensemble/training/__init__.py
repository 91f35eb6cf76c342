"""One epoch and one optimiser for all members of an ensemble: hooks, logs, stopping."""

from lightning_tricks.ensemble.training.epoch_hooks import EpochHooks
from lightning_tricks.ensemble.training.member_logger import MemberLogger
from lightning_tricks.ensemble.training.separate import SeparateOptimizers
from lightning_tricks.ensemble.training.stopping import MemberStopping

__all__ = ["EpochHooks", "MemberLogger", "MemberStopping", "SeparateOptimizers"]
