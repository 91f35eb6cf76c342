"""disconnected_parameters: trainable, but never reached by a gradient, or held by no optimiser."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Finding, Remedy, Severity
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS
from lightning_tricks.probes import ParameterRecord, Snapshot, WeightedRecord

MOST = 0.5  # of the weighted layers: whoever leaves more out of the optimiser wants it so (feature extraction)
AGREE = 2  # looks, where optimisers are known: of two towers that take turns, one looks cut off at the first
RARE = 10  # looks, where blocks come and go (layer drop, experts): by then one left out half of the time was seen
BY_HAND = 1e-6  # relative change of the weights' root mean square; rounding in float32 stays below
LISTED = 8  # layers that the evidence names
_DID_NOT_RUN = "it did not run in this step"


@dataclass(frozen=True)
class Trace:
    """One parameter over the looks in which a gradient could have come to it.

    Args:
        name: The parameter's name.
        record: Its latest record.
        looks: The snapshots that count: a backward pass ran and, where optimisers are known, its own one stepped.
        use: The first weighted record that used it, or its module, with gradients if any did; None if it never ran.
        silent: Whether no gradient ever came.
        by_hand: Whether it changed all the same: an average or a copy of other weights.
    """

    name: str
    record: ParameterRecord
    looks: tuple[Snapshot, ...]
    use: WeightedRecord | None
    silent: bool
    by_hand: bool

    @property
    def module(self) -> str:
        return self.name.rpartition(".")[0] or self.name


def find_disconnected_parameters(history: Sequence[Snapshot]) -> list[Finding]:
    """Parameters that were meant to be trained and cannot be: at most one finding of each kind."""
    looks = [snapshot for snapshot in history if _went_back(snapshot)]
    if not looks:
        return []
    traces = [trace for trace in _traces(looks) if trace.record.trainable and not trace.by_hand]
    erased = _erased(looks, traces)
    if erased is not None:
        return [erased]
    silent = [trace for trace in traces if trace.silent and trace.record.optimized]
    unheld = [trace for trace in traces if not trace.record.optimized]
    cut = _cut(traces, silent)
    found = [cut, _never_run(looks, silent), _unheld(looks, traces, unheld)]
    if not any(found):
        found.append(_unused(silent))
    return [finding for finding in found if finding is not None]


def _erased(looks: Sequence[Snapshot], traces: Sequence[Trace]) -> Finding | None:
    """Error signals came to the layers, yet the optimiser found no gradient anywhere."""
    stepped = [look for look in looks if _stepped(look)]
    heard = all(any(r.error_signal > 0 for r in look.weighted) for look in stepped)
    if not stepped or not heard or not all(trace.silent for trace in traces):
        return None
    if any(record.update > 0 for look in stepped for record in look.parameters):
        return None  # the gradients are kept elsewhere, as by sharded optimisers
    evidence = {"parameters without a gradient": len(traces), "looks": len(stepped)}
    explanation = (
        "Error signals reach the layers, but when the optimiser makes its step no parameter has a gradient. They are "
        "erased in between, so the step changes nothing."
    )
    todo = (remedies.ZERO_GRAD_FIRST,)
    return Finding("disconnected_parameters", None, "critical", stepped[0].step, evidence, explanation, todo)


def _cut(traces: Sequence[Trace], silent: Sequence[Trace]) -> Finding | None:
    """Layers that ran with gradients switched on and got none, or all of them without."""
    running = [trace for trace in silent if trace.use is not None]
    loose = sorted((trace for trace in running if trace.use and trace.use.with_gradient), key=_order)
    if not loose:
        return _without_gradient(running)
    first = loose[0]
    learning = [trace for trace in traces if not trace.silent and trace.use is not None]
    orders = {_order(trace) for trace in learning}
    behind = min((trace for trace in learning if _order(trace) > _order(first)), key=_order, default=None)
    layers = _layers(loose)
    run = [t.use.name for t in loose if t.use and (behind is None or _order(t) < _order(behind))]
    trunk = not any(order < _order(first) for order in orders)
    known = any(_stepped(look) for look in first.looks)
    long = len(first.looks) >= HYSTERESIS
    agreed = len(first.looks) >= (AGREE if learning else 1)
    severity: Severity = "critical" if trunk and (long or (known and agreed)) else "warning" if long else "info"
    into = behind.use.name if behind is not None and behind.use is not None else None
    evidence = {
        "layers cut off": _listed(layers),
        "number of layers": len(layers),
        "parameters without a gradient": len(silent),
        "the cut lies between": f"{run[-1]} and {into or 'the loss'}",
        "looks": len(first.looks),
    }
    explanation = (
        f"{_count(layers)} ran with gradients switched on, and in no look did a gradient come back to "
        f"{'it' if len(layers) == 1 else 'them'}: between {run[-1]} and {into or 'the loss'} the graph is cut, or what "
        "was computed is not used. What no gradient reaches stays as it was initialised."
    )
    todo = (remedies.reconnect(run[-1], into), remedies.freeze(first.module))
    return _finding(first, layers[0], severity, evidence, explanation, todo)


def _without_gradient(running: Sequence[Trace]) -> Finding | None:
    if not running:
        return None
    first, layers = min(running, key=_order), _layers(sorted(running, key=_order))
    evidence = {"layers": _listed(layers), "number of layers": len(layers)}
    explanation = (
        f"{_count(layers)} only ran while gradients were switched off, although an optimiser holds the weights. That "
        "is right for a network that is not to be trained, and else the reason why it is not."
    )
    todo = (remedies.freeze(first.module), remedies.SWITCH_ON)
    return _finding(first, layers[0], "info", evidence, explanation, todo)


def _never_run(looks: Sequence[Snapshot], silent: Sequence[Trace]) -> Finding | None:
    modules = {trace.module for trace in silent if trace.use is None}
    absent = sorted(
        (m for m in modules if all(look.not_seen.get(m) == _DID_NOT_RUN for look in looks)),
        key=[trace.module for trace in silent].index,
    )
    if not absent:
        return None
    first = next(trace for trace in silent if trace.module == absent[0])
    come_and_go = any(
        reason == _DID_NOT_RUN and any(look.not_seen.get(path) != _DID_NOT_RUN for look in looks)
        for one in looks
        for path, reason in one.not_seen.items()
    )
    sure = len(first.looks) >= (RARE if come_and_go else HYSTERESIS)
    evidence = {
        "modules that never ran": _listed(absent),
        "number of modules": len(absent),
        "looks": len(first.looks),
    }
    explanation = (
        f"{len(absent)} trainable module{'s' if len(absent) > 1 else ''} did not run in any look, so no gradient can "
        "come. Either the forward pass leaves something out, or nobody needs these parameters."
    )
    todo = (remedies.USE_OR_REMOVE, remedies.freeze(absent[0]))
    return _finding(first, absent[0], "warning" if sure else "info", evidence, explanation, todo)


def _unheld(looks: Sequence[Snapshot], traces: Sequence[Trace], unheld: Sequence[Trace]) -> Finding | None:
    """Parameters in no optimiser."""
    learnable = [trace for trace in unheld if not trace.silent]
    if not unheld:
        return None
    chosen = learnable or unheld
    used = [trace for trace in chosen if trace.use is not None and trace.use.weight == trace.name]
    every = [trace for trace in traces if trace.use is not None and trace.use.weight == trace.name]
    share = len(used) / len(every) if used else _elements(chosen) / max(_elements(traces), 1)
    held_once = {r.name for look in looks for r in look.parameters if r.optimized and r.trainable}
    grows = any(not r.optimized and r.name in held_once for look in looks for r in look.parameters)
    deliberate = not learnable or share > MOST or grows
    first = min(used or chosen, key=_order)
    layers = _layers(sorted(used, key=_order)) or list(dict.fromkeys(trace.module for trace in chosen))
    evidence = {
        "layers in no optimiser": _listed(layers),
        "number of layers": len(layers),
        "share of the layers": share,
        "with a gradient": len(learnable),
    }
    explanation = (
        f"{_count(layers)} can be trained, but no optimiser holds "
        f"{'its' if len(layers) == 1 else 'their'} parameters. They stay as they were initialised, and the rest of "
        "the network learns around them."
    )
    todo = (remedies.ADD_TO_OPTIMIZER, remedies.freeze(first.module))
    return _finding(first, layers[0], "info" if deliberate else "warning", evidence, explanation, todo)


def _unused(silent: Sequence[Trace]) -> Finding | None:
    """Parameters of no weighted layer: mask tokens, forgotten scales."""
    if not silent:
        return None
    first = silent[0]
    evidence = {
        "parameters without a gradient": _listed([t.name for t in silent]),
        "looks": len(first.looks),
    }
    explanation = (
        f"{len(silent)} trainable parameter{'s' if len(silent) > 1 else ''} outside of the weighted layers got no "
        "gradient in any look. They take no part in the loss."
    )
    todo = (remedies.USE_OR_REMOVE, remedies.freeze(first.module))
    return _finding(first, first.module, "info", evidence, explanation, todo)


def _finding(
    trace: Trace,
    layer: str,
    severity: Severity,
    evidence: Mapping[str, Any],
    explanation: str,
    todo: tuple[Remedy, ...],
) -> Finding:
    return Finding("disconnected_parameters", layer, severity, trace.looks[0].step, evidence, explanation, todo)


def _traces(looks: Sequence[Snapshot]) -> list[Trace]:
    uses = [_uses(look) for look in looks]
    seen: dict[str, list[tuple[int, ParameterRecord]]] = {}
    for index, look in enumerate(looks):
        for record in look.parameters:
            seen.setdefault(record.name, []).append((index, record))
    stepped = [_stepped(look) for look in looks]
    traces: list[Trace] = []
    for name, records in seen.items():
        counting = [
            index
            for index, r in records
            if r.trainable and not (stepped[index] and r.optimized and math.isnan(r.update))
        ]
        if not counting:
            continue
        ran = [use for index in counting if (use := uses[index].get(name)) is not None]
        silent = all(math.isnan(r.gradient) and not r.nonfinite_gradient and not r.update > 0 for _, r in records)
        use = next((use for use in ran if use.with_gradient), ran[0] if ran else None)
        sizes = [r.weight for _, r in records if r.layer == records[-1][1].layer and r.weight > 0]
        by_hand = silent and bool(sizes) and max(sizes) > min(sizes) * (1.0 + BY_HAND)
        traces.append(Trace(name, records[-1][1], tuple(looks[i] for i in counting), use, silent, by_hand))
    return traces


def _uses(look: Snapshot) -> dict[str, WeightedRecord]:
    """Which weighted record used a parameter, as its weight or by the module that both are of."""
    direct: dict[str, WeightedRecord] = {}
    for record in look.weighted:
        if record.weight is not None and not (record.weight in direct and direct[record.weight].with_gradient):
            direct[record.weight] = record
    modules = {name.rpartition(".")[0]: record for name, record in reversed(direct.items())}
    modules |= {record.name: record for record in reversed(look.weighted)}
    uses: dict[str, WeightedRecord] = {}
    for parameter in look.parameters:
        path = parameter.name.rpartition(".")[0]
        computed = path.partition(".parametrizations.")[0]
        found = direct.get(parameter.name) or modules.get(path) or modules.get(computed)
        if found is not None:
            uses[parameter.name] = found
    return uses


def _went_back(look: Snapshot) -> bool:
    return math.isfinite(look.loss) or any(not math.isnan(record.gradient) for record in look.parameters)


def _stepped(look: Snapshot) -> bool:
    return any(not math.isnan(record.update) for record in look.parameters)


def _order(trace: Trace) -> float:
    return math.inf if trace.use is None else trace.use.order


def _layers(traces: Sequence[Trace]) -> list[str]:
    return list(dict.fromkeys(trace.use.name for trace in traces if trace.use is not None))


def _elements(traces: Sequence[Trace]) -> int:
    return sum(math.prod(trace.record.shape) for trace in traces)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def _count(layers: Sequence[str]) -> str:
    return f"{len(layers)} weighted layers" if len(layers) > 1 else "This layer"
