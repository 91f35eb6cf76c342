"""disconnected_parameters: trainable, but never reached by a gradient, or held by no optimiser."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS, Persistence
from lightning_tricks.diagnosis.history.traces import Trace, has_stepped, lacks, traces_of, went_back
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.diagnosis.rules.disconnected_parameters_loss import weightless
from lightning_tricks.probes import Snapshot

PROBLEM = "disconnected_parameters"
ZERO_GRAD_FIRST = Remedy("reorder_zero_grad", "call optimizer.zero_grad() before loss.backward(), never after it")
ADD_TO_OPTIMIZER = Remedy("add_to_optimizer", "give the optimiser all parameters: torch.optim.Adam(model.parameters())")
SWITCH_ON = Remedy("reconnect", "if it is to learn, run it outside of torch.no_grad()")
REMAKE = Remedy(
    "remake_optimizer",
    "make the optimiser after the last change of the model's layers, from what the model has then: "
    "torch.optim.Adam(model.parameters())",
)
USE_OR_REMOVE = Remedy("use_or_remove", "use the layer in forward, or take it out of the model")
_by_order = operator.attrgetter("order")
_DID_NOT_RUN = "it did not run in this step"


@thresholds
class LIMITS:
    most: float = 0.5  # of the weighted layers: whoever leaves more out of the optimiser wants it so
    agree: int = 2  # probed steps, where optimisers are known: of two towers in turn, one looks cut off at the first
    rare: int = 10  # probed steps, where blocks come and go (layer drop, experts): by then one in two was seen
    listed: int = 8  # layers that the evidence names


@rule(
    PROBLEM,
    "code",
    "linearity vanishing_gradient learning_rate_too_low overfitting bias_shift",
    clause="parameters are never trained",
    order=5,
    reads="thinned",
    table=(11, "the `detach`, the optimiser's list"),
    needs="gradients",
)
def find_disconnected_parameters(history: Sequence[Snapshot]) -> list[Finding]:
    """Parameters that no gradient reaches, or that no optimiser holds.

    At most one finding of each kind.
    """
    snapshots = [snapshot for snapshot in history if went_back(snapshot)]
    lacking = any(map(lacks, snapshots))
    traces = traces_of(snapshots) if lacking else []
    erased = _erased(snapshots, traces) if lacking else None
    if erased is not None:
        return [erased]
    silent = [trace for trace in traces if trace.silent and trace.record.optimized]
    kinds = _cut(traces, silent), _never_run(snapshots, silent), _unheld(snapshots, traces), _none_held(snapshots)
    found = list(filter(None, (*kinds, _loose(snapshots))))
    found += weightless(history, PROBLEM) if history else ()
    return [_unused(silent)] if silent and not found else found


def _erased(snapshots: Sequence[Snapshot], traces: Sequence[Trace]) -> Finding | None:
    """Error signals came to the layers, yet the optimiser found no gradient anywhere."""
    stepped = [snapshot for snapshot in snapshots if has_stepped(snapshot)]
    reached = all(any(r.error_signal > 0 for r in snapshot.weighted) for snapshot in stepped)
    if not stepped or not reached or not all(trace.erased for trace in traces):
        return None
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
        return _without_gradient(running, traces) if running else None
    first, layers, looks = loose[0], _layers(loose), len(loose[0].snapshots)
    learning = [trace for trace in traces if not trace.silent and trace.use is not None]
    behind = min((trace for trace in learning if trace.order > first.order), key=_by_order, default=None)
    last = [trace.layer for trace in loose if behind is None or trace.order < behind.order][-1]
    cut = f"{last} and {'the loss' if behind is None else behind.layer}"
    trunk = not any(trace.order < first.order for trace in learning)
    long = looks >= HYSTERESIS
    agreed = looks >= (LIMITS.agree if learning else 1) and any(map(has_stepped, first.snapshots))
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
    todo = (Remedy("reconnect", text, last), _freeze(first))
    return first.persistence.finding(PROBLEM, layers[0], severity, evidence, explanation, todo, why)


def _without_gradient(running: Sequence[Trace], traces: Sequence[Trace]) -> Finding | None:
    """Held by an optimiser and never moved; copies of layers that are trained, such as a target network, are not."""
    running = [trace for trace in running if not _is_copy(trace, traces)]
    if not running:
        return None
    layers, first = _layers(running), running[0]
    looks = [look for look in first.snapshots if has_stepped(look)]
    long = Criterion("probed steps without a gradient and a change", len(looks), ">=", HYSTERESIS)
    evidence = {"layers": _listed(layers), "number of layers": len(layers), "looks": len(looks)}
    explanation = (
        f"{_count(layers)} only ran while gradients were switched off, although an optimiser holds the weights, and "
        "never changed. That is right for a network that is not to be trained, and else the reason why it is not."
    )
    why = Criterion("layers that only ran without gradients", len(layers), ">", 0), long
    severity: Severity = "warning" if long.holds else "info"
    todo = (SWITCH_ON, _freeze(first))
    return first.persistence.finding(PROBLEM, layers[0], severity, evidence, explanation, todo, why)


def _is_copy(trace: Trace, traces: Sequence[Trace]) -> bool:
    """Whether it began with exactly the weights of something that is trained."""
    first, size = trace.snapshots[0], trace.record.shape
    begun = {record.name: record.weight for record in first.parameters if record.shape == size}
    trained = {other.name for other in traces if not other.silent}
    return any(name in trained and weight == begun.get(trace.name) for name, weight in begun.items())


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
    why = Criterion("modules that never ran", len(absent), ">", 0), long
    severity: Severity = "warning" if long.holds else "info"
    todo = (USE_OR_REMOVE, _freeze(first))
    return first.persistence.finding(PROBLEM, absent[0], severity, evidence, explanation, todo, why)


def _unheld(snapshots: Sequence[Snapshot], traces: Sequence[Trace]) -> Finding | None:
    """Parameters in no optimiser."""
    unheld = [trace for trace in traces if not trace.record.optimized]
    if not unheld:
        return None
    learnable = [trace for trace in unheld if not trace.silent]
    chosen = learnable or unheld
    every = [trace for trace in traces if trace.use and trace.use.weight == trace.name]
    used = sorted((trace for trace in every if trace in chosen), key=_by_order)
    share = len(used) / len(every) if used else _elements(chosen) / max(_elements(traces), 1)
    records = [record for snapshot in snapshots for record in snapshot.parameters]
    held_once = {record.name for record in records if record.optimized and record.trainable}
    grows = any(not record.optimized and record.name in held_once for record in records)
    replaced = _foreign(snapshots)
    deliberate = not replaced and (not learnable or share > LIMITS.most or grows)
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
    if replaced:
        evidence["tensors in the optimiser that are not the model's"] = replaced
        explanation += f" The optimiser holds {replaced} tensors instead that are no part of the model any more."
        why.append(Criterion("tensors in the optimiser without a gradient", replaced, ">", 0))
    elif not deliberate:
        why.append(Criterion("share of the layers", share, "<=", LIMITS.most))
    severity: Severity = "info" if deliberate else "warning"
    first = min(used or chosen, key=_by_order)
    todo = (REMAKE if replaced else ADD_TO_OPTIMIZER, _freeze(first))
    return first.persistence.finding(PROBLEM, layers[0], severity, evidence, explanation, todo, why)


def _foreign(snapshots: Sequence[Snapshot]) -> int:
    """Tensors in an optimiser that are no parameters of the model and never get a gradient, as latents would."""
    training = [snapshot.training for snapshot in snapshots if snapshot.training is not None]
    never = bool(training) and not any(record.foreign_with_gradient for record in training)
    return training[-1].foreign if never else 0


def _none_held(snapshots: Sequence[Snapshot]) -> Finding | None:
    """An optimiser that holds nothing of the model, whose weights stay as they are: no sharded copies of them."""
    looks = [s for s in snapshots if s.training is not None and s.training.optimizers and not s.training.held]
    foreign = _foreign(snapshots)
    if not foreign or len(looks) < len(snapshots):
        return None
    sizes = {(record.name, record.weight) for look in looks for record in look.parameters if record.trainable}
    if len(sizes) > len({name for name, _ in sizes}):
        return None
    long = Criterion("probed steps without a change", len(looks), ">=", HYSTERESIS)
    evidence = {"tensors in the optimiser that are not the model's": foreign, "looks": len(looks)}
    explanation = (
        f"The optimiser holds {foreign} tensors of which none is a parameter of the model, and none has a gradient: it "
        "was made from other layers than those that run, and no step changes the model."
    )
    severity: Severity = "critical" if long.holds else "info"
    why = Criterion("parameters of the model in the optimiser", 0, "<", 1), long
    return Persistence.over(looks).finding(PROBLEM, None, severity, evidence, explanation, [REMAKE], why)


def _loose(snapshots: Sequence[Snapshot]) -> Finding | None:
    """Weights in a Python list: no part of the model for torch, so that nobody trains, moves or saves them."""
    looks = [snapshot for snapshot in snapshots if snapshot.training is not None and snapshot.training.loose]
    loose = [look.training.loose for look in looks if look.training]
    sizes: dict[str, list[float]] = {}
    for weight in itertools.chain.from_iterable(loose):
        sizes.setdefault(weight.name, []).append(weight.size)
    still = [weight for weight in loose[-1] if len(set(sizes[weight.name])) == 1] if loose else []
    fresh = [weight for weight in still if weight.fresh]  # what somebody has trained before is there to be used
    if not still:
        return None
    shown, looked = fresh or still, min(len(sizes[weight.name]) for weight in fresh or still)
    long = Criterion("probed steps without a change", looked, ">=", HYSTERESIS)
    severity: Severity = "warning" if fresh and long.holds else "info"
    holder = shown[0].name.rpartition("[")[0] or shown[0].name.rpartition(".")[0]
    evidence = {"weights outside of the model": _listed([weight.name for weight in shown]), "looks": looked}
    explanation = (
        f"{len(shown)} weights that the loss depends on are in {holder}, where torch does not find them: "
        "model.parameters() leaves them out, so no optimiser trains them, and they are neither saved nor moved."
    )
    text = f"make {holder} a torch.nn.ModuleList (ModuleDict, ParameterList) instead of a list or dict"
    why = Criterion("weights outside of the model", len(shown), ">", 0), long
    layer = shown[0].module or None
    todo = [Remedy("register", text, layer)]
    return Persistence.over(looks).finding(PROBLEM, layer, severity, evidence, explanation, todo, why)


def _unused(silent: Sequence[Trace]) -> Finding:
    """Parameters of no weighted layer: mask tokens, forgotten scales."""
    first = silent[0]
    evidence = {"parameters without a gradient": _listed([t.name for t in silent]), "looks": len(first.snapshots)}
    explanation = (
        f"{len(silent)} trainable parameter{'s' if len(silent) > 1 else ''} outside of the weighted layers got no "
        "gradient in any look. They take no part in the loss."
    )
    why = [Criterion("parameters without a gradient", len(silent), ">", 0)]
    todo = (USE_OR_REMOVE, _freeze(first))
    return first.persistence.finding(PROBLEM, first.module, "info", evidence, explanation, todo, why)


def _freeze(trace: Trace) -> Remedy:
    """Where it is meant to be so."""
    text = f"if it is not to be trained, say so: {trace.module}.requires_grad_(False)"
    return Remedy("freeze", text, trace.module)


def _layers(traces: Sequence[Trace]) -> list[str]:
    return list(dict.fromkeys(trace.layer for trace in traces))


def _elements(traces: Sequence[Trace]) -> int:
    return sum(math.prod(trace.record.shape) for trace in traces)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LIMITS.listed} more" if len(names) > LIMITS.listed else ""
    return ", ".join(names[: LIMITS.listed]) + more


def _count(layers: Sequence[str]) -> str:
    return f"{len(layers)} weighted layers" if len(layers) > 1 else "This layer"
