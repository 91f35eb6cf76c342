"""Gradients that are still there when the next backward pass begins: nobody cleared them after their step."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lightning_tricks._compat import torch_tensors


@dataclass
class SteppedGradient:
    """The gradient with which a parameter was stepped last: which tensor, and how often it had been written to.

    Args:
        step: The number of that step.
        nonzero: How many of its entries were not zero whenever a backward pass began since, on the device.
    """

    tensor: weakref.ref[Tensor]
    version: int
    step: int
    nonzero: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, gradient: Tensor, step: int) -> SteppedGradient:
        return cls(weakref.ref(gradient), torch_tensors.version(gradient), step)


# Of every model that a probe has seen, by the identity of the parameter. It holds no tensor alive.
_stepped: weakref.WeakKeyDictionary[nn.Module, dict[int, SteppedGradient]] = weakref.WeakKeyDictionary()


class LeftoverGradients:
    """Tells which parameters are stepped twice by their own optimiser with a gradient that was not cleared between.

    A gradient is cleared where it is None, another tensor, or zero when a backward pass begins. That a gradient is
    there then is no fault by itself: a generator's loss leaves one in the discriminator, which is cleared before the
    discriminator's own pass. A gradient that was written to between two probed steps, where nobody looked, tells
    nothing; nor does one that is gone after more than one step.
    """

    def __init__(self, model: nn.Module, parameters: Sequence[Tensor]) -> None:
        self.step = 0
        self._known = _stepped.setdefault(model, {})
        self._parameters = parameters
        self._cleared: set[int] = set()
        self._new: set[int] = set()  # parameters that were stepped with a gradient known to be new
        self._claims: dict[int, list[Tensor]] = {}  # stepped with what was left, if none of these counts is zero

    def before_backward(self) -> None:
        for parameter in self._parameters:
            last = self._known.get(id(parameter))
            if last is not None:
                self._look(id(parameter), last, parameter.grad)

    def _look(self, key: int, last: SteppedGradient, gradient: Tensor | None) -> None:
        same = gradient is not None and last.tensor() is gradient
        if same and gradient is not None and torch_tensors.version(gradient) == last.version and not gradient.is_sparse:
            last.nonzero.append(torch.count_nonzero(gradient))
            return
        del self._known[key]
        if not same and self.step - last.step <= 1:  # over a longer time a validation may have cleared it
            self._cleared.add(key)

    def after_backward(self) -> None:
        for parameter in self._parameters:
            last, gradient = self._known.get(id(parameter)), parameter.grad
            if last is not None and gradient is not None and last.tensor() is gradient:
                last.version = torch_tensors.version(gradient)

    def before_step(self, parameters: Iterable[Tensor]) -> None:
        for parameter in parameters:
            last, key = self._known.get(id(parameter)), id(parameter)
            if parameter.grad is None:
                continue
            if last is not None and last.nonzero and last.tensor() is parameter.grad:
                self._claims.setdefault(key, []).extend(last.nonzero)
            elif key in self._cleared:
                self._new.add(key)

    def after_step(self, parameters: Iterable[Tensor]) -> None:
        for parameter in parameters:
            if parameter.grad is not None:
                self._known[id(parameter)] = SteppedGradient.of(parameter.grad, self.step)
                self._cleared.discard(id(parameter))

    def arrays(self) -> list[Tensor]:
        """What decides, one number a parameter."""
        return [torch.stack(counts).amin() for counts in self._claims.values()]

    def counts(self, least: Sequence[float]) -> tuple[int, int]:
        """The numbers of parameters that were stepped with a new gradient, and with what was left of the old one."""
        stale = {key for key, count in zip(self._claims, least, strict=True) if count > 0}
        return len((self._new | set(self._claims)) - stale), len(stale)
