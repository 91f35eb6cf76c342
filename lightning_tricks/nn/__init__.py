"""What a network is made of (torch only)."""

from lightning_tricks.nn.activations import ShiftedReLU
from lightning_tricks.nn.augment import (
    AdditiveNoise,
    ElasticDeformation,
    RandomAffine,
    affine_warp,
    elastic_warp,
)
from lightning_tricks.nn.batch_norm import (
    BatchRenorm1d,
    BatchRenorm2d,
    BatchRenorm3d,
    GhostBatchNorm1d,
    GhostBatchNorm2d,
    GhostBatchNorm3d,
    MeanOnlyBatchNorm1d,
    MeanOnlyBatchNorm2d,
    MeanOnlyBatchNorm3d,
    batch_renorm,
    ghost_batch_norm,
    mean_only_batch_norm,
    micro_batch_momentum,
)
from lightning_tricks.nn.dropout import AlphaDropout, FeatureAlphaDropout, alpha_dropout, matched_p
from lightning_tricks.nn.selu import SelfNormalizingMLP, SELUConv1d, SELUConv2d, SELUConv3d, SELULinear
from lightning_tricks.nn.standardize import Standardize

__all__ = [
    "ShiftedReLU",
    "BatchRenorm1d",
    "BatchRenorm2d",
    "BatchRenorm3d",
    "GhostBatchNorm1d",
    "GhostBatchNorm2d",
    "GhostBatchNorm3d",
    "MeanOnlyBatchNorm1d",
    "MeanOnlyBatchNorm2d",
    "MeanOnlyBatchNorm3d",
    "batch_renorm",
    "ghost_batch_norm",
    "mean_only_batch_norm",
    "micro_batch_momentum",
    "AlphaDropout",
    "FeatureAlphaDropout",
    "alpha_dropout",
    "matched_p",
    "SelfNormalizingMLP",
    "SELUConv1d",
    "SELUConv2d",
    "SELUConv3d",
    "SELULinear",
    "Standardize",
    "RandomAffine",
    "ElasticDeformation",
    "AdditiveNoise",
    "affine_warp",
    "elastic_warp",
]
