"""From tallies on the device to a snapshot on the host, in one copy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_tricks.probes.measure.parameters import ParameterTally
from lightning_tricks.probes.measure.tallies import ErrorSignal
from lightning_tricks.probes.records.activations import ActivationRecord
from lightning_tricks.probes.records.loss_and_norm import LossRecord, NormalizationRecord
from lightning_tricks.probes.records.parameters import ParameterRecord
from lightning_tricks.probes.records.weighted import WeightedRecord
from lightning_tricks.probes.snapshot import Snapshot
from lightning_tricks.probes.watch.observer import Observer
from lightning_tricks.stats import ParameterSums, SquareSums, to_host


@dataclasses.dataclass(frozen=True)
class StepContext:
    """What is known of a step beside the calls in it.

    Args:
        step: The number that the snapshot carries.
        loss_scale: The factor on the loss that went backward.
        ranks: The number of processes over which gradients are averaged.
        recent_losses: The losses of the steps since the last look.
    """

    step: int
    loss_scale: Tensor | float = 1.0
    ranks: int = 1
    recent_losses: Sequence[Any] = ()


@np.errstate(all="ignore")  # overflown layers have sums that are NaN or Inf
def build_snapshot(observer: Observer, parameters: Iterable[ParameterTally], context: StepContext) -> Snapshot:
    """The snapshot of a step that is over.

    Args:
        observer: What was seen of forward and backward.
        parameters: What was read of the parameters.
        context: What is known beside.
    """
    tallies = observer.tallies
    _list_unseen(observer)
    tallies.mark_shared_gates()
    activations: list[Any] = [tally for tally in tallies.activations.values() if tally.sums is not None]
    weighted: list[Any] = [tally for tally in tallies.weighted.values() if tally.sums is not None]
    trained = [tally for tally in parameters if tally.sums is not None]
    loss_and_norm: list[Any] = [*tallies.losses.values(), *tallies.normalizations.values()]
    signals = _whole_signals([*activations, *weighted], tallies.not_seen)
    rates = observer.loop.rates or []
    numbers = [tallies.loss, context.loss_scale, *rates, *context.recent_losses]
    on_device = [number for number in numbers if isinstance(number, Tensor)]
    trees: list[Any] = [t.sums for t in (*activations, *weighted, *trained, *signals)]
    trees += [call for tally in loss_and_norm for call in tally.calls]
    of_trees = [array for tree in trees for array in tree.arrays()]
    arrays = iter(to_host([*on_device, *of_trees, *observer.loop.arrays()]))
    known = [next(arrays) if isinstance(number, Tensor) else number for number in numbers]
    loss, scale, *others = [math.nan if number is None else float(number) for number in known]
    rates, recent = others[: len(rates)], others[len(rates) :]
    sums = iter([tree.with_arrays(arrays) for tree in trees])
    training = observer.loop.record(arrays, rates, observer.modules.forwards, tallies.in_front_of)
    with np.errstate(all="ignore"):  # NaN and Inf are what some of these numbers are there to show
        seen: list[Any] = [(t, next(sums)) for t in (*activations, *weighted)]
        records = [_parameter_record(t, next(sums), observer, rates) for t in trained]
        scaled = {id(signal): _scaled(next(sums), 1.0 / (scale * context.ranks)) for signal in signals}
        loss_and_norm_records = [
            tally.record([next(sums) for _ in tally.calls]) for tally in loss_and_norm if tally.calls
        ]
        return Snapshot(
            context.step,
            loss / scale,
            tallies.loss is not None and not math.isfinite(loss),
            scale,
            tuple(
                ActivationRecord.of(t.name, t.function, t.order, t.gate, s, scaled.get(id(t.signal)))
                for t, s in seen[: len(activations)]
            ),
            tuple(
                WeightedRecord.of(
                    t.name,
                    t.operation,
                    t.order,
                    t.weight,
                    t.follows,
                    t.call.fan_in,
                    t.elements,
                    s,
                    scaled.get(id(t.signal)),
                    t.with_gradient,
                    0.0 if t.dropped is None else t.dropped.p,
                    None if t.dropped is None else t.dropped.name,
                )
                for t, s in seen[len(activations) :]
            ),
            tuple(records),
            dict(tallies.not_seen),
            losses=tuple(record for record in loss_and_norm_records if isinstance(record, LossRecord)),
            normalizations=tuple(record for record in loss_and_norm_records if isinstance(record, NormalizationRecord)),
            recent_losses=tuple(recent),
            partial=observer.partial,
            softmaxes=tuple(tallies.softmaxes.values()),
            broadcasts=tuple(tallies.broadcasts.values()),
            learning_rate=training.rate,
            training=training,
        )


def _whole_signals(layers: list[Any], not_seen: dict[str, str]) -> list[ErrorSignal]:
    for tally in layers:
        if tally.signal.incomplete:
            not_seen[f"{tally.name} (error signal)"] = (
                "several backward passes went through it and cannot be told apart"
            )
    signals = {id(tally.signal): tally.signal for tally in layers}
    return [signal for signal in signals.values() if signal.sums is not None and not signal.incomplete]


def _list_unseen(observer: Observer) -> None:
    modules, not_seen = observer.modules, observer.tallies.not_seen
    for path in modules.fast:
        not_seen[path] = "a frozen transformer in evaluation mode takes torch's fast path: nothing inside is seen"
    for path in modules.scripted:
        not_seen[path] = "scripted module: nothing inside it is seen"
    used = {tally.weight for tally in observer.tallies.weighted.values()}
    for path, module in modules.leaves():
        if isinstance(module, torch.jit.ScriptModule):
            not_seen[path] = "scripted module: nothing inside it is seen"
        elif path in modules.opaque:
            not_seen[path] = "it ran, but no torch function was called inside that can be seen"
        elif path not in modules.ran and modules.ran:
            own = [f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)]
            if own and not used.intersection(own):
                not_seen[path] = "it did not run in this step"


def _scaled(signal: SquareSums, factor: float) -> SquareSums:
    return dataclasses.replace(signal, square=signal.square * factor**2)


def _parameter_record(
    tally: ParameterTally, sums: ParameterSums, observer: Observer, rates: Sequence[float]
) -> ParameterRecord:
    layer, name = tally.layer, tally.name
    used_by, fan_in = (None, 0) if layer is None else (layer.name, layer.call.fan_in)
    ran = layer is not None or tally.gradient is not None or name.rpartition(".")[0] in observer.modules.ran
    decay = None
    if 0 <= tally.group < len(observer.loop.decays):
        decay = observer.loop.decays[tally.group]
    return ParameterRecord.of(
        name,
        used_by,
        tuple(tally.parameter.shape),
        fan_in,
        sums,
        tally.parameter.requires_grad,
        tally.optimized,
        group=tally.group,
        ran=ran,
        reached=name in observer.loop.reached,
        altered=tally.altered,
        decay=math.nan if decay is None else decay.size(sums.weight.rms, rates[tally.group]),
        decoupled=decay is not None and decay.decoupled,
    )
