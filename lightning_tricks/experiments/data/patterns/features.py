"""Features and labels: what was read as one matrix in which patterns can be near to each other, and classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator, Tensor

from lightning_tricks.experiments.data.patterns.fields import Column
from lightning_tricks.experiments.data.patterns.reading import Patterns

DIMENSIONS = 64  # of the matrix: of more features their principal components
_WORDS = 256  # counts of tokens, folded
_SWEEPS = 3  # of the subspace iteration
_FEW_PER_CLASS = 4  # patterns to a class on the average, under which numbers are no classes


@dataclasses.dataclass(frozen=True)
class Space:
    """How columns become features: those of a table each in its own unit, those of an image all in one, tokens by
    counts; then the principal components, where they are many."""

    scales: tuple[tuple[Tensor, Tensor], ...]
    components: Tensor | None

    @classmethod
    def of(cls, patterns: Patterns) -> Space:
        """Fitted to patterns."""
        scaled = cls.scaled_by(patterns)
        whole = scaled(patterns)
        return cls(scaled.scales, _principal(whole) if whole.shape[1] > DIMENSIONS else None)

    @classmethod
    def scaled_by(cls, patterns: Patterns) -> Space:
        """Their means and scales, without components."""
        scales = []
        for column in patterns.inputs:
            values = _numbers(column)
            mean, scale = values.mean(0), values.std(0, correction=0)
            if column.kind != "numbers" or len(column.shape) > 1:
                scale = scale.square().mean().sqrt().expand_as(scale)
            # What hardly varies is no more than rounding: it is not to be blown up to the size of the others.
            scale = torch.where(scale > 1e-6 * (1 + mean.abs()), scale, torch.inf)
            scales.append((mean, scale))
        return cls(tuple(scales), None)

    def __call__(self, patterns: Patterns) -> Tensor:
        """A matrix of patterns and features."""
        numbers = [_numbers(column) for column in patterns.inputs]
        if len(numbers) != len(self.scales) or any(
            x.shape[1] != len(mean) for x, (mean, _) in zip(numbers, self.scales, strict=True)
        ):
            raise ValueError("the inputs have another shape")
        whole = torch.cat([(x - mean) / scale for x, (mean, scale) in zip(numbers, self.scales, strict=True)], 1)
        return whole if self.components is None else whole @ self.components


def _numbers(column: Column) -> Tensor:
    """Finite numbers of a column; of tokens how often each occurs."""
    if column.kind == "tokens":
        ids = column.values.long() % _WORDS
        counts = torch.zeros(len(ids), _WORDS).scatter_add_(1, ids, torch.ones(ids.shape))
        return counts / counts.norm(dim=1, keepdim=True)
    return torch.nan_to_num(column.flat(), posinf=0.0, neginf=0.0)


def _principal(x: Tensor) -> Tensor:
    """The directions in which centred features vary most, by subspace iteration."""
    basis = torch.randn(x.shape[1], DIMENSIONS, generator=Generator().manual_seed(0))
    for _ in range(_SWEEPS):
        basis, _ = torch.linalg.qr(x.T @ (x @ basis))
    return basis


def table_of(patterns: Patterns) -> tuple[Tensor, list[str]]:
    """Every number of a pattern as it is, with its name: a column of a table, a pixel, a position."""
    parts = [torch.nan_to_num(column.flat(), posinf=0.0, neginf=0.0) for column in patterns.inputs]
    names = [
        name for column, part in zip(patterns.inputs, parts, strict=True) for name in _named(column, part.shape[1])
    ]
    return torch.cat(parts, 1), names


def _named(column: Column, count: int) -> Sequence[str]:
    if count == 1:
        return [column.name]
    shape = tuple(column.values.shape[1:])
    if len(shape) == 1:
        return [f"{column.name}[:, {k}]" for k in range(count)]
    places = np.stack(np.unravel_index(np.arange(count), shape), 1)
    return [f"{column.name}[:, {', '.join(map(str, place))}]" for place in places.tolist()]


def classes_of(column: Column | None, *, like: bool = False) -> np.ndarray | None:
    """The class of every pattern; None where the targets are no classes.

    Args:
        column: The targets: whole numbers, two different numbers, or rows with a single one.
        like: Whether they are known to be classes, as those of the training are.
    """
    if column is None or not len(column):
        return None
    values = column.values
    if values.dim() == 2 and values.shape[1] > 1:
        ones = ((values == 0) | (values == 1)).all() and bool((values.sum(1) == 1).all())
        return values.argmax(1).numpy() if ones else None
    if values[0].numel() != 1:
        return None
    numbers = values.reshape(-1)
    different = numbers.unique()
    if numbers.is_floating_point():
        whole = bool((numbers == numbers.round()).all())
        if not whole or not (like or len(different) == 2):
            return None
    if not like and len(different) * _FEW_PER_CLASS > len(numbers):
        return None
    return numbers.long().numpy()


def values_of(column: Column | None) -> np.ndarray | None:
    """One number a pattern to predict; None where there is none."""
    if column is None or not len(column) or column.values[0].numel() != 1 or classes_of(column) is not None:
        return None
    found = column.values.reshape(-1).double().numpy()
    return found if bool(np.isfinite(found).all()) and found.std() > 0 else None
