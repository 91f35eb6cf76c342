"""Batch normalisation for batches that are small, uneven or accumulated."""

from lightning_tricks.nn.batch_norm.ghost import (
    GhostBatchNorm1d,
    GhostBatchNorm2d,
    GhostBatchNorm3d,
    ghost_batch_norm,
    ghost_groups,
)
from lightning_tricks.nn.batch_norm.mean_only import (
    MeanOnlyBatchNorm1d,
    MeanOnlyBatchNorm2d,
    MeanOnlyBatchNorm3d,
    mean_only_batch_norm,
)
from lightning_tricks.nn.batch_norm.renorm import BatchRenorm1d, BatchRenorm2d, BatchRenorm3d, batch_renorm
from lightning_tricks.nn.batch_norm.running import BatchNorm, RunningStatistics, micro_batch_momentum

__all__ = [
    "GhostBatchNorm1d",
    "GhostBatchNorm2d",
    "GhostBatchNorm3d",
    "ghost_batch_norm",
    "ghost_groups",
    "BatchRenorm1d",
    "BatchRenorm2d",
    "BatchRenorm3d",
    "batch_renorm",
    "MeanOnlyBatchNorm1d",
    "MeanOnlyBatchNorm2d",
    "MeanOnlyBatchNorm3d",
    "mean_only_batch_norm",
    "BatchNorm",
    "RunningStatistics",
    "micro_batch_momentum",
]
