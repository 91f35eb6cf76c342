"""Error signals: what the backward pass brings to the tensors that have a hook."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_tricks.probes.measure.tallies import ErrorSignal
from lightning_tricks.stats import SquareSums, sample

Guard = Callable[[str], AbstractContextManager[object]]  # a block whose errors are listed under a name as not seen


@dataclass
class GradientHook:
    """The hook of one tensor.

    Args:
        signal: Where its error signal is counted.
        axis: The dimension of its units.
        slope: g' at the sample, where the tensor is an activation whose input was overwritten.
        dim: The dimension of the patterns in ``slope``.
        kept: The sampled gradient of a backward pass that kept the graph: a later one may add to it.
        done: Whether the gradient has been counted.
    """

    signal: ErrorSignal
    axis: int
    slope: Tensor | None = None
    dim: int | None = None
    kept: Tensor | None = None
    done: bool = False

    def count(self, delta: Tensor) -> None:
        self.done, self.kept = True, None
        self.signal.add(SquareSums.of(delta if self.slope is None else delta * self.slope, precise=True))


@dataclass
class GradientHooks:
    """All hooks on tensors of one step.

    Args:
        guard: What errors do not leave.
        max_patterns: The most patterns per unit that are looked at.
        keeps_graph: Whether the running backward pass keeps the graph, so that a further one may follow.
        paused: Whether the gradients that come now are no error signals.
    """

    guard: Guard
    max_patterns: int | None
    keeps_graph: bool = False
    paused: bool = False
    _handles: list[Any] = field(default_factory=list)
    _waiting: list[GradientHook] = field(default_factory=list)

    def attach(
        self, tensor: Tensor, signal: ErrorSignal, axis: int, slope: Tensor | None = None, dim: int | None = None
    ) -> None:
        """From now on the gradient of ``tensor`` as it is now counts as (part of) ``signal``."""
        if tensor.requires_grad:
            hook = GradientHook(signal, axis, slope, dim)
            self._handles.append(tensor.register_hook(functools.partial(self._receive, hook)))

    def close(self) -> None:
        """Remove all hooks; gradients that still waited for a further backward pass are counted."""
        self.paused = True
        for handle in self._handles:
            handle.remove()
        for hook in self._waiting:
            if hook.kept is not None:
                hook.count(hook.kept)
        self._handles, self._waiting = [], []

    def _receive(self, hook: GradientHook, gradient: Tensor | None) -> None:
        if self.paused or gradient is None:
            return
        with self.guard("error signals"), torch.no_grad():
            if hook.done:  # a leaf in two graphs: its parts came in two passes, and the first is gone
                hook.signal.incomplete = True
                return
            delta = sample(gradient, hook.axis, self.max_patterns, dim=hook.dim, copy=self.keeps_graph).values
            if hook.kept is not None:
                delta = delta + hook.kept
            if self.keeps_graph:
                hook.kept = delta
                self._waiting.append(hook)
            else:
                hook.count(delta)
