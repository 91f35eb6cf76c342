"""orthogonal_ and delta_orthogonal_: weights that keep lengths, group by group and the right way round."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor, nn

from lightning_tricks._compat.torch_modules import ConvNd, ConvTransposeNd
from lightning_tricks.init.fans import fans, weight_blocks
from lightning_tricks.init.report import Report
from lightning_tricks.init.schemes import check_fillable, check_tensor, working_dtype
from lightning_tricks.init.weights import write_weight, zero_biases

__all__ = ["delta_orthogonal_", "orthogonal_"]

Target = TypeVar("Target", bound=Tensor | nn.Module)  # what is filled comes back


@torch.no_grad()
def orthogonal_(
    tensor: Target, gain: float = 1.0, *, generator: Generator | None = None, report: Report | None = None
) -> Target:
    """Fills a weight, flattened to (out, the rest), with orthonormal rows or columns times gain (Saxe et al. 2014).

    Q of a Gaussian matrix, with the signs of R's diagonal so that every orthogonal matrix is equally likely. Half
    precision is computed in float32 and then cast.

    A tensor alone does not tell of groups, of gates, and of the layout (in, out, *kernel) of a transposed convolution;
    the layer does. Of a layer each group is orthonormal by itself, of a transposed convolution the taps that meet in
    one output (there are ``prod(stride)`` such sets), and biases become 0: white input of standard deviation 1 leaves
    with that of gain, where there are no more outputs than terms.

    Args:
        tensor: The weight, at least 2 dimensions; or a layer that has weights.
        gain: The length of each row (or column, where there are fewer of them).
        generator: The source of random numbers.
        report: For a layer: the shortest and the longest that a vector of length 1 becomes, of those that are not lost
            for lack of outputs.

    Returns:
        The tensor, or the layer.

    Raises:
        ValueError: Fewer than 2 dimensions, a lazy parameter, one on the meta device, or a layer without weights.
        TypeError: Neither a tensor nor a layer, or not floating point.

    >>> w = orthogonal_(torch.empty(3, 8, dtype=torch.bfloat16)).float()
    >>> bool(torch.allclose(w @ w.T, torch.eye(3), atol=0.02))
    True
    >>> conv = orthogonal_(nn.Conv2d(512, 512, 3, groups=512, padding=1))
    >>> round(float(conv(torch.randn(2, 512, 32, 32))[..., 1:-1, 1:-1].detach().std()), 1)
    1.0
    """
    if isinstance(tensor, nn.Module):
        _fill_layer(tensor, "orthogonal", lambda part: fill_orthogonal(part, tensor, gain, generator), report)
        return tensor
    check_tensor(tensor)
    fans(tensor)
    check_fillable(tensor)
    _fill(tensor, gain, generator)
    return tensor


@torch.no_grad()
def delta_orthogonal_(
    tensor: Target, gain: float = 1.0, *, generator: Generator | None = None, report: Report | None = None
) -> Target:
    """Fills a convolution's kernel with zeros and an orthogonal matrix at its centre (Xiao et al. 2018).

    The convolution is then an isometry (times gain) at stride 1 with circular padding, so that networks of thousands
    of layers can be trained without shortcuts.

    Args:
        tensor: The weight of a convolution, (out, in, *kernel) with 1 to 3 kernel dimensions and out >= in; or a
            convolution, whose groups and transposed layout are then known (out >= in for each group).
        gain: The factor on every length.
        generator: The source of random numbers.
        report: As of :func:`orthogonal_`.

    Returns:
        The tensor, or the layer.

    Raises:
        ValueError: The tensor is not of 3 to 5 dimensions, has fewer outputs than inputs, or is on the meta device.
        TypeError: Neither a tensor nor a layer, or not floating point.

    >>> w = delta_orthogonal_(torch.empty(4, 4, 3, 3))
    >>> bool(torch.allclose(w[:, :, 1, 1] @ w[:, :, 1, 1].T, torch.eye(4), atol=1e-6)), float(w[:, :, 0].abs().max())
    (True, 0.0)
    """
    if isinstance(tensor, nn.Module):
        _fill_layer(tensor, "delta_orthogonal", lambda part: fill_delta(part, tensor, gain, generator), report)
        return tensor
    check_tensor(tensor)
    fill_delta(tensor, None, gain, generator)
    return tensor


def fill_orthogonal(weight: Tensor, layer: nn.Module | None, gain: float, generator: Generator | None) -> None:
    """Fills a weight, or some rows of it, by the matrices that act independently in its layer."""
    for part in _groups(weight, layer):
        for taps in _phases(part, layer):
            if taps.numel():
                _fill(taps, gain, generator)


def fill_delta(weight: Tensor, layer: nn.Module | None, gain: float, generator: Generator | None) -> None:
    """As ``delta_orthogonal_``, of a weight whose layer is known."""
    problem = delta_problem(weight, layer)
    if problem:
        raise ValueError(problem)
    check_fillable(weight)
    weight.zero_()
    for part in _groups(weight, layer):
        _fill(_centre(part), gain, generator)


def delta_problem(weight: Tensor, layer: nn.Module | None) -> str:
    """Why a delta orthogonal kernel does not fit; "" where it does."""
    if not 3 <= weight.ndim <= 5:
        return f"delta_orthogonal_ needs a weight of 3 to 5 dimensions, not shape {tuple(weight.shape)}"
    outputs, inputs = next(_groups(weight, layer)).shape[:2]
    if outputs < inputs:
        return (
            f"delta_orthogonal_ needs at least as many outputs as inputs, not {outputs} < {inputs} "
            f"(shape {tuple(weight.shape)}): fewer cannot keep every length"
        )
    return ""


def isometry(name: str, weight: Tensor, layer: nn.Module | None) -> dict[str, float]:
    """The shortest and longest that vectors of length 1 become, of those that are not lost for lack of outputs.

    Of a delta kernel any vectors, else the patches that meet in one output.
    """
    found = []
    for part in _groups(weight, layer):
        for taps in [_centre(part)] if name == "delta_orthogonal" else _phases(part, layer):
            matrix = taps.detach().double().flatten(1)
            if matrix.numel():
                gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
                found.append(torch.linalg.eigvalsh(gram)[[0, -1]].clamp(min=0).sqrt())
    if not found:
        return {}
    ends = torch.stack(found)
    return {"shortest": float(ends[:, 0].min()), "longest": float(ends[:, 1].max())}


def orthonormal(matrix: Tensor) -> Tensor:
    """The orthonormal rows or columns that span what ``matrix`` spans, by QR with a positive diagonal of R."""
    wide = matrix.shape[0] < matrix.shape[1]
    q, r = torch.linalg.qr(matrix.T if wide else matrix)
    signs = torch.where(r.diagonal() < 0, -1.0, 1.0).to(q)
    q = q * signs
    return q.T if wide else q


def orthonormalize(weight: Tensor, layer: nn.Module) -> None:
    """Makes the matrices that act independently in a layer orthonormal, each from what is there."""
    for part in _groups(weight, layer):
        for taps in _phases(part, layer):
            if taps.numel():
                matrix = taps.flatten(1).to(torch.promote_types(taps.dtype, torch.float32))
                taps.copy_(orthonormal(matrix).view(taps.shape))


def _fill(weight: Tensor, gain: float, generator: Generator | None) -> None:
    if weight.numel():
        shape = (weight.shape[0], weight[0].numel())
        gauss = weight.new_empty(shape, dtype=working_dtype(weight)).normal_(generator=generator)
        weight.copy_(gain * orthonormal(gauss).view(weight.shape))


def _groups(weight: Tensor, layer: nn.Module | None) -> Iterator[Tensor]:
    """Views (out, in, *kernel) of each group's part."""
    groups = layer.groups if isinstance(layer, ConvNd) else 1
    for part in weight.chunk(groups):
        yield part.transpose(0, 1) if isinstance(layer, ConvTransposeNd) else part


