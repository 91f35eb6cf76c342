"""What is counted around the forward pass: backward passes, steps, rates, and tensors that nobody trains."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_tricks._compat.torch_modules import strip_wrappers
from lightning_tricks._compat.torch_optim import decay_is_decoupled
from lightning_tricks.probes.measure.parameters import sampled_entries
from lightning_tricks.probes.records.training import LooseWeight, TrainingRecord
from lightning_tricks.probes.watch.leftover import LeftoverGradients

_MOST_FOREIGN = 8  # shapes that a record lists
_FEWEST = 32  # entries of a weight whose distribution says something
_SURE = 12.0  # a uniform draw of N entries has its largest within 12 / N of the bound, but for a chance of e^-12
_DEVIATIONS = 4.0
_DEPTH = 4  # of containers in containers


@dataclass(frozen=True)
class Draw:
    """A weight that may be a fresh draw; ``numbers`` are the largest entry and the mean square, on the device."""

    name: str
    module: str
    shape: tuple[int, ...]
    count: int
    rounding: float
    numbers: Tensor

    @classmethod
    def of(cls, name: str, module: str, weight: Tensor) -> Draw:
        entries = sampled_entries(weight)
        values = entries.float()
        numbers = torch.stack([values.abs().amax(), values.square().mean()])
        return cls(name, module, tuple(weight.shape), entries.numel(), torch.finfo(entries.dtype).eps, numbers)

    def is_fresh(self, numbers: Any) -> bool:
        """Whether the entries are uniform within 1 / sqrt(fan_in), as torch draws linear layers and convolutions."""
        peak, square = float(numbers[0]), float(numbers[1])
        bound = 1.0 / math.sqrt(math.prod(self.shape[1:]))
        if self.count < _FEWEST or not bound * (1.0 - _SURE / self.count) < peak <= bound * (1.0 + self.rounding):
            return False
        error = math.sqrt(0.8 / self.count)  # relative standard error of the mean square of a uniform draw
        return abs(3.0 * square / bound**2 - 1.0) < _DEVIATIONS * error

    def loose(self, numbers: Any) -> LooseWeight:
        return LooseWeight(
            self.name, self.module, self.shape, math.sqrt(max(float(numbers[1]), 0.0)), self.is_fresh(numbers)
        )


@dataclass(frozen=True)
class Decay:
    """The weight decay of one group of parameters; ``factor`` is NaN where it is not known what is done with it."""

    factor: float
    decoupled: bool

    @classmethod
    def of(cls, optimizer: Any, group: Mapping[str, Any]) -> Decay:
        factor, decoupled = group.get("weight_decay", 0.0), decay_is_decoupled(optimizer, group)
        known = isinstance(factor, (int, float)) and (decoupled is not None or factor == 0)
        return cls(float(factor) if known else math.nan, bool(decoupled))

    def size(self, weight: float, rate: float) -> float:
        """Of what it adds to the gradient of weights of this size, or takes from them beside it."""
        return self.factor * weight * (rate if self.decoupled and self.factor else 1.0)


class LoopTally:
    """Counts one step of the loop around a model.

    Args:
        model: The network.
        parameters: Its parameters by name.
    """

    def __init__(self, model: nn.Module, parameters: Sequence[tuple[str, Tensor]]) -> None:
        self.backwards = self.detached = self.steps = 0
        self.reached: set[str] = set()  # parameters that a loss depends on which went backward
        self.rates: list[Any] | None = None
        self.first_rates: list[float] = []
        self.decays: list[Decay] = []
        self._model = model
        self._names = {id(parameter): name for name, parameter in parameters}
        ready = [(name, p) for name, p in parameters if not nn.parameter.is_lazy(p)]
        self._frozen = [(name, p) for name, p in ready if not p.requires_grad and p.dim() > 1 and p.numel()]
        self._leaves: dict[int, weakref.ref[Tensor]] = {}  # that are no parameters of the model
        self._held: set[int] = set()
        self._foreign: dict[int, Tensor] = {}
        self._with_gradient: set[int] = set()
        self._optimizers = 0
        self._stepping: list[Tensor] = []
        self._draws: list[Draw] = []
        self._loose: list[Draw] = []
        self._trained = {name for name, p in ready if p.requires_grad}
        self.leftover = LeftoverGradients(model, [p for _, p in ready if p.requires_grad])

    def before_backward(self, leaves: Iterable[Tensor]) -> None:
        """A backward pass begins, from losses that depend on these leaves."""
        self.backwards += 1
        for leaf in leaves:
            name = self._names.get(id(leaf))
            if name is not None:
                self.reached.add(name)
            elif leaf.dim() > 1:
                self._leaves[id(leaf)] = weakref.ref(leaf)
        self.leftover.before_backward()

    def before_step(self, parameters: Sequence[Tensor] | None, optimizers: Sequence[Any]) -> None:
        self.steps += 1
        self._stepping = list(self._trainable() if parameters is None else parameters)
        self.read_optimizers(optimizers)
        self.leftover.before_step(self._stepping)

    def after_step(self) -> None:
        self.leftover.after_step(self._stepping)
        self._stepping = []

    def read_optimizers(self, optimizers: Sequence[Any]) -> None:
        """Rates are those before the first step: a schedule may change them right after it."""
        if self.rates is None:
            groups = [group for optimizer in optimizers for group in optimizer.param_groups]
            self._optimizers = len(optimizers)
            self.rates = [_rate(group.get("lr")) for group in groups]
            first = [group.get("initial_lr") for group in groups]
            self.decays = [Decay.of(optimizer, group) for optimizer in optimizers for group in optimizer.param_groups]
            self.first_rates = [math.nan if isinstance(r, Tensor) or r is None else float(r) for r in first]
            held = {id(p): p for group in groups for p in group["params"]}
            self._held = held.keys() & self._names.keys()
            self._foreign = {key: p for key, p in held.items() if key not in self._names}
        self._with_gradient |= {key for key, p in self._foreign.items() if p.grad is not None}

    def close(self) -> None:
        """Read what is only of interest where something is frozen, or where the loss depends on foreign weights."""
        with torch.no_grad():
            self._draws = [Draw.of(name, "", weight) for name, weight in self._frozen if weight.is_floating_point()]
            found = {key: leaf() for key, leaf in self._leaves.items() if key not in self._foreign}
            wanted = {key: leaf for key, leaf in found.items() if leaf is not None and leaf.is_leaf}
            places = _attributes(self._model, wanted) if wanted else {}
            self._loose = [Draw.of(name, module, wanted[key]) for key, (name, module) in places.items()]

    def arrays(self) -> list[Tensor]:
        """All that is on the device, besides the rates."""
        return [*(draw.numbers for draw in (*self._draws, *self._loose)), *self.leftover.arrays()]

    def record(
        self,
        arrays: Iterator[np.ndarray[Any, Any]],
        rates: Sequence[float],
        forwards: int,
        in_front_of: Callable[[Collection[str]], Collection[str]],
    ) -> TrainingRecord:
        """The record; arrays and rates are on the host, ``in_front_of`` finds the weights in front of others."""
        draws = [draw.name for draw in self._draws if draw.is_fresh(next(arrays))]
        fresh = tuple(sorted(set(draws) & set(in_front_of(self._trained)))) if draws else ()
        loose = tuple(draw.loose(next(arrays)) for draw in self._loose)
        cleared, stale = self.leftover.counts([float(count) for count in arrays])
        first = [rate if math.isnan(first) else first for first, rate in zip(self.first_rates, rates, strict=True)]
        without = [tuple(p.shape) for key, p in self._foreign.items() if key not in self._with_gradient]
        return TrainingRecord(
            self._optimizers,
            forwards,
            self.backwards,
            self.detached,
            self.steps,
            tuple(rates),
            tuple(first),
            len(self._held),
            len(self._foreign),
            len(self._with_gradient),
            tuple(without[:_MOST_FOREIGN]),
            loose,
            fresh,
            cleared,
            stale,
            tuple(decay.factor for decay in self.decays),
            tuple(decay.decoupled for decay in self.decays),
        )

    def _trainable(self) -> Iterator[Tensor]:
        return (p for p in self._model.parameters() if p.requires_grad)


def _rate(rate: Any) -> Any:
    return math.nan if rate is None else rate.detach().clone() if isinstance(rate, Tensor) else rate


def _attributes(model: nn.Module, wanted: Mapping[int, Tensor]) -> dict[int, tuple[str, str]]:
    """How the model reaches tensors that are no parameters of it, with the module whose attribute leads there."""
    found: dict[int, tuple[str, str]] = {}
    for path, module in model.named_modules():
        path = strip_wrappers(path)
        for key, value in vars(module).items():
            if isinstance(value, dict) and key.startswith("_"):
                continue  # torch's own registries
            for name, tensor in _inside(f"{path}.{key}".lstrip("."), value, _DEPTH):
                if id(tensor) in wanted:
                    found.setdefault(id(tensor), (name, path))
    return found


def _inside(name: str, value: Any, depth: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, nn.Module):
        yield from ((f"{name}.{inner}", parameter) for inner, parameter in value.named_parameters())
    elif isinstance(value, (list, tuple, dict)) and depth:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in items:
            yield from _inside(f"{name}[{key!r}]", each, depth - 1)
