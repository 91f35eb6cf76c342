"""Activation modules that torch does not have."""

from __future__ import annotations

import math

from torch import nn

__all__ = ["ShiftedReLU"]


class ShiftedReLU(nn.Threshold):
    """max(a, -1): a ReLU whose output can have mean 0 (Clevert et al. 2016, section 4, "SReLU").

    As linear for positive input as ReLU, with negative output like ELU: what is left of the bias problem is the hard
    floor, under which a unit has no gradient. To probes it is a ``threshold``, which is the function that it calls.

    Args:
        shift: How far below zero the floor lies; 1 in the paper.

    Raises:
        ValueError: The shift is not finite.

    >>> import torch
    >>> ShiftedReLU()(torch.tensor([-3.0, -0.5, 2.0]))
    tensor([-1.0000, -0.5000,  2.0000])
    """

    def __init__(self, shift: float = 1.0, inplace: bool = False) -> None:
        if not math.isfinite(shift):
            raise ValueError(f"shift has to be finite, not {shift}")
        super().__init__(-shift, -shift, inplace)
