"""collapsed_output: the network gives the same answer to every pattern."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Iterator, Sequence

from lightning_tricks.activations import properties_of
from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Trait
from lightning_tricks.diagnosis.history.loss_calls import LossCalls, loss_calls
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS, Persistence, persistence
from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.diagnosis.rules.batch_mixing import preflight
from lightning_tricks.diagnosis.rules.dead_units import LEAKY
from lightning_tricks.diagnosis.rules.output_mismatch_targets import no_activation
from lightning_tricks.probes import ActivationRecord, LossRecord, Snapshot, WeightedRecord
from lightning_tricks.probes.records.loss_path import SoftmaxRecord

PROBLEM = "collapsed_output"
_order = operator.attrgetter("order")
Layer = ActivationRecord | WeightedRecord


@thresholds
class LIMITS:
    equal: float = 1e-6  # std over patterns over the size of the output; float32 rounds by 6e-8
    equal_in_half: float = 1e-3  # the same where numbers have 8 to 11 bits
    half: float = 1e-4  # a rounding error above this is that of such numbers
    begun: int = 10  # optimiser steps in which a head that begins at zero has moved


@rule(
    PROBLEM,
    "units",
    "learning_rate_too_low vanishing_gradient output_mismatch",
    "collapsed output",
    clause="the output is the same for every input",
    follows_from="symmetric_weights learning_rate_too_high poor_initialization dead_units saturation linearity "
    "vanishing_gradient",
    order=0,
    reads="thinned",
    table=(16, "the activation behind the last layer"),
    needs="layers",
)
def find_collapsed_output(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """All patterns give the same output though the inputs differ; a softmax over a single entry."""
    _, asked = preflight(history)
    if asked is not None and asked.alike:
        return  # of inputs that are all the same it is the right answer
    found = [one_entry(calls) or equal_outputs(calls) for calls in loss_calls(history)]
    if not history[-1].losses:
        found.append(equal_at_the_end(history))
    found += [single_weight(history, softmax) for softmax in history[-1].softmaxes]
    places = {finding.layer: finding for finding in reversed(found) if finding is not None}
    # What mixes the patterns of a batch makes them equal, too: then it is no fault of its own.
    follows = {Trait.IN_CODE} if asked is not None and asked.place is not None else set()
    yield from (dataclasses.replace(finding, traits=finding.traits - follows) for finding in places.values())


def one_entry(calls: LossCalls) -> Finding | None:
    """A softmax over an axis of length 1 whose output is what the loss is given: always 1."""
    found = calls.persistence_in(lambda snapshot, record: _single(snapshot, record) is not None)
    softmax = None if found is None else _single(found.at, calls.latest)
    if found is None or softmax is None:
        return None
    shape = list(softmax.shape)
    evidence = {"shape": str(shape), "axis": softmax.axis, "smallest and largest output": calls.latest.input_max}
    explanation = (
        f"{softmax.function} at {softmax.name} runs over dimension {softmax.axis} of {shape}, a single entry. "
        f"It gives {calls.latest.input_max:g} whatever the network says, and lets no gradient through."
    )
    line = "nn.Softmax" if softmax.function == "softmax" else "nn.LogSoftmax"
    todo = (
        Remedy("change_output", f"nn.Sigmoid() in place of {line}(dim={softmax.axis}), with F.binary_cross_entropy"),
        Remedy("change_loss", "or take it away and use F.binary_cross_entropy_with_logits on the raw output"),
    )
    why = [Criterion("entries along the axis of the softmax", softmax.length, "<", 2)]
    return found.finding(
        PROBLEM, softmax.name, "critical", evidence, explanation, todo, why, [Trait.IN_CODE], softmax.scores
    )


def single_weight(history: Sequence[Snapshot], softmax: SoftmaxRecord) -> Finding | None:
    """A layer with one unit, a score for each of many, and a softmax over that unit in place of the many."""
    if softmax.scores is None or len(softmax.shape) < 3 or max(softmax.shape[1:]) < 2:
        return None
    found = persistence(history, lambda s: any(each.name == softmax.name and each.length == 1 for each in s.softmaxes))
    if found is None:
        return None
    shape, layer = list(softmax.shape), softmax.scores
    explanation = (
        f"{softmax.function} at {softmax.name} runs over dimension {softmax.axis} of {shape}, the single unit of "
        f"{layer}. Every weight it gives is the same, and {layer} gets no gradient."
    )
    todo = [Remedy("change_axis", f"run over the entries that are to be weighed: dim={shape.index(max(shape[1:]), 1)}")]
    why, traits = [Criterion("entries along the axis of the softmax", softmax.length, "<", 2)], [Trait.IN_CODE]
    evidence, severity = {"shape": str(shape), "axis": softmax.axis}, found.severity()
    return found.finding(PROBLEM, layer, severity, evidence, explanation, todo, why, traits, softmax.name)


def equal_outputs(calls: LossCalls) -> Finding | None:
    """What the loss is given does not differ between patterns, though they and their targets do."""
    found = calls.persistence_in(lambda snapshot, record: record.name in _collapsed_calls(snapshot))
    if found is None or not _lasts(calls.snapshots[-found.run :]):
        return None
    latest = calls.latest
    place = _place(found.at, latest.order, (latest.activation, latest.weighted))
    aims = {"target mean": latest.target_mean, "target std": latest.target_std}
    if latest.distinct_classes:  # of their numbers a mean says nothing
        aims = {"classes among the targets": latest.distinct_classes}
    evidence = {"output": latest.input_mean, **aims}
    return None if place is None else _finding(found, place, latest.input_variation, evidence, latest.order)


def equal_at_the_end(history: Sequence[Snapshot]) -> Finding | None:
    """The same of the last layer, where the loss is written by hand."""
    found = persistence(history, lambda snapshot: _ends_equal(snapshot) is not None)
    place = None if found is None or not _lasts(history[-found.run :]) else _ends_equal(found.at)
    if found is None or place is None:
        return None
    return _finding(found, place, place.variation, {"loss": found.at.loss}, math.inf)


def _finding(found: Persistence, place: Layer, variation: float, evidence: dict[str, float], end: float) -> Finding:
    if not _varies(place.input_variation, place):
        return _arrive_equal(found, place, evidence)
    units, what = (True, place.function) if isinstance(place, ActivationRecord) else (False, place.operation)
    behind, cut = units and place.order > _last_weighted(found.at, end), units and properties_of(what).cuts_at_zero
    why = Criterion("std over patterns relative to the output", variation, "<=", _limit(place.resolution))
    numbers = {**evidence, why.name: why.value, "the same before that layer": place.input_variation}
    explanation = (
        f"All patterns are equal behind {what} at {place.name}, though they differ before it: the output is a constant."
    )
    if cut:
        explanation += " Every unit there is zero for every pattern, so no gradient comes back that could change it."
    todo = [Remedy("check_weights", f"look at the weights of {place.name}: they let nothing through")]
    if cut:
        todo = [no_activation(what)] if behind else [LEAKY, remedies.LOWER_LR]
    todo, traits, severity = [*todo, remedies.initialize()], [Trait.IN_CODE] * behind, found.severity(critical=True)
    return found.finding(PROBLEM, place.name, severity, numbers, explanation, todo, [why], traits)


def _arrive_equal(found: Persistence, place: Layer, evidence: dict[str, float]) -> Finding:
    """Something that is no layer, between the last at which they differ and this one, made them equal."""
    before = [layer for layer in _in_order(found.at) if layer.order < place.order and _varies(layer.variation, layer)]
    between = f"between {before[-1].name} and {place.name}"
    why = [Criterion("std over patterns relative to the input", place.input_variation, "<=", _limit(place.resolution))]
    layer: str | None = place.name
    explanation = f"All patterns are equal as they come to {layer}, though they differ behind {before[-1].name}: "
    if isinstance(place, WeightedRecord) and place.dropout >= 1.0:
        layer = place.dropped_by
        explanation += f"dropout at {layer} drops everything. The output is a constant."
        todo = Remedy("lower_dropout", f"p=0.5 or less in place of p={place.dropout:g} at {layer}")
    else:
        explanation += "what is done in between makes them so. The output is a constant."
        todo = Remedy("check_code", f"look at what is done {between}: it keeps nothing of the pattern")
    numbers, severity = {**evidence, why[0].name: why[0].value}, found.severity(critical=True)
    traits = [Trait.IN_CODE]
    return found.finding(PROBLEM, layer, severity, numbers, explanation, [todo], why, traits, before[-1].name)


def _single(snapshot: Snapshot, record: LossRecord) -> SoftmaxRecord | None:
    """The softmax over one entry behind the last layer that the loss can only have got its constant from."""
    begin = _last_weighted(snapshot, record.order)
    for softmax in snapshot.softmaxes:
        constant = 1.0 if softmax.function == "softmax" else 0.0
        here = begin <= softmax.after < record.order and softmax.length == 1
        if here and record.input_min == record.input_max == constant:
            return softmax
    return None


@remembered
def _collapsed_calls(snapshot: Snapshot) -> frozenset[str]:
    """Where the targets of a call are all one, as a discriminator's, a constant is the right answer."""
    differ = [record for record in snapshot.losses if record.patterns > 1 and record.target_min < record.target_max]
    equal = [record for record in differ if record.input_variation <= _limit(record.input_resolution)]
    return frozenset(record.name for record in equal if _place(snapshot, record.order) is not None)


