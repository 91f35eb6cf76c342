"""Augmentation of a whole batch on its device, every sample by a draw of its own (torch only)."""

from lightning_tricks.nn.augment.random import (
    AdditiveNoise,
    Augmentation,
    ElasticDeformation,
    Movement,
    RandomAffine,
    affine_warp,
    elastic_warp,
)
from lightning_tricks.nn.augment.warp import AffineWarp, ElasticWarp, Warp

__all__ = [
    "AdditiveNoise",
    "AffineWarp",
    "Augmentation",
    "ElasticDeformation",
    "ElasticWarp",
    "Movement",
    "RandomAffine",
    "Warp",
    "affine_warp",
    "elastic_warp",
]
