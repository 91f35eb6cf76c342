"""What regularises a step: the noise of a dropout, and what changes gradients between backward pass and step."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_tricks._compat import torch_tensors
from lightning_tricks.model.sharded import local
from lightning_tricks.nn.dropout import SELU_FLOOR
from lightning_tricks.probes.measure.operations import WeightedCall
from lightning_tricks.stats import ArrivedSums, SquareSums, WeightedSums

_RESHAPING = (
    *("view", "reshape", "unsqueeze", "squeeze", "flatten", "unflatten", "permute", "transpose", "view_as"),
    *("contiguous", "clone", "to", "float"),
)


@dataclass(frozen=True)
class Dropped:
    """A call of dropout.

    Args:
        name: Of the module that called it, or of the function.
        p: The probability of being dropped.
        value: What a dropped unit becomes: 0, or the limit of SELU as alpha dropout scales it.
    """

    name: str
    p: float
    value: float = 0.0

    @classmethod
    def of(cls, name: str, function: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Dropped | None:
        """What a call of one of torch's functions drops, or None."""
        alpha = "alpha" in function
        training = args[2] if len(args) > 2 else kwargs.get("training", kwargs.get("train", not alpha))
        p = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
        if not training or not isinstance(p, (int, float)) or not p > 0:
            return None
        if not alpha or p >= 1:
            return cls(name, float(p))
        # Klambauer et al. 2017: units become SELU's limit, then all are scaled and shifted to mean 0 and variance 1.
        return cls(name, float(p), SELU_FLOOR * (1.0 - p) / math.sqrt((1.0 - p) * (1.0 + p * SELU_FLOOR**2)))


def carried(annotation: Any, function: str) -> Dropped | None:
    """The dropout behind a tensor that a function reshapes; averages and sums have less noise than what they take."""
    return getattr(annotation, "dropped", None) if function in _RESHAPING else None


def dropout_noise(call: WeightedCall, dropped: Dropped, sums: WeightedSums) -> Tensor | None:
    """What the draws of a dropout add to the outputs: sum over patterns and units of the variance over draws.

    A unit that is dropped with probability p becomes a value c, and E (x - c)^2 p is what varies with the draw, of
    every x on its own; whole channels that are dropped together make more noise than that.
    """
    rows, x = call.rows(call.weight.detach()), sums.input
    if rows is None or x is None or x.count == 0:
        return None
    features = x.mean.numel() // call.groups
    if features == 0 or rows.shape[1] % features:
        return None
    grouped = rows.reshape(call.groups, -1, rows.shape[1])
    squares = torch.linalg.vector_norm(grouped, dim=1, dtype=x.mean.dtype).square()
    squares = squares.reshape(call.groups * features, -1).sum(1) / call.stride_product
    varies = x.variance + (x.mean - dropped.value).square()
    return squares @ varies.reshape(-1) * (dropped.p * sums.output.count)


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
        self._known.clear()  # it writes to them without counting it
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
