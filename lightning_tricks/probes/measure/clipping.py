"""Gradients as the backward pass left them, for what changes them before the step: clipping by norm or by value."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_tricks._compat import torch_tensors
from lightning_tricks.stats import ArrivedSums, SquareSums


@dataclass(frozen=True)
class RawGradient:
    """A gradient right after a backward pass: which tensor, how often it had been written to, and its squares."""

    tensor: weakref.ref[Tensor]
    version: int
    sums: SquareSums


@dataclass
class RawGradients:
    """The gradients after the latest backward pass, by the identity of their parameters.

    Only where the optimisers themselves tell of their steps: a Trainer calls before it clips.

    Args:
        parameters: Those whose gradients are read.
        unscaled: Whether a loss scaler has taken its factor off them.
    """

    parameters: Iterable[Tensor] = ()
    unscaled: bool = False
    _known: dict[int, RawGradient] = field(default_factory=dict)

    def after_unscaling(self) -> None:
        """What a loss scaler does is no clipping."""
        self.unscaled = True
        self.after_backward()

    def after_backward(self) -> None:
        with torch.no_grad():
            for parameter in self.parameters:
                gradient, known = parameter.grad, self._known.get(id(parameter))
                if gradient is None or (known is not None and is_as(known, gradient)):
                    continue
                self._known[id(parameter)] = RawGradient(
                    weakref.ref(gradient), torch_tensors.version(gradient), squares_of(gradient, parameter.numel())
                )

    def of(self, parameter: Tensor) -> RawGradient | None:
        """What is known of the gradient that the parameter still has, changed in place or not."""
        known = self._known.get(id(parameter))
        return known if known is not None and known.tensor() is parameter.grad else None


def is_as(known: RawGradient, gradient: Tensor) -> bool:
    """Whether nobody has written to it since."""
    return known.tensor() is gradient and known.version == torch_tensors.version(gradient)


def squares_of(gradient: Tensor, count: int) -> SquareSums:
    """The squares of a gradient; one that is sparse is zero elsewhere."""
    gradient = local(gradient.detach())
    if gradient.is_sparse:
        values = gradient.coalesce().values()
        return SquareSums(count, SquareSums.of(real(values), precise=True).square)
    return SquareSums.of(real(gradient), precise=True)


def arrived(gradient: Tensor, count: int) -> ArrivedSums | None:
    """A gradient that was changed on its way to the step."""
    if gradient.is_sparse:
        return None
    return ArrivedSums(squares_of(gradient, count), real(local(gradient.detach())).abs().amax())


def real(x: Tensor) -> Tensor:
    if x.is_complex():
        x = torch.view_as_real(x.resolve_conj())
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def local(x: Any) -> Tensor:
    return x.to_local() if hasattr(x, "to_local") else x  # a sharded parameter: the ranks' sums are merged later