def _place(snapshot: Snapshot, before: float, own: Sequence[str | None] = ()) -> Layer | None:
    """The layer at which patterns become equal and stay so: none where the output does not come from the input."""
    layers = [layer for layer in _in_order(snapshot) if layer.order < before and layer.patterns > 1]
    limits = list(zip(layers, [_limit(layer.resolution) for layer in layers], strict=True))
    equal = [layer for layer, limit in limits if layer.variation <= limit < layer.input_variation]
    varying = max([layer.order for layer, limit in limits if layer.variation > limit], default=0)
    at_once = [layer for layer in equal if layer.name in own]
    after = [layer for layer in equal if layer.order > varying]
    found = next(iter([*at_once, *after, *reversed(equal)]), None)
    # Without a layer that makes them equal: the first to which they come so, from layers that the loss depends on.
    reached = any(layer.order <= varying and not math.isnan(layer.error_signal) for layer in layers)
    return found or next((layer for layer in layers if reached and layer.order > varying and _is_equal(layer)), None)


@remembered
def _ends_equal(snapshot: Snapshot) -> Layer | None:
    """What a loss is made of in the end may be zero by right, as a hinge: unless the loss is not, and nothing moves."""
    layers = [layer for layer in _in_order(snapshot) if not math.isnan(layer.error_signal)]
    if not layers or snapshot.losses or not _is_equal(layers[-1]):
        return None
    is_weighted = isinstance(layers[-1], WeightedRecord)
    return _place(snapshot, math.inf) if is_weighted or (snapshot.loss != 0 and _stands_still(snapshot)) else None


def _lasts(snapshots: Sequence[Snapshot]) -> bool:
    """Whether no start explains it: it held for long enough after the first steps, or no weight got a gradient."""
    late = sum(snapshot.step > LIMITS.begun for snapshot in snapshots)
    return late >= HYSTERESIS or (len(snapshots) >= HYSTERESIS and all(map(_stands_still, snapshots)))


@remembered
def _stands_still(snapshot: Snapshot) -> bool:
    known = [r.gradient for r in snapshot.parameters if r.trainable and not math.isnan(r.gradient)]
    return bool(known) and not any(known)


@remembered
def _in_order(snapshot: Snapshot) -> list[Layer]:
    return sorted((*snapshot.weighted, *snapshot.activations), key=_order)


def _last_weighted(snapshot: Snapshot, before: float) -> int:
    return max((record.order for record in snapshot.weighted if record.order < before), default=0)


def _is_equal(layer: Layer) -> bool:
    return layer.patterns > 1 and layer.variation <= _limit(layer.resolution)


def _varies(variation: float, layer: Layer) -> bool:
    return variation > _limit(layer.resolution)


def _limit(resolution: float) -> float:
    return LIMITS.equal_in_half if resolution > LIMITS.half else LIMITS.equal
