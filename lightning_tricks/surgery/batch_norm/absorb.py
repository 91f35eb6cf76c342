"""The arithmetic of folding: a scale and a shift per channel become part of a weight and a bias."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_tricks._compat.torch_modules import ConvNd, ConvTransposeNd, padding_of
from lightning_tricks.nn.batch_norm import BatchNorm

__all__ = ["Unfoldable", "absorb_after", "absorb_before", "scale_and_shift"]


class Unfoldable(Exception):
    """Folding would change what the network computes; the message says why."""


def scale_and_shift(batch_norm: BatchNorm) -> tuple[Tensor, Tensor]:
    r"""What batch norm does in eval mode, in float64: :math:`s = \gamma / \sqrt{Var + \epsilon}, t = \beta - s E[x]`.

    Raises:
        Unfoldable: It has no running statistics.
    """
    mean = batch_norm.running_mean
    if not isinstance(mean, Tensor):
        raise Unfoldable("it has no running statistics, so its scale changes with the batch")
    mean = mean.double()
    variance, weight, bias = (getattr(batch_norm, name, None) for name in ("running_var", "weight", "bias"))
    scale = torch.ones_like(mean) if variance is None else (variance.double() + batch_norm.eps).rsqrt()
    scale = scale if weight is None else scale * weight.detach().double()
    shift = -scale * mean
    return scale, shift if bias is None else shift + bias.detach().double()


def absorb_after(layer: nn.Module, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer that does what it did, times ``scale``, plus ``shift``, per output channel."""
    if isinstance(layer, ConvTransposeNd):
        per_group = weight.unflatten(0, (layer.groups, -1))  # [groups, in / groups, out / groups, *]
        scaled = per_group * _shaped(scale.unflatten(0, (layer.groups, -1)).unsqueeze(1), per_group.dim())
        return scaled.flatten(0, 1), bias * scale + shift
    return weight * _shaped(scale, weight.dim()), bias * scale + shift


def absorb_before(
    layer: nn.Module, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Weight and bias of a layer that does to x what it did to ``scale * x + shift``, per input channel.

    Returns:
        Weight, bias, and None or the values per channel with which the input has to be padded in the zeros' place:
        where zeros stood behind the batch norm, something that it turns into zero has to stand before it.

    Raises:
        Unfoldable: The zeros inside or around the input of this layer cannot be replaced.
    """
    if isinstance(layer, nn.Linear):
        return weight * scale, bias + weight @ shift, None
    assert isinstance(layer, ConvNd)
    groups, shifted = layer.groups, bool(shift.any())
    if isinstance(layer, ConvTransposeNd):
        plain = all(k == 1 for k in layer.kernel_size) and all(s == 1 for s in layer.stride)
        if shifted and not (plain and not any(layer.output_padding)):
            raise Unfoldable(
                "before a transposed convolution with a kernel or stride over 1 the shift reaches the outputs unevenly"
            )
        per_group = weight.unflatten(0, (groups, -1))  # [groups, in / groups, out / groups, *]
        moved = (
            (per_group * _shaped(shift.unflatten(0, (groups, -1)), per_group.dim())).flatten(3).sum((1, 3)).flatten()
        )
        return weight * _shaped(scale, weight.dim()), bias + moved if shifted else bias, None
    per_group = weight.unflatten(0, (groups, -1))  # [groups, out / groups, in / groups, *]
    scaled = per_group * _shaped(scale.unflatten(0, (groups, -1)).unsqueeze(1), per_group.dim())
    shifts = per_group * _shaped(shift.unflatten(0, (groups, -1)).unsqueeze(1), per_group.dim())
    values = None
    if shifted and layer.padding_mode == "zeros" and any(padding_of(layer)):
        values = torch.where(shift == 0, torch.zeros_like(shift), -shift / scale)
        if not values.to(layer.weight.dtype).isfinite().all():
            raise Unfoldable("a channel of scale 0 before zero padding cannot be folded")
    return scaled.flatten(0, 1), bias + shifts.flatten(2).sum(2).flatten(), values


def _shaped(values: Tensor, dims: int) -> Tensor:
    return values.reshape(values.shape + (1,) * (dims - values.dim()))