def _phases(part: Tensor, layer: nn.Module | None) -> Iterator[Tensor]:
    """Views of the taps that meet in one output: all of them, but those of a transposed convolution with a stride."""
    strides = layer.stride if isinstance(layer, ConvTransposeNd) else (1,) * (part.ndim - 2)
    dilation = layer.dilation if isinstance(layer, ConvTransposeNd) else strides
    if any(step > 1 and apart > 1 for step, apart in zip(strides, dilation, strict=True)):
        strides = (1,) * len(strides)  # which taps meet is then no matter of every so many
    for starts in itertools.product(*(range(step) for step in strides)):
        steps = tuple(slice(start, None, step) for start, step in zip(starts, strides, strict=True))
        index: Any = (slice(None), slice(None), *steps)
        yield part[index] if steps else part


def _centre(part: Tensor) -> Tensor:
    index: Any = (slice(None), slice(None), *((size - 1) // 2 for size in part.shape[2:]))
    return part[index]


def _fill_layer(layer: nn.Module, name: str, fill: Callable[[Tensor], None], report: Report | None) -> None:
    blocks = weight_blocks(layer)
    if not blocks:
        raise ValueError(f"{type(layer).__name__} has no weight that {name}_ could fill")
    values: dict[str, Tensor] = {}
    for block in blocks:
        weight = getattr(layer, block.parameter)
        check_fillable(weight)
        fill(values.setdefault(block.parameter, torch.empty_like(weight))[block.rows])
    for parameter, value in values.items():
        padding: Any = getattr(layer, "padding_idx", None)
        if padding is not None:
            value[padding] = 0.0
        write_weight(layer, parameter, value)
    zero_biases(layer)
    if report is not None:
        for block in blocks:
            lengths = isometry(name, values[block.parameter][block.rows], layer)
            report.change(type(layer).__name__, f"{name}{f', {block.label}' if block.label else ''}", lengths)
