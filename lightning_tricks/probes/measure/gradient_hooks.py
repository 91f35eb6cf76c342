"""Error signals: what the backward pass brings to the tensors that are listened to."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_tricks.probes.measure.tallies import Signal
from lightning_tricks.probes.watch.error_guard import ErrorGuard
from lightning_tricks.stats import SquareSums, sample


@dataclass
class GradientHook:
    """Listens to one tensor.

    Args:
        signal: Where its error signal is counted.
        axis: The dimension of its units.
        slope: g' at the sample, where the tensor is an activation whose input was overwritten.
        dim: The dimension of the patterns in ``slope``.
        kept: The sampled gradient of a backward pass that kept the graph: a later one may add to it.
        done: Whether the gradient has been counted.
    """

    signal: Signal
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
    """All tensors that are listened to in one step.

    Args:
        not_seen: Receives what went wrong.
        max_patterns: The most patterns per unit that are looked at.
        keeps_graph: Whether the running backward pass keeps the graph, so that a further one may follow.
        deaf: Whether what arrives now is no error signal.
    """

    not_seen: dict[str, str]
    max_patterns: int | None
    keeps_graph: bool = False
    deaf: bool = False
    _handles: list[Any] = field(default_factory=list)
    _waiting: list[GradientHook] = field(default_factory=list)

    def listen(
        self, tensor: Tensor, signal: Signal, axis: int, slope: Tensor | None = None, dim: int | None = None
    ) -> None:
        """From now on the gradient of ``tensor`` as it is now counts as (part of) ``signal``."""
        if tensor.requires_grad:
            ear = GradientHook(signal, axis, slope, dim)
            self._handles.append(tensor.register_hook(functools.partial(self._hear, ear)))

    def close(self) -> None:
        """Stop listening; gradients that still waited for a further backward pass are counted."""
        self.deaf = True
        for handle in self._handles:
            handle.remove()
        for ear in self._waiting:
            if ear.kept is not None:
                ear.count(ear.kept)
        self._handles, self._waiting = [], []

    def _hear(self, ear: GradientHook, gradient: Tensor | None) -> None:
        if self.deaf or gradient is None:
            return
        with ErrorGuard.listing(self.not_seen, "error signals"), torch.no_grad():
            if ear.done:  # a leaf in two graphs: its parts came in two passes, and the first is gone
                ear.signal.torn = True
                return
            delta = sample(gradient, ear.axis, self.max_patterns, dim=ear.dim, copy=self.keeps_graph).values
            if ear.kept is not None:
                delta = delta + ear.kept
            if self.keeps_graph:
                ear.kept = delta
                self._waiting.append(ear)
            else:
                ear.count(delta)
