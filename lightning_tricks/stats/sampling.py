"""A tensor's patterns in two dimensions, thinned by a fixed stride: a probe's cost does not grow with the images."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_tricks._compat import torch_tensors

_POSITIONS = 16  # of one image or sequence are looked at, if it has as many, before a further one is


class Sample(NamedTuple):
    """Patterns and units of a tensor, ``dim`` being the dimension of the patterns: ``[P, U]`` or ``[U, P]``."""

    values: Tensor
    dim: int


def sample(x: Tensor, axis: int, max_patterns: int | None, *, copy: bool = False, dim: int | None = None) -> Sample:
    """At most ``max_patterns`` patterns of a tensor, for all of its units.

    Args:
        x: A tensor ``[..., units, ...]``; every dimension but ``axis`` counts patterns (batch, space, time).
        axis: The dimension of the units, negative; 0 where every element is a pattern of the one unit there is.
        max_patterns: The most patterns per unit; None for all of them.
        copy: Whether the values must not share memory with ``x`` (which is about to change in place).
        dim: The dimension of the patterns in the result; None for whichever costs nothing.

    Returns:
        A two-dimensional sample, half precision raised to float32. The same positions are taken for the same shape,
        so samples of an activation, of its input and of its gradient belong together.

    >>> sample(torch.arange(12.0).reshape(2, 3, 2), -2, None).values
    tensor([[ 0.,  1.,  6.,  7.],
            [ 2.,  3.,  8.,  9.],
            [ 4.,  5., 10., 11.]])
    """
    values = x.detach()
    if axis == 0:
        values, axis = values.unsqueeze(-1), -1
    units = values.shape[axis]
    before, after = values.shape[:axis], values.shape[values.dim() + axis + 1 :]
    if not after:
        patterns = math.prod(before)
        values = values.reshape(patterns, units)
        step = _stride(patterns, max_patterns, before[-1] if len(before) > 1 else 1)
        values, lies = values[::step] if step > 1 else values, 0
    else:
        values = values.reshape(math.prod(before), units, math.prod(after))
        outer, _, inner = values.shape
        if max_patterns is not None and outer * inner > max_patterns:
            rows, within = _strides(outer, inner, after[-1] if len(after) > 1 else 1, max_patterns)
            values = values[::rows, :, ::within]
        if values.stride(1) == 1:  # channels last: the units already lie side by side
            values, lies = values.transpose(1, 2).reshape(-1, units), 0
        else:
            values, lies = values.transpose(0, 1).reshape(units, -1), 1
    if dim is not None and dim != lies:
        values, lies = values.mT, dim
    if values.dtype in (torch.float16, torch.bfloat16):
        return Sample(values.float(), lies)
    if copy and values.untyped_storage().data_ptr() == x.untyped_storage().data_ptr():
        values = values.clone()
    return Sample(values, lies)


def _strides(outer: int, inner: int, row: int, max_patterns: int) -> tuple[int, int]:
    """Steps over images and over positions in an image: as many positions as a row has, rather than all images."""
    step = min(_stride(outer * inner, max_patterns, row), _coprime(max(1, inner // max(row, _POSITIONS)), row))
    if math.ceil(inner / step) > max_patterns:
        step = _stride(inner, max_patterns, row)
    return math.ceil(outer / (max_patterns // math.ceil(inner / step))), step


def _stride(patterns: int, max_patterns: int | None, row: int) -> int:
    """The step that leaves at most ``max_patterns``; coprime with a row, or it would meet the same columns only."""
    if max_patterns is None or patterns <= max_patterns:
        return 1
    return _coprime(math.ceil(patterns / max_patterns), row)


def _coprime(step: int, row: int) -> int:
    while math.gcd(step, row) > 1:
        step += 1
    return step


def unreadable(tensor: Tensor) -> str | None:
    """Why a tensor's values cannot be counted, or None."""
    if torch_tensors.is_traced(tensor):
        return "it is being traced, as by torch.export, and has no values"
    if tensor.is_floating_point() and tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_nested):
        return "it runs inside a function transform (vmap, grad)" if torch_tensors.in_transform(tensor) else None
    if tensor.is_complex():
        return "its values are complex numbers"
    if tensor.is_meta:
        return "it is on the meta device and has no values"
    return "its values are a nested tensor" if tensor.is_nested else "its values are no real numbers in a dense tensor"
