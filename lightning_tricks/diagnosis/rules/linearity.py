"""linearity: hidden units that act as a linear filter on every pattern they see."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.diagnosis.history.persistence import (
    HYSTERESIS,
    RECOVERY,
    Course,
    first_of,
    hidden_activations,
    layer_course,
    weight_scale,
    weighted_before,
)
from lightning_tricks.diagnosis.wrong_start import FAR_OFF, NORMAL_SCALE
from lightning_tricks.probes import ActivationRecord, Snapshot

LINEAR_LAYER = (
    0.999  # corr(a, g(a))^2; a centred Gaussian of std 1 gives .93 (tanh), .97 (SELU), of std .2 .9987 (tanh)
)
TINY_STD = 1e-4  # torch's default initialisation with GELU starts at .01 in five layers and recovers; this does not
STRAIGHT = 0.9999  # tanh at std .1, rectifiers that are always on
FEW_PATTERNS = 16  # through two points there is always a straight line
LONG = 16  # optimiser steps that were lost, though the layer mended itself in the end
SHIFTED = 2.0  # mean over std of a pre-activation that biases hold on one side
FEW = 1 / 3  # of the hidden layers may be linear: one among many costs depth, not the training
NEARLY = 1 / 2  # of them, where the units are not quite straight: a network that has little to bend


def find_linearity(history: Sequence[Snapshot]) -> list[Finding]:
    """The first hidden layer that is linear on the patterns it sees, or weights without any activation between."""
    by_construction = _without_activation(history)
    if by_construction is not None:
        return [by_construction]
    latest = history[-1]
    found_at: list[Finding] = []
    hidden = hidden_activations(latest)
    linear = sum(_linear(record) for record in hidden)
    faded = sum(math.isnan(record.linearity) and 0 < record.std < TINY_STD for record in hidden)
    for name in [record.name for record in hidden]:
        found = (
            layer_course(history, name, _linear)
            or layer_course(history, name, _always_on, from_start=True)
            or _lost_time(history, name)
        )
        record = None if found is None else found.at.activation(name)
        if found is None or record is None:
            continue
        before = weighted_before(found.at, record)
        scale = weight_scale(history[0], before.name if before else None)
        extreme = not TINY_STD <= record.std <= 1.0 / TINY_STD or _always_on(record)
        tiny_start = found.since == history[0].step and scale is not None and 0 < scale < NORMAL_SCALE[0]
        allowed = FEW if record.linearity >= STRAIGHT else NEARLY
        many = linear + faded >= allowed * len(hidden) or (tiny_start and record.linearity >= STRAIGHT)
        settled = extreme or (many and latest.step - found.since >= RECOVERY)
        evidence: dict[str, Any] = {
            "linearity": record.linearity,
            "linear layers": f"{linear} of {len(hidden)}",
            "units": record.function,
            "pre-activation std": record.std,
            "pre-activation mean": record.mean,
            "weighted layer": before.name if before else None,
            "weight scale": scale,
        }
        if _always_on(record):
            evidence["always on"] = True
        explanation = (
            f"These {record.function} units only meet patterns on a nearly straight part of their curve, so the layer "
            "is a linear filter. A stack of linear layers can represent no more than a single one."
        )
        severity = found.severity(critical=False) if settled else "info"
        todo = remedies.of_a_start(record.function)
        found_at.append(Finding("linearity", name, severity, found.since, evidence, explanation, todo))
    return first_of(found_at)


def _lost_time(history: Sequence[Snapshot], name: str) -> Course | None:
    """Units that began linear by weights that no scheme draws, and stayed so for long, if not until now."""
    run = list(itertools.takewhile(lambda snapshot: _linear(snapshot.activation(name)), history))
    record = run[0].activation(name) if len(run) >= HYSTERESIS else None
    if record is None or run[-1].step - run[0].step < LONG:
        return None
    before = weighted_before(run[0], record)
    scale = weight_scale(run[0], before.name if before else None)
    tiny = scale is not None and 0 < scale < NORMAL_SCALE[0] / FAR_OFF
    return Course(run[0].step, len(run), run[-1]) if tiny else None


def _always_on(record: ActivationRecord | None) -> bool:
    """Rectifiers that are linear as no pattern reaches their kink."""
    return _linear(record) and record is not None and record.activity >= STRAIGHT and record.mean > SHIFTED * record.std


def _linear(record: ActivationRecord | None) -> bool:
    return record is not None and record.patterns >= FEW_PATTERNS and record.linearity >= LINEAR_LAYER


def _without_activation(history: Sequence[Snapshot]) -> Finding | None:
    """Weights directly on weights up to the loss: linear by construction."""
    latest = history[-1]
    if not latest.weighted or latest.weighted[-1].follows is None:
        return None
    chain = [latest.weighted[-1]]
    by_name = {record.name: record for record in latest.weighted}
    while chain[0].follows is not None and chain[0].follows in by_name:
        chain.insert(0, by_name[chain[0].follows])
    low_rank = len(chain) == 2 and chain[0].units < min(chain[0].fan_in, chain[1].units)
    evidence = {"weighted layers in a row": len(chain), "last of them": chain[-1].name}
    explanation = (
        f"{len(chain)} weighted layers follow one another up to the loss without an activation between them. "
        "Together they compute a single linear map, however many weights they have."
    )
    return Finding(
        "linearity",
        chain[0].name,
        "info" if low_rank else "critical",
        history[0].step,
        evidence,
        explanation,
        (remedies.SELU,),
    )
