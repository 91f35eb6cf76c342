"""Tensors in, mergeable sums out (torch only).

Every class here is a frozen record of sums over patterns. ``merge(a, b)`` equals the sums of both taken together, which
is what accumulation over micro-batches, a window over steps and a reduction over ranks all need. The fields are tensors
on the device while a step runs and NumPy arrays afterwards; the arithmetic is the same.
"""

from lightning_tricks.stats.activations import ActivationSums
from lightning_tricks.stats.moments import JointMoments, MomentSums
from lightning_tricks.stats.sampling import Sample, sample, unreadable
from lightning_tricks.stats.sums import SquareSums, Sums, sizes, to_host
from lightning_tricks.stats.weights import ArrivedSums, ParameterSums, RowSums, RowVectors, WeightedSums

__all__ = [
    "ActivationSums",
    "ArrivedSums",
    "JointMoments",
    "MomentSums",
    "ParameterSums",
    "RowSums",
    "RowVectors",
    "Sample",
    "SquareSums",
    "Sums",
    "WeightedSums",
    "sample",
    "sizes",
    "to_host",
    "unreadable",
]
