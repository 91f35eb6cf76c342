"""poor_initialization and symmetric_weights: what was wrong before the first step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Finding, Severity
from lightning_tricks.diagnosis.history.persistence import (
    HYSTERESIS,
    RECOVERY,
    course,
    hidden_activations,
    weight_scale,
    weighted_before,
)
from lightning_tricks.diagnosis.history.progress import guess_loss, is_stuck
from lightning_tricks.diagnosis.rules.dead_units import DEAD_LAYER
from lightning_tricks.diagnosis.wrong_start import FAR_OFF, NORMAL_SCALE, is_ordinary
from lightning_tricks.probes import ActivationRecord, Snapshot, WeightedRecord

FAINT = 0.03  # std of a pre-activation; healthy networks of a few layers start at .09 with torch's default
LOUD = 30.0
JUMP = 20.0  # factor between the pre-activations of two layers in a row (SageMaker alarms at a variance ratio of 10)
GENTLE = 1e-4  # a fading down to this, as of torch's default in eight layers, mends itself within RECOVERY steps
ALIKE = 3.0  # factor within which the sizes of two layers' weights come from one scheme
PATIENCE = 2.0  # times RECOVERY: for weights of an ordinary size, such as logistic units with torch's default
EARLY = 16  # optimiser steps after which weights no longer show how they began


@dataclass(frozen=True)
class Step:
    """One step of the pre-activation ladder; ``scale``: RMS(w) sqrt(fan_in) of the layer's weights."""

    weighted: WeightedRecord
    activation: ActivationRecord
    scale: float | None

    @property
    def std(self) -> float:
        return self.activation.std


def find_symmetric_weights(history: Sequence[Snapshot]) -> list[Finding]:
    """Layers whose units all begin with the same weights: at once, from the first snapshot on."""
    first = history[0]
    if first.step > EARLY:
        return []
    last = first.weighted[-1].name if first.weighted else None
    layers = {record.name: record for record in first.weighted}
    for record in first.parameters:
        layer = layers.get(record.layer or "")
        if layer is None or not record.symmetric or layer.units < 2:
            continue
        if record.weight == 0.0 and (layer.name == last or not _still_symmetric(history, record.name)):
            continue  # a branch or an output that begins at zero finds its own way
        evidence = {"units with equal weights": layer.units, "root mean square weight": record.weight}
        explanation = (
            f"All {layer.units} units of this layer have exactly the same weights. They compute the same, receive the "
            "same gradient and stay the same, so the layer is worth a single unit."
        )
        return [
            Finding("symmetric_weights", layer.name, "critical", first.step, evidence, explanation, (remedies.RANDOM,))
        ]
    return []


def find_poor_initialization(history: Sequence[Snapshot]) -> list[Finding]:
    """The first layer at which the pre-activations leave the order of 1, at the start and still now."""
    first = history[0]
    if first.step > EARLY:
        return []
    ladder = _ladder(first)
    faulty = _first_faulty(ladder)
    if faulty is None:
        return []
    place, what = faulty
    sudden = "suddenly" in what or "far too large" in what
    found = course(history, lambda snapshot: _first_faulty(_ladder(snapshot)) is not None, from_start=True)
    still = found is not None and found.since == first.step
    extreme = sudden or _extreme(place.scale)
    held = _held_from_start(history)
    gain = place.weighted.std / place.weighted.input_std if place.weighted.input_std > 0 else math.nan
    evidence = {
        "pre-activation std": place.std,
        "from first to last hidden layer": f"{ladder[0].std:.2g} to {ladder[-1].std:.2g}",
        "output std over input std": gain,
        "weight scale": place.scale,
        "at one layer": sudden,
        "activation layer": place.activation.name,
    }
    explanation = (
        f"At the start the pre-activations {what} at this layer: its weights do not fit their number and the "
        f"{place.activation.function} units that follow. From there on signals and gradients change with every layer."
    )
    todo = remedies.of_a_start(place.activation.function)
    gentle = min(step.std for step in ladder) >= GENTLE and not extreme
    usual = is_ordinary(place.scale)
    steps = history[-1].step - first.step
    settled = not gentle or (steps >= PATIENCE * RECOVERY and _learns_nothing(history) if usual else steps >= RECOVERY)
    severity: Severity = "info"
    if (still and settled) or (extreme and held):
        severity = "warning" if len(history) >= HYSTERESIS else "info"
    return [Finding("poor_initialization", place.weighted.name, severity, first.step, evidence, explanation, todo)]


def _learns_nothing(history: Sequence[Snapshot]) -> bool:
    """By a loss of which it is known what a guess has: those of a game between networks do not fall."""
    return not math.isnan(guess_loss(history[0])) and is_stuck(history)


def _extreme(scale: float | None) -> bool:
    return scale is not None and not NORMAL_SCALE[0] / FAR_OFF <= scale <= NORMAL_SCALE[1] * FAR_OFF and scale > 0


def _held_from_start(history: Sequence[Snapshot]) -> bool:
    """Over so many looks and steps that the training has lost them, whatever it made of itself later."""
    run = list(itertools.takewhile(lambda snapshot: _first_faulty(_ladder(snapshot)) is not None, history))
    return len(run) >= HYSTERESIS and run[-1].step - run[0].step >= EARLY


def _still_symmetric(history: Sequence[Snapshot], weight: str) -> bool:
    later = [record for snapshot in history[1:] for record in snapshot.parameters if record.name == weight]
    return bool(later) and later[-1].symmetric


def _ladder(snapshot: Snapshot) -> list[Step]:
    """The ladder up to the first layer of dead units: behind those nothing tells of its own weights."""
    steps: list[Step] = []
    for record in hidden_activations(snapshot):
        weighted = weighted_before(snapshot, record)
        if weighted is not None and record.std >= 0:
            steps.append(Step(weighted, record, weight_scale(snapshot, weighted.name)))
        if record.dead_share >= DEAD_LAYER:
            break
    return steps


def _first_faulty(ladder: Sequence[Step]) -> tuple[Step, str] | None:
    before: Step | None = None
    for step in ladder:
        if before is not None and before.std > 0 and not 1.0 / JUMP <= step.std / before.std <= JUMP:
            first = _first_alike(ladder, step)
            shrinks = step.std < before.std
            if first is not step:
                return first, f"{'shrink' if shrinks else 'grow'} from layer to layer, beginning"
            return step, "shrink suddenly" if shrinks else "grow suddenly"
        if step.std < FAINT:
            return _origin(ladder, step), "fade away"
        if step.std > LOUD and step.weighted.std / max(step.weighted.input_std, 1e-30) > JUMP:
            return step, "are far too large"
        before = step
    if ladder and ladder[-1].std > LOUD:
        return ladder[0], "grow from layer to layer, beginning"
    return None


def _first_alike(ladder: Sequence[Step], jump: Step) -> Step:
    """The first layer whose weights are as far from an ordinary size as those at a jump: then it is no single layer."""
    if not jump.scale or is_ordinary(jump.scale):
        return jump
    for step in ladder:
        if step.scale is not None and 1.0 / ALIKE <= step.scale / jump.scale <= ALIKE:
            return step
    return jump


def _origin(ladder: Sequence[Step], faint: Step) -> Step:
    """Where a fading that takes several layers begins: the first layer after which it only shrinks."""
    first = _first_alike(ladder, faint)
    if first is not faint:
        return first
    index = ladder.index(faint)
    while index > 0 and ladder[index].std < 0.7 * ladder[index - 1].std:
        index -= 1
    return ladder[min(index + 1, len(ladder) - 1)] if ladder[index].std > 0.3 else ladder[index]
