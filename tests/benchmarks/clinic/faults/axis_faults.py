"""The wrong axis: patterns of a batch that meet each other, positions that see what they are to predict."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..setup import Setup
from .kind import Kind


def forget_batch_first(setup: Setup, place: int, strength: float) -> None:
    """torch's own order, time before batch, for patterns that come the other way round."""
    for module in setup.network.modules():
        if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
            module.batch_first = False


class Viewed(nn.Module):
    """A kernel that wants time first; the axes are given new sizes where they should change places."""

    def __init__(self, kernel: nn.RNNBase) -> None:
        super().__init__()
        self.kernel = kernel
        kernel.batch_first = False

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        batch, time, _ = x.shape
        return self.kernel(x.reshape(time, batch, -1))[0].reshape(batch, time, -1), None


def view_for_permute(setup: Setup, place: int, strength: float) -> None:
    setup.network.recurrent = Viewed(setup.network.recurrent)


def view_of_heads(setup: Setup, place: int, strength: float) -> None:
    """Attention by hand whose heads are made by new sizes alone."""
    network = setup.network

    def attend(layer: nn.ModuleDict, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        q, k, v = layer["qkv"](x).view(3, network.heads, batch, time, -1)
        scores = torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1)
        return layer["mix"]((scores @ v).transpose(0, 1).reshape(batch, time, width))

    network.attend = attend


def softmax_over_batch(setup: Setup, place: int, strength: float) -> None:
    setup.network.axis = 0


def squeeze_over_batch(setup: Setup, place: int, strength: float) -> None:
    """A gate that looks at the mean over the batch as well."""
    setup.network.axes = (0, 2, 3)


def sum_over_batch(setup: Setup, place: int, strength: float) -> None:
    """A running mean over the patterns in place of the positions."""
    setup.network.mixer.axis = 0


class OverBatch(nn.Module):
    """A function of the batch in which every pattern depends on the others; its forward says how."""


class Normalized(OverBatch):
    """Each unit over its norm, where each pattern over its norm was meant."""

    def forward(self, x: Tensor) -> Tensor:
        return len(x) ** 0.5 * F.normalize(x, dim=0)


class WithMean(OverBatch):
    """The mean over the patterns in place of the features is added."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean(0, keepdim=True)


class Weighted(OverBatch):
    """Weights that are to sum to 1 over the units, and do so over the patterns."""

    def forward(self, x: Tensor) -> Tensor:
        return len(x) * x.softmax(0) * x


def over_batch(module: type[OverBatch]):
    def plant(setup: Setup, place: int, strength: float) -> None:
        setup.network.put(setup.network.places[place].plug, module())

    return plant


def forget_mask(setup: Setup, place: int, strength: float) -> None:
    setup.network.mixer.masked = False


def read_both_ways(setup: Setup, place: int, strength: float) -> None:
    """A kernel that reads from both ends, with half the units for each."""
    kernel = setup.network.mixer.kernel
    size = kernel.hidden_size
    setup.network.mixer.kernel = type(kernel)(size, size // 2, batch_first=True, bidirectional=True)


def pad_both_sides(setup: Setup, place: int, strength: float) -> None:
    setup.network.mixer.causal = False


def forget_to_shift(setup: Setup, place: int, strength: float) -> None:
    """Every position is to predict itself."""
    data = setup.data
    setup.data = dataclasses.replace(data, y=data.x, y_val=data.x_val)


# Patterns that meet meet in the module in which positions are to meet, or in a plug.
AXIS_FAULTS: dict[str, Kind] = {
    "batch first forgotten": Kind(forget_batch_first, "batch_mixing", "crossing", in_code=True),
    "view for permute": Kind(view_for_permute, "batch_mixing", "crossing", in_code=True),
    "view of heads": Kind(view_of_heads, "batch_mixing", "crossing", in_code=True),
    "softmax over batch": Kind(softmax_over_batch, "batch_mixing", "crossing", in_code=True),
    "squeezed over batch": Kind(squeeze_over_batch, "batch_mixing", "crossing", in_code=True),
    "summed over batch": Kind(sum_over_batch, "batch_mixing", "crossing", in_code=True),
    "normalized over batch": Kind(over_batch(Normalized), "batch_mixing", "plug", in_code=True),
    "mean over batch": Kind(over_batch(WithMean), "batch_mixing", "plug", in_code=True),
    "weighted over batch": Kind(over_batch(Weighted), "batch_mixing", "plug", in_code=True),
    "mask forgotten": Kind(forget_mask, "target_leak", "crossing", in_code=True),
    "read both ways": Kind(read_both_ways, "target_leak", "crossing", in_code=True),
    "padded on both sides": Kind(pad_both_sides, "target_leak", "crossing", in_code=True),
    "targets not shifted": Kind(forget_to_shift, "target_leak", "output", in_code=True),
}
