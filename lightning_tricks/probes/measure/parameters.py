"""Gradients right before an optimiser step, and what the step did to the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks._compat import torch_tensors
from lightning_tricks._compat.torch_modules import strip_wrappers
from lightning_tricks.model.sharded import is_by_rows, is_sharded, local
from lightning_tricks.probes.measure.gradient_hooks import Guard
from lightning_tricks.probes.measure.operations import WeightedCall
from lightning_tricks.probes.measure.regularization import RawGradients, arrived, is_as, real, squares_of
from lightning_tricks.probes.measure.tallies import Tallies, WeightedTally
from lightning_tricks.stats import ArrivedSums, ParameterSums, RowVectors, SquareSums, sizes

MAX_ENTRIES = 65_536  # of one parameter are compared before and after a step: whole rows, evenly spaced
_MIN_ROWS = 16


@dataclass
class Rows:
    """A weight as rows, one a unit, in the layout in which an operation used it; of a sharded one its part."""

    tally: WeightedTally
    weight: Tensor
    step: int
    before: Tensor
    bias_before: Tensor | None

    @classmethod
    def of(cls, tally: WeightedTally, parameter: Tensor) -> Rows | None:
        sharded = is_sharded(parameter)  # then the operation used a whole one that is gone by now
        if sharded and not (tally.call.layout == "rows" and is_by_rows(parameter, tally.call.weight)):
            return None
        weight = parameter if sharded else tally.call.weight
        units = tally.call.rows(local(weight))
        if units is None or units.numel() == 0:
            return None
        step = max(1, min(math.ceil(units.numel() / MAX_ENTRIES), len(units) // _MIN_ROWS))
        bias = tally.call.bias
        bias = None if sharded or bias is None or bias.shape != (len(units),) else bias[::step].clone()
        return cls(tally, weight, step, units[::step].clone(memory_format=torch.contiguous_format), bias)

    def change(self) -> tuple[Tensor, RowVectors]:
        """The change of the sampled rows since they were read, and its sums."""
        units = self.tally.call.rows(local(self.weight))
        assert units is not None
        dw = real(units[:: self.step] - self.before)
        return dw, RowVectors.of(dw, *self._drift(dw, len(units)))

    def _drift(self, dw: Tensor, units: int) -> tuple[Tensor | None, Tensor | None]:
        call, sums = self.tally.call, self.tally.sums
        if is_sharded(self.weight) or sums is None or sums.input is None or sums.output.mean.shape != (units,):
            return None, None
        mean = sums.input.mean.reshape(call.groups, -1)
        if mean.shape[1] == 0 or dw.shape[1] % mean.shape[1]:
            return None, None
        moved = dw if dw.shape[1] == mean.shape[1] else dw.reshape(len(dw), mean.shape[1], -1).sum(2)
        if call.groups == 1:
            drift = moved @ mean[0]
        else:
            group = torch.arange(0, units, self.step, device=dw.device) // max(units // call.groups, 1)
            drift = (moved * mean[group]).sum(1)
        if call.stride_product > 1:
            drift = drift / call.stride_product
        if self.bias_before is not None and call.bias is not None:
            drift = drift + real(call.bias[:: self.step] - self.bias_before)
        return drift, sums.output.std[:: self.step]


@dataclass
class ParameterTally:
    """One parameter in one step."""

    name: str
    parameter: Tensor
    layer: WeightedTally | None
    rows: list[Rows]
    optimized: bool
    group: int
    version: int
    altered: bool = False
    gradient: SquareSums | None = None
    arrived: ArrivedSums | None = None
    before: Tensor | None = None
    sums: ParameterSums | None = None


@dataclass
class ParameterReader:
    """Reads the parameters of a model around an optimiser step.

    Args:
        model: The network.
        tallies: The step's tallies: they know which operation used which weight, and its input.
        guard: What errors do not leave.
        optimizers: All that are known to train the model, whether they step while the probe looks or not.
    """

    model: nn.Module
    tallies: Tallies
    guard: Guard
    optimizers: Sequence[torch.optim.Optimizer] = ()
    raw: RawGradients = field(init=False)
    read: dict[str, ParameterTally] = field(default_factory=dict)
    _groups: dict[int, int] | None = None

    def __post_init__(self) -> None:
        # Whoever tells of a step himself does so before the gradients are clipped; an optimiser's hook comes after.
        self.raw = RawGradients(list(self.model.parameters()) if self.optimizers else ())

    def before(
        self,
        parameters: Iterable[Tensor] | None = None,
        scale: Tensor | float = 1.0,
        raw_scale: Tensor | float = 1.0,
    ) -> None:
        """Read gradients, divided by ``scale``, and weights of these parameters, or of all; right before the step.

        What was still on the gradients right after the backward pass is ``raw_scale``.
        """
        wanted = None if parameters is None else {id(p) for p in parameters}
        uses = self._uses()
        if not self.read:
            self._groups = self._held()
        for name, parameter in self.model.named_parameters():
            name = strip_wrappers(name)
            if (wanted is None or id(parameter) in wanted) and not _unready(parameter) and name not in self.read:
                with self.guard(name), torch.no_grad():
                    tally = self.read[name] = self._tally(name, parameter, uses.get(name, []))
                    self._read_gradient(tally, scale, raw_scale)

    def after(self, *, stepped: bool) -> None:
        """Compare with the weights as they are now; without a step, record the weights alone."""
        for tally in self.read.values():
            if tally.sums is None:
                with self.guard(tally.name), torch.no_grad():
                    tally.altered = stepped and tally.version != _version(tally.parameter)
                    gradient = tally.parameter.grad
                    if tally.altered and gradient is not None and tally.arrived is None and not self._writes(tally):
                        tally.arrived = arrived(gradient, tally.parameter.numel())
                    tally.sums = _sums(tally, stepped)

    def _read_gradient(self, tally: ParameterTally, scale: Tensor | float, raw_scale: Tensor | float) -> None:
        """The gradient as the backward pass left it and, where that was changed since, as it is now."""
        gradient = tally.parameter.grad
        if gradient is None:
            return
        raw, count = self.raw.of(tally.parameter), tally.parameter.numel()
        if raw is not None and not is_as(raw, gradient) and not gradient.is_sparse:
            now = arrived(gradient, count)
            tally.arrived = None if now is None else now.scaled(scale)
            scale = 1.0 if self.raw.unscaled else raw_scale
        sums = squares_of(gradient, count) if raw is None else raw.sums
        tally.gradient = sums if _is_one(scale) else SquareSums(sums.count, sums.square / (scale * scale))

    def _writes(self, tally: ParameterTally) -> bool:
        """Whether the optimiser itself may write to the gradient, as where it looks ahead."""
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        return 0 <= tally.group < len(groups) and bool(groups[tally.group].get("nesterov"))

    def _held(self) -> dict[int, int] | None:
        """In which of the optimisers' groups what is; None where they hold none of the model's."""
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        held = {id(p): index for index, group in enumerate(groups) for p in group["params"]}
        return held if any(id(p) in held for p in self.model.parameters()) else None

    def _uses(self) -> dict[str, list[WeightedTally]]:
        uses: dict[str, list[WeightedTally]] = {}
        for tally in self.tallies.weighted.values():
            if tally.weight is not None:
                same = uses.setdefault(tally.weight, [])
                if all(_place(tally.call) != _place(other.call) for other in same):
                    same.append(tally)
        return uses

    def _tally(self, name: str, parameter: Tensor, uses: list[WeightedTally]) -> ParameterTally:
        rows = [found for use in uses if (found := Rows.of(use, parameter)) is not None]
        before = None if rows else sampled_entries(parameter).clone()
        layer = uses[0] if uses else None
        optimized = self._groups is None or id(parameter) in self._groups
        group = (self._groups or {}).get(id(parameter), -1)
        return ParameterTally(name, parameter, layer, rows, optimized, group, _version(parameter), before=before)


def _sums(tally: ParameterTally, stepped: bool) -> ParameterSums:
    if not tally.rows:
        assert tally.before is not None
        before = real(tally.before)
        update = SquareSums.of(real(sampled_entries(tally.parameter) - tally.before)) if stepped else None
        return ParameterSums(SquareSums.of(before), None, tally.gradient, update, None, tally.arrived)
    total: ParameterSums | None = None
    stepped = stepped and _storage(tally.parameter) == _storage(tally.rows[0].weight)  # else it was replaced
    for rows in tally.rows:
        before = real(rows.before)
        differences = sizes(before - before[:1]).sum() if len(before) > 1 else None
        change, row_sums = rows.change() if stepped else (None, None)
        update = None if change is None else SquareSums.of(change)
        gradient, given = (tally.gradient, tally.arrived) if total is None else (None, None)
        sums = ParameterSums(SquareSums.of(before), differences, gradient, update, row_sums, given)
        total = sums if total is None else total.merge(sums)
    assert total is not None
    return total


def sampled_entries(parameter: Tensor) -> Tensor:
    """At most MAX_ENTRIES of a parameter, evenly spaced."""
    flat = local(parameter.detach()).reshape(-1)
    return flat[:: max(1, math.ceil(flat.numel() / MAX_ENTRIES))]


def _is_one(scale: Tensor | float) -> bool:
    return not isinstance(scale, Tensor) and scale == 1.0


def _version(parameter: Tensor) -> int:
    """How often the gradient has been written to; -1 without one."""
    return -1 if parameter.grad is None else torch_tensors.version(parameter.grad)


def _place(call: WeightedCall) -> tuple[Any, ...]:
    if call.layout == "none":
        return ()  # a table beside the product that is tied to it adds nothing
    return call.weight.data_ptr(), call.weight.shape, call.weight.stride()


def _storage(x: Tensor) -> int:
    return local(x).untyped_storage().data_ptr()


def _unready(parameter: Tensor) -> bool:
    if isinstance(parameter, nn.parameter.UninitializedParameter) or parameter.is_meta or parameter.numel() == 0:
        return True
    return not (parameter.is_floating_point() or parameter.is_complex())  # quantised weights do not train
