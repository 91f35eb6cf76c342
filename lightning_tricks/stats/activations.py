"""What one call of an activation function leaves behind."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_tricks.activations import BoundActivation
from lightning_tricks.stats.moments import JointMoments, MomentSums
from lightning_tricks.stats.sampling import Sample
from lightning_tricks.stats.sums import Sums, on_host

HISTOGRAM_EDGES = np.linspace(-4.0, 4.0, 33)
_HISTOGRAM_SAMPLE = 2048
_ROUNDING = 4.0  # a standard deviation under so many rounding errors says nothing of the curve
_EDGES = np.append(HISTOGRAM_EDGES, math.inf)
_edges: dict[tuple[torch.device, torch.dtype], Tensor] = {}


@dataclass(frozen=True)
class ActivationSums(Sums):
    """Sums over the patterns of one activation.

    Args:
        joint: Joint moments of pre-activation and activation, per unit.
        active: Number of patterns with g'(a) != 0, per unit; None where g has no hard zero.
        saturated: Number of patterns on a flat side, per unit; None where g has none.
        squared_slope: Sum of g'(a)^2 over units, one number per call.
        below: Number of sampled pre-activations under each of HISTOGRAM_EDGES, then the size of that sample.
        below_centred: The same counts of pre-activations less the mean of their unit in this call.
        total: Sum of every output, to see a NaN or an Inf anywhere in the tensor.
        resolution: Relative rounding error of the outputs' number format.
    """

    joint: JointMoments
    active: Any
    saturated: Any
    squared_slope: Any
    below: Any
    below_centred: Any
    total: Any
    resolution: float = 0.0

    @classmethod
    def of(
        cls,
        g: BoundActivation,
        a: Sample,
        output: Sample,
        whole: Tensor,
        slope: Tensor,
        known: MomentSums | None = None,
    ) -> ActivationSums:
        """Sums of one call from the samples of its input and output, its slope there, and its whole output.

        ``known``: the moments of the input, where the operation before has counted them.
        """
        dim, x = a.dim, a.values
        active = saturated = None
        if g.activation.unit_slope:  # one count tells all
            active = slope.sum(dim)
            saturated, squared_slope = slope.shape[dim] - active, active.sum()
        else:
            low, high = g.flat_sides
            if low > -math.inf or high < math.inf:
                flat = x < low if high == math.inf else x > high if low == -math.inf else (x < low) | (x > high)
                saturated = flat.to(x.dtype).sum(dim)
            if g.activation.hard_zero:
                active = (slope != 0).to(x.dtype).sum(dim)
            squared_slope = torch.linalg.vector_norm(slope).square()
        return cls._of(a, output, whole, active, saturated, squared_slope, known)

    @classmethod
    def of_unknown(cls, a: Sample, output: Sample, whole: Tensor) -> ActivationSums:
        """Sums of one call of a function of which nothing is known but its input and its output."""
        return cls._of(a, output, whole, None, None, a.values.new_full((), math.nan))

    @classmethod
    def _of(
        cls,
        a: Sample,
        output: Sample,
        whole: Tensor,
        active: Any,
        saturated: Any,
        squared_slope: Any,
        known: MomentSums | None = None,
    ) -> ActivationSums:
        x, dim = a.values, a.dim
        joint = JointMoments.of(x, output.values, dim, known)
        below, below_centred = _count_below(x, joint.mean_a, dim)
        return cls(
            joint=joint,
            active=active,
            saturated=saturated,
            squared_slope=squared_slope,
            below=below,
            below_centred=below_centred,
            total=whole.detach().sum(dtype=x.dtype),
            resolution=torch.finfo(whole.dtype).eps,
        )

    def merge(self, other: ActivationSums) -> ActivationSums:
        return dataclasses.replace(super().merge(other), resolution=max(self.resolution, other.resolution))

    @functools.cached_property
    def linearity(self) -> Any:
        """corr(a, g(a))^2 per unit; NaN where the activation does not vary, or no more than it is rounded."""
        joint = self.joint
        noise = _ROUNDING * self.resolution * np.abs(joint.mean_g)
        return np.where(joint.activation.variance > noise * noise, joint.linearity, np.nan)

    @property
    def transmission(self) -> float:
        """E g'(a)^2 over patterns and units."""
        elements = self.joint.count * len(self.joint.mean_a)
        return float(self.squared_slope) / elements if elements else math.nan

    @functools.cached_property
    def activity(self) -> Any:
        """Share of patterns with g'(a) != 0, per unit."""
        return None if self.active is None else self.active / max(self.joint.count, 1)

    @property
    def saturation(self) -> Any:
        """Share of patterns on a flat side of g, per unit."""
        return None if self.saturated is None else self.saturated / max(self.joint.count, 1)


def _count_below(x: Tensor, means: Tensor, dim: int) -> Tensor:
    """Counts of a sample of values, and of the same less their unit's mean: ``[2, edges + 1]``."""
    flat, columns = x.reshape(-1), x.shape[1]
    step = max(1, math.ceil(flat.numel() / _HISTOGRAM_SAMPLE))
    while x.shape[-1] > 1 and math.gcd(step, x.shape[-1]) > 1 and step > 1:
        step += 1
    values = flat[::step]
    if on_host(x):  # sorted, a value is not compared with every edge
        array = values.numpy()
        with np.errstate(all="ignore"):
            both = array, array - means.numpy()[_units(flat.numel(), step, columns, dim)]
        edges = _EDGES.astype(array.dtype)
        below = [np.sort(each).searchsorted(edges, "right") for each in both]
        return torch.from_numpy(np.array(below, array.dtype))
    index = torch.arange(0, flat.numel(), step, device=x.device)
    units = index % columns if dim == 0 else torch.div(index, columns, rounding_mode="floor")
    stacked = torch.stack((values, values - means[units]))
    key = (x.device, x.dtype)
    if key not in _edges:
        _edges[key] = torch.as_tensor(_EDGES, dtype=x.dtype, device=x.device)
    return (stacked.unsqueeze(2) <= _edges[key]).to(x.dtype).sum(1)


@functools.lru_cache(maxsize=64)
def _units(elements: int, step: int, columns: int, dim: int) -> Any:
    """To which unit every ``step``-th element of a sample belongs."""
    index = np.arange(0, elements, step)
    return index % columns if dim == 0 else index // columns
