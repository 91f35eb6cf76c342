"""no_update: nothing is trained, as a part of the loop is missing, the rate is 0, or what is to learn is frozen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity
from lightning_tricks.diagnosis.history.learning import stands_still
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS, Persistence
from lightning_tricks.diagnosis.history.progress import guess_or_start, recent_loss, trained_weights
from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.probes import ParameterRecord, Snapshot, TrainingRecord

PROBLEM = "no_update"


@thresholds
class LIMITS:
    looks: int = 5  # at which a weight had a gradient and stayed as it was
    warm_up: int = 20  # steps: a schedule that begins at 0 has left it by then
    tail: float = 0.1  # of the steps so far: a schedule may end at 0
    lagging: float = 0.5  # loss over a guess's, from which on there is something left to learn
    still: float = 6e-8  # update over weight: half of the distance between two numbers in float32
    slow: float = 1e-6  # a rate under which updates that small come from the rate, not from the gradient
    accumulated: int = 64  # backward passes without a step: hardly anybody accumulates over more by hand
    long: int = 1000  # steps: slow ones leave the loss of a guess later than after some hundred


@rule(
    PROBLEM,
    "code",
    "disconnected_parameters linearity vanishing_gradient learning_rate_too_low learning_rate_too_high overfitting "
    "bias_shift poor_initialization",
    clause="nothing is trained",
    order=0,
    reads="thinned",
    table=(11, "`backward()`, `step()`, the rate, `requires_grad`"),
)
def find_no_update(history: Sequence[Snapshot]) -> list[Finding]:
    """No forward, no backward, no step, a rate of 0, or all is frozen.

    The first that holds is named; what is left out would only repeat it.
    """
    looks = [snapshot for snapshot in history if snapshot.training is not None and snapshot.parameters]
    nothing = (_frozen, _detached, _no_forward, _no_backward, _no_step, _rate_of_zero)
    kinds = (*(() if _moved(looks) else nothing), _rate_too_small, _schedule_at_zero, _fresh_and_frozen, _never_moves)
    return list(filter(None, (kind(looks) for kind in kinds if looks)))[:1]


def _frozen(looks: Sequence[Snapshot]) -> Finding | None:
    if any(record.trainable for look in looks for record in look.parameters) or any(map(_gradients, looks)):
        return None
    waits = all(t.detached or (t.held and t.steps and not t.foreign_with_gradient) for t in _training(looks))
    if not waits or not (_training(looks)[-1].detached or len(looks) >= HYSTERESIS):
        return None
    count = len(looks[-1].parameters)
    explanation = "No parameter of the network can be trained: requires_grad is off everywhere, so no step changes it."
    remedy = Remedy("unfreeze", "model.requires_grad_(True), or on the layers that are to learn")
    why = Criterion("trainable parameters", 0, "<", 1)
    return _finding(looks, None, {"frozen parameters": count}, explanation, [remedy], why)


def _detached(looks: Sequence[Snapshot]) -> Finding | None:
    """A loss was there, and needed no gradient."""
    if not all(training.detached and not training.backwards for training in _training(looks)):
        return None
    weighted, layer = looks[-1].weighted, None
    if weighted and not any(record.with_gradient for record in weighted):
        layer, cause = weighted[0].name, "the forward pass ran with gradients switched off"
        text = "take torch.no_grad() or torch.inference_mode() away from around the forward pass"
    else:
        cause = "it was cut from the graph behind the last layer"
        text = "keep the loss in the graph: no detach(), .data, .item(), numpy(), torch.tensor(...) or argmax before it"
    explanation = f"The loss needs no gradient, as {cause}. So nothing goes backward and no step changes anything."
    why = Criterion("losses without a gradient", sum(t.detached for t in _training(looks)), ">", 0)
    evidence = {why.name: why.value, "looks": len(looks)}
    return _finding(looks, layer, evidence, explanation, [Remedy("keep_graph", text, layer)], why)


def _no_forward(looks: Sequence[Snapshot]) -> Finding | None:
    ran = any(t.forwards or t.backwards for t in _training(looks)) or any(s.weighted or s.activations for s in looks)
    if ran or not _is_trained(looks) or any(map(_gradients, looks)):
        return None
    explanation = "The model that the optimiser holds did not run in any look: another one is being called, or none."
    remedy = Remedy("call_model", "call the model whose parameters the optimiser was given, no copy of it")
    why = Criterion("forward passes", 0, "<", 1)
    return _finding(looks, None, {"forward passes": 0, "looks": len(looks)}, explanation, [remedy], why)


def _no_backward(looks: Sequence[Snapshot]) -> Finding | None:
    forward = all(any(record.with_gradient for record in snapshot.weighted) for snapshot in looks)
    backward = any(t.backwards for t in _training(looks)) or any(map(_gradients, looks))
    if not forward or backward or not _is_trained(looks):
        return None
    steps = sum(training.steps for training in _training(looks))
    explanation = (
        "The forward pass runs with gradients switched on, but no backward pass follows: no parameter ever has a "
        "gradient, and a step without one changes nothing."
    )
    text = "call loss.backward() (self.manual_backward(loss) in manual optimisation) before optimizer.step()"
    why = Criterion("backward passes", 0, "<", 1)
    evidence = {"backward passes": 0, "optimiser steps": steps, "looks": len(looks)}
    return _finding(looks, None, evidence, explanation, [Remedy("call_backward", text)], why)


def _no_step(looks: Sequence[Snapshot]) -> Finding | None:
    training = _training(looks)
    waits = all(t.optimizers and t.held and not t.steps for t in training) and any(map(_gradients, looks))
    if not waits or any(r.nonfinite_gradient for look in looks for r in look.parameters):
        return None
    passes = max(looks[-1].step - looks[0].step, sum(t.backwards for t in training))
    explanation = (
        "Gradients are there, but the optimiser makes no step in any look, and no weight has changed between the looks."
    )
    text = "call optimizer.step() after loss.backward() (after self.manual_backward(loss) in manual optimisation)"
    long = Criterion("backward passes without a step", passes, ">=", LIMITS.accumulated)
    evidence = {"backward passes without a step": passes, "looks": len(looks)}
    severity: Severity = "critical" if long.holds else "info"
    return _finding(looks, None, evidence, explanation, [Remedy("call_step", text)], long, severity)


def _rate_of_zero(looks: Sequence[Snapshot]) -> Finding | None:
    """At every look: no schedule is waited for where none is known, and no longer than for its first steps."""
    training = _training(looks)
    if not all(t.rate == 0.0 for t in training) or len(looks) < LIMITS.looks:
        return None
    waits = any(rate > 0.0 for t in training for rate in t.first_rates)
    steps = Criterion("steps", looks[-1].step - looks[0].step + 1, ">=", LIMITS.warm_up if waits else LIMITS.looks)
    explanation = "The learning rate of every parameter group is 0 at every look, so no step changes anything."
    text = "give the optimiser a learning rate: torch.optim.Adam(model.parameters(), lr=1e-3)"
    if waits:
        text = "let the schedule leave 0: its factor, and whether scheduler.step() is called after every step"
    evidence = {"learning rate": 0.0, "steps": steps.value, "looks": len(looks)}
    severity: Severity = "critical" if steps.holds else "info"
    return _finding(looks, None, evidence, explanation, [Remedy("set_lr", text)], steps, severity)


def _rate_too_small(looks: Sequence[Snapshot]) -> Finding | None:
    """Updates that vanish in the rounding of the weights."""
    first_rate, rate = _training(looks)[0].rate, _training(looks)[-1].rate
    if not 0.0 < rate <= LIMITS.slow or rate > first_rate:
        return None
    stepped = [look for look in looks if any(not math.isnan(r.update) for r in trained_weights(look))]
    if len(stepped) < LIMITS.looks or not _lags(looks):
        return None
    largest = max(r.update / r.weight for look in stepped for r in trained_weights(look) if r.weight > 0)
    if not largest < LIMITS.still:
        return None
    explanation = (
        f"With a learning rate of {rate:.0e} an update is smaller than the distance between neighbouring numbers: most "
        "weights stay exactly as they are."
    )
    remedy = Remedy("set_lr", f"raise the learning rate: lr={rate:.0e} is {1e-3 / rate:.0e} times smaller than 1e-3")
    why = Criterion("largest update / weight", largest, "<", LIMITS.still)
    evidence = {"learning rate": rate, "largest update / weight": largest, "looks": len(stepped)}
    return _finding(stepped, None, evidence, explanation, [remedy], why)


def _schedule_at_zero(looks: Sequence[Snapshot]) -> Finding | None:
    """From some step on, while there is something left to learn and the training goes on."""
    rates = [(look, training.rate) for look, training in zip(looks, _training(looks), strict=True)]
    run = [look for look, _ in itertools.takewhile(lambda pair: pair[1] == 0.0, reversed(rates))][::-1]
    if not HYSTERESIS <= len(run) < len(looks):
        return None
    steps, last = run[-1].step - run[0].step, run[-1].step
    if steps < LIMITS.warm_up or steps <= LIMITS.tail * last or not _lags(looks):
        return None
    explanation = (
        f"The learning rate has been 0 since step {run[0].step} or shortly before, and the training has gone on for "
        f"{steps} steps in which nothing changes, although its loss is still near that of a guess."
    )
    before = max(rate for _, rate in rates)
    text = (
        "let the schedule last as long as the training and never multiply by 0: StepLR(gamma=0.1), "
        "CosineAnnealingLR(T_max=all steps), the same unit (step or epoch) for both"
    )
    evidence = {"learning rate": 0.0, "learning rate before": before, "steps at 0": steps, "loss": recent_loss(looks)}
    why = Criterion("steps at a rate of 0", steps, ">=", LIMITS.warm_up)
    return _finding(run, None, evidence, explanation, [Remedy("mend_schedule", text)], why)


def _fresh_and_frozen(looks: Sequence[Snapshot]) -> Finding | None:
    """Layers in front of trained ones, frozen before they have learned anything, in a training that stands still."""
    latest, first = looks[-1], looks[0]
    if latest.training is None or not latest.training.fresh or not stands_still(looks):
        return None
    sizes = [(record.shape, record.weight) for record in first.parameters]
    begun = {record.name: sizes.count((record.shape, record.weight)) for record in first.parameters}
    fresh = {name for name in latest.training.fresh if begun.get(name, 0) == 1}  # no copy of another module
    layers = [record for record in latest.weighted if record.weight in fresh]
    if not layers:
        return None
    explanation = (
        f"{len(layers)} frozen layer{'s' if len(layers) > 1 else ''} in front of trained ones still hold the random "
        "weights that they were made with, and the loss does not come down."
    )
    name = layers[0].name
    text = f"{name}.requires_grad_(True), or load the weights it is to have before it is frozen"
    evidence = {"frozen layers with random weights": ", ".join(record.name for record in layers)}
    long = Criterion("steps at the loss of a guess", latest.step - first.step, ">=", LIMITS.long)
    todo = [Remedy("unfreeze", text, name)]
    return _finding(looks, name, evidence, explanation, todo, long, "warning" if long.holds else "info")


def _never_moves(looks: Sequence[Snapshot]) -> Finding | None:
    """Weights that an optimiser with a rate holds, that have a gradient, and that stay exactly as they are."""
    if not any(map(_unchanged, looks)):
        return None  # before the names of all that move are read
    moved, still = (frozenset[str]().union(*each) for each in zip(*map(_that_move, looks), strict=True))
    seen = {name: [look for look in looks if name in _that_move(look)[1]] for name in still - moved}
    ordered = [record for record in looks[-1].parameters if len(seen.get(record.name, ())) >= LIMITS.looks]
    names = [record.name for record in ordered]
    if not names:
        return None
    altered = any(r.altered for look in looks for r in look.parameters if r.name in names)
    least_seen = min(len(seen[name]) for name in names)
    explanation = (
        f"{len(names)} parameter{'s' if len(names) > 1 else ''} had a gradient and a learning rate in {least_seen} "
        "looks and did not change at all: the optimiser's step leaves them out, or something puts them back."
    )
    layer = ordered[0].layer or names[0].rpartition(".")[0] or None
    text = "look at what the step does with them: a custom step(), a mask on the gradient, weights written back"
    evidence = {"parameters that never move": ", ".join(names[:8]), "looks": least_seen}
    why = Criterion("looks with a gradient and no change", least_seen, ">=", LIMITS.looks)
    todo = [Remedy("mend_step", text, layer)]
    return _finding(looks, layer, evidence, explanation, todo, why, "info" if altered else "warning")


@remembered
def _unchanged(look: Snapshot) -> list[ParameterRecord]:
    """What has a gradient and is after the step as it was before."""
    return [record for record in look.parameters if record.update == 0.0 and record.gradient > 0]


@remembered
def _that_move(look: Snapshot) -> tuple[frozenset[str], frozenset[str]]:
    """Of the weights with a gradient and a rate: those that the step moves, and those that it leaves as they are."""
    tables = {record.weight for record in look.weighted if record.operation.startswith("embedding")}
    rated = {group for group, rate in enumerate(look.training.rates if look.training else ()) if rate > 0}
    with_gradient = [record for record in look.parameters if record.gradient > 0 and record.update >= 0]
    counted = [record for record in with_gradient if record.group in rated and record.name not in tables]
    least = min([record.update / record.gradient for record in with_gradient if record.update > 0], default=0.0)
    still = [r.name for r in counted if r.update == 0.0 and r.gradient * least > LIMITS.still * r.weight]
    return frozenset(r.name for r in counted) - frozenset(still), frozenset(still)


def _finding(
    looks: Sequence[Snapshot],
    layer: str | None,
    evidence: Mapping[str, Any],
    explanation: str,
    remedies: Sequence[Remedy],
    why: Criterion,
    severity: Severity = "critical",
) -> Finding:
    return Persistence.over(looks).finding(PROBLEM, layer, severity, evidence, explanation, remedies, [why])


def _training(looks: Sequence[Snapshot]) -> list[TrainingRecord]:
    return [look.training for look in looks if look.training is not None]


def _is_trained(looks: Sequence[Snapshot]) -> bool:
    return len(looks) >= HYSTERESIS and all(training.held for training in _training(looks))


def _gradients(look: Snapshot) -> bool:
    return any(record.nonfinite_gradient or not math.isnan(record.gradient) for record in look.parameters)


def _moved(looks: Sequence[Snapshot]) -> bool:
    """Whether any weight changed in a step, or between two looks."""
    first: dict[str, float] = {}
    known = (record for look in looks for record in look.parameters if not math.isnan(record.weight))
    return any(r.update > 0 or first.setdefault(r.name, r.weight) != r.weight for r in known)


def _lags(looks: Sequence[Snapshot]) -> bool:
    """Whether there is something left to learn: the loss is over half of a guess's, or of its start."""
    return recent_loss(looks) > LIMITS.lagging * guess_or_start(looks)
