"""disconnected_parameters: trainable, but never reached by a gradient, or held by no optimiser."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS, Persistence
from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.probes import ParameterRecord, Snapshot, WeightedRecord

PROBLEM = "disconnected_parameters"
ZERO_GRAD_FIRST = Remedy("reorder_zero_grad", "call optimizer.zero_grad() before loss.backward(), never after it")
ADD_TO_OPTIMIZER = Remedy("add_to_optimizer", "give the optimiser all parameters: torch.optim.Adam(model.parameters())")
SWITCH_ON = Remedy("reconnect", "if it is to learn, run it outside of torch.no_grad()")
USE_OR_REMOVE = Remedy("use_or_remove", "use the layer in forward, or take it out of the model")
_by_order = operator.attrgetter("order")
_DID_NOT_RUN = "it did not run in this step"


@thresholds
class LIMITS:
    most: float = 0.5  # of the weighted layers: whoever leaves more out of the optimiser wants it so
    agree: int = 2  # probed steps, where optimisers are known: of two towers in turn, one looks cut off at the first
    rare: int = 10  # probed steps, where blocks come and go (layer drop, experts): by then one in two was seen
    by_hand: float = 1e-6  # relative change of the weights' root mean square; rounding in float32 stays below
    listed: int = 8  # layers that the evidence names


@dataclass(frozen=True)
class Trace:
    """One parameter over the probed steps in which a gradient could have come to it."""

    name: str
    record: ParameterRecord  # the latest
    snapshots: tuple[Snapshot, ...]  # in which a backward pass ran and, where known, its own optimiser stepped
    use: WeightedRecord | None  # the first that used it, or its module, with gradients if any did; None: it never ran
    silent: bool  # no gradient ever came

    @property
    def module(self) -> str:
        return self.name.rpartition(".")[0] or self.name

    @property
    def layer(self) -> str:
        return self.module if self.use is None else self.use.name

    @property
    def order(self) -> float:
        return math.inf if self.use is None else self.use.order

    @property
    def persistence(self) -> Persistence:
        return Persistence.over(self.snapshots)

    @property
    def freeze(self) -> Remedy:
        """Where it is meant to be so."""
        text = f"if it is not to be trained, say so: {self.module}.requires_grad_(False)"
        return Remedy("freeze", text, self.module)


@rule(
    PROBLEM,
    "code",
    "linearity vanishing_gradient learning_rate_too_low overfitting bias_shift",
    clause="parameters are never trained",
    order=2,
    reads="thinned",
    table=(11, "the `detach`, the optimiser's list"),
    needs="gradients",
)
def find_disconnected_parameters(history: Sequence[Snapshot]) -> list[Finding]:
    """Parameters that no gradient reaches, or that no optimiser holds.

    At most one finding of each kind.
    """
    snapshots = [snapshot for snapshot in history if _went_back(snapshot)]
    if not any(map(_lacks, snapshots)):
        return []
    traces = _traces(snapshots)
    erased = _erased(snapshots, traces)
    if erased is not None:
        return [erased]
    silent = [trace for trace in traces if trace.silent and trace.record.optimized]
    kinds = (_cut(traces, silent), _never_run(snapshots, silent), _unheld(snapshots, traces))
    found = [finding for finding in kinds if finding is not None]
    return [_unused(silent)] if silent and not found else found


def _erased(snapshots: Sequence[Snapshot], traces: Sequence[Trace]) -> Finding | None:
    """Error signals came to the layers, yet the optimiser found no gradient anywhere."""
    stepped = [snapshot for snapshot in snapshots if _stepped(snapshot)]
    reached = all(any(r.error_signal > 0 for r in snapshot.weighted) for snapshot in stepped)
    if not stepped or not reached or not all(trace.silent for trace in traces):
        return None
    if any(record.update > 0 for snapshot in stepped for record in snapshot.parameters):
        return None  # the gradients are kept elsewhere, as by sharded optimisers
    evidence = {"parameters without a gradient": len(traces), "looks": len(stepped)}
    explanation = (
        "Error signals reach the layers, but when the optimiser makes its step no parameter has a gradient. They are "
        "erased in between, so the step changes nothing."
    )
    why = Criterion("probed steps without a gradient", len(stepped), ">", 0)
    return Persistence.over(stepped).finding(PROBLEM, None, "critical", evidence, explanation, [ZERO_GRAD_FIRST], [why])


def _cut(traces: Sequence[Trace], silent: Sequence[Trace]) -> Finding | None:
    """Layers that ran with gradients switched on and got none, or all of them without."""
    running = sorted((trace for trace in silent if trace.use is not None), key=_by_order)
    loose = [trace for trace in running if trace.use and trace.use.with_gradient]
    if not loose:
        return _without_gradient(running) if running else None
    first, layers, looks = loose[0], _layers(loose), len(loose[0].snapshots)
    learning = [trace for trace in traces if not trace.silent and trace.use is not None]
    behind = min((trace for trace in learning if trace.order > first.order), key=_by_order, default=None)
    last = [trace.layer for trace in loose if behind is None or trace.order < behind.order][-1]
    cut = f"{last} and {'the loss' if behind is None else behind.layer}"
    trunk = not any(trace.order < first.order for trace in learning)
    long = looks >= HYSTERESIS
    agreed = looks >= (LIMITS.agree if learning else 1) and any(map(_stepped, first.snapshots))
    severity: Severity = "critical" if trunk and (long or agreed) else "warning" if long else "info"
    evidence = {
        "layers cut off": _listed(layers),
        "number of layers": len(layers),
        "parameters without a gradient": len(silent),
        "the cut lies between": cut,
        "looks": looks,
    }
    explanation = (
        f"{_count(layers)} ran with gradients switched on, and in no look did a gradient come back to "
        f"{'it' if len(layers) == 1 else 'them'}: between {cut} the graph is cut, or what "
        "was computed is not used. What no gradient reaches stays as it was initialised."
    )
    text = (
        f"look between {cut} for detach(), .data, .item(), numpy() and torch.tensor(...), and keep the tensor in the "
        "graph"
    )
    why = [Criterion("parameters without a gradient", len(silent), ">", 0)]
    todo = (Remedy("reconnect", text, last), first.freeze)
    return first.persistence.finding(PROBLEM, layers[0], severity, evidence, explanation, todo, why)


def _without_gradient(running: Sequence[Trace]) -> Finding:
    layers = _layers(running)
    evidence = {"layers": _listed(layers), "number of layers": len(layers)}
    explanation = (
        f"{_count(layers)} only ran while gradients were switched off, although an optimiser holds the weights. That "
        "is right for a network that is not to be trained, and else the reason why it is not."
    )
    why = [Criterion("layers that only ran without gradients", len(layers), ">", 0)]
    todo = (running[0].freeze, SWITCH_ON)
    return running[0].persistence.finding(PROBLEM, layers[0], "info", evidence, explanation, todo, why)


def _never_run(snapshots: Sequence[Snapshot], silent: Sequence[Trace]) -> Finding | None:
    modules = dict.fromkeys(trace.module for trace in silent if trace.use is None)
    absent = [m for m in modules if all(snapshot.not_seen.get(m) == _DID_NOT_RUN for snapshot in snapshots)]
    if not absent:
        return None
    first = next(trace for trace in silent if trace.module == absent[0])
    looks = len(first.snapshots)
    missed = [{path for path, reason in s.not_seen.items() if reason == _DID_NOT_RUN} for s in snapshots]
    come_and_go = any(paths != missed[0] for paths in missed)
    long = Criterion("probed steps", looks, ">=", LIMITS.rare if come_and_go else HYSTERESIS)
    evidence = {"modules that never ran": _listed(absent), "number of modules": len(absent), "looks": looks}
    explanation = (
        f"{len(absent)} trainable module{'s' if len(absent) > 1 else ''} did not run in any look, so no gradient can "
        "come. Either the forward pass leaves something out, or nobody needs these parameters."
    )
    why = [Criterion("modules that never ran", len(absent), ">", 0), *([long] if long.holds else [])]
    severity: Severity = "warning" if long.holds else "info"
    todo = (USE_OR_REMOVE, first.freeze)
    return first.persistence.finding(PROBLEM, absent[0], severity, evidence, explanation, todo, why)


def _unheld(snapshots: Sequence[Snapshot], traces: Sequence[Trace]) -> Finding | None:
    """Parameters in no optimiser."""
    unheld = [trace for trace in traces if not trace.record.optimized]
    if not unheld:
        return None
    learnable = [trace for trace in unheld if not trace.silent]
    chosen = learnable or unheld
    every = [trace for trace in traces if trace.use and trace.use.weight == trace.name]
    used = sorted((trace for trace in chosen if trace.use and trace.use.weight == trace.name), key=_by_order)
    share = len(used) / len(every) if used else _elements(chosen) / max(_elements(traces), 1)
    records = [record for snapshot in snapshots for record in snapshot.parameters]
    held_once = {record.name for record in records if record.optimized and record.trainable}
    grows = any(not record.optimized and record.name in held_once for record in records)
    deliberate = not learnable or share > LIMITS.most or grows
    layers = _layers(used) or list(dict.fromkeys(trace.module for trace in chosen))
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
    why = [Criterion("layers in no optimiser", len(layers), ">", 0)]
    if not deliberate:
        why.append(Criterion("share of the layers", share, "<=", LIMITS.most))
    severity: Severity = "info" if deliberate else "warning"
    first = min(used or chosen, key=_by_order)
    todo = (ADD_TO_OPTIMIZER, first.freeze)
    return first.persistence.finding(PROBLEM, layers[0], severity, evidence, explanation, todo, why)


def _unused(silent: Sequence[Trace]) -> Finding:
    """Parameters of no weighted layer: mask tokens, forgotten scales."""
    first = silent[0]
    evidence = {"parameters without a gradient": _listed([t.name for t in silent]), "looks": len(first.snapshots)}
    explanation = (
        f"{len(silent)} trainable parameter{'s' if len(silent) > 1 else ''} outside of the weighted layers got no "
        "gradient in any look. They take no part in the loss."
    )
    why = [Criterion("parameters without a gradient", len(silent), ">", 0)]
    todo = (USE_OR_REMOVE, first.freeze)
    return first.persistence.finding(PROBLEM, first.module, "info", evidence, explanation, todo, why)


def _traces(snapshots: Sequence[Snapshot]) -> list[Trace]:
    """What can be trained and does not change by hand, as an average or a copy of other weights does."""
    seen: dict[str, list[tuple[Snapshot, ParameterRecord, WeightedRecord | None, bool]]] = {}
    for snapshot in snapshots:
        used_by, stepped = _users(snapshot), _stepped(snapshot)
        for r in snapshot.parameters:
            counts = r.trainable and not (stepped and r.optimized and math.isnan(r.update))
            seen.setdefault(r.name, []).append((snapshot, r, used_by(r.name), counts))
    traces: list[Trace] = []
    for name, looks in seen.items():
        records, latest = [record for _, record, _, _ in looks], looks[-1][1]
        counting = [snapshot for snapshot, _, _, counts in looks if counts]
        ran = [use for _, _, use, counts in looks if counts and use is not None]
        use = next((use for use in ran if use.with_gradient), ran[0] if ran else None)
        silent = all(map(_is_silent, records))
        sizes = [r.weight for r in records if silent and r.layer == latest.layer and r.weight > 0]
        by_hand = bool(sizes) and max(sizes) > min(sizes) * (1.0 + LIMITS.by_hand)
        if counting and latest.trainable and not by_hand:
            traces.append(Trace(name, latest, tuple(counting), use, silent))
    return traces


@remembered
def _lacks(snapshot: Snapshot) -> bool:
    """Whether any parameter that can be trained is without a gradient or an optimiser in this step."""
    trainable = [record for record in snapshot.parameters if record.trainable]
    return not trainable or any(not record.optimized or _is_silent(record) for record in trainable)


def _is_silent(record: ParameterRecord) -> bool:
    return math.isnan(record.gradient) and not record.nonfinite_gradient and not record.update > 0


@remembered
def _users(snapshot: Snapshot) -> Callable[[str], WeightedRecord | None]:
    """Which weighted record used a parameter, as its weight or by the module that both are of."""
    direct: dict[str, WeightedRecord] = {}
    for record in snapshot.weighted:
        if record.weight is not None and not (record.weight in direct and direct[record.weight].with_gradient):
            direct[record.weight] = record
    modules = {name.rpartition(".")[0]: record for name, record in reversed(direct.items())}
    modules |= {record.name: record for record in reversed(snapshot.weighted)}

    def user(name: str) -> WeightedRecord | None:
        path = name.rpartition(".")[0]
        return direct.get(name) or modules.get(path) or modules.get(path.partition(".parametrizations.")[0])

    return user


@remembered
def _went_back(snapshot: Snapshot) -> bool:
    return math.isfinite(snapshot.loss) or any(not math.isnan(record.gradient) for record in snapshot.parameters)


@remembered
def _stepped(snapshot: Snapshot) -> bool:
    return any(not math.isnan(record.update) for record in snapshot.parameters)


def _layers(traces: Sequence[Trace]) -> list[str]:
    return list(dict.fromkeys(trace.layer for trace in traces))


def _elements(traces: Sequence[Trace]) -> int:
    return sum(math.prod(trace.record.shape) for trace in traces)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LIMITS.listed} more" if len(names) > LIMITS.listed else ""
    return ", ".join(names[: LIMITS.listed]) + more


def _count(layers: Sequence[str]) -> str:
    return f"{len(layers)} weighted layers" if len(layers) > 1 else "This layer"
