"""linearity: hidden units that act as a linear filter on every pattern they see."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.course import RECOVERY, hidden_activations, layer_course, weight_scale, weighted_before
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.probes import ActivationRecord, Snapshot

LINEAR_LAYER = 0.999  # corr(a, g(a))^2; a centred Gaussian of std 1 gives .93 (tanh), .97 (SELU), of std .2 .9987 (tanh)
TINY_STD = 1e-4  # torch's default initialisation with GELU starts at .01 in five layers and recovers; this does not
STRAIGHT = 0.9999  # tanh at std .1, rectifiers that are always on
FEW = 1 / 3  # of the hidden layers may be linear: one among many costs depth, not the training
NEARLY = 1 / 2  # of them, where the units are not quite straight: a network that has little to bend


def find_linearity(history: Sequence[Snapshot]) -> list[Finding]:
    """The first hidden layer that is linear on the patterns it sees, or weights without any activation between."""
    by_construction = _without_activation(history)
    if by_construction is not None:
        return [by_construction]
    latest = history[-1]
    sick = [record for record in hidden_activations(latest) if _linear(record)]
    for record in sick:
        found = layer_course(history, record.name, _linear)
        if found is None:
            continue
        severity = found.severity(critical=False)
        extreme = not TINY_STD <= record.std <= 1.0 / TINY_STD
        hidden = hidden_activations(latest)
        faded = sum(math.isnan(other.linearity) and 0 < other.std < TINY_STD for other in hidden)
        allowed = FEW if record.linearity >= STRAIGHT else NEARLY
        many = len(sick) + faded >= allowed * len(hidden)
        settled = extreme or (many and latest.step - found.since >= RECOVERY)
        before = weighted_before(latest, record)
        evidence = {
            "linearity": record.linearity,
            "linear layers": f"{len(sick)} of {len(hidden_activations(latest))}",
            "pre-activation std": record.std,
            "pre-activation mean": record.mean,
            "weighted layer": before.name if before else None,
            "weight scale": weight_scale(history[0], before.name if before else None),
        }
        explanation = (
            f"These {record.function} units only meet patterns on a nearly straight part of their curve, so the layer "
            "is a linear filter. A stack of linear layers can represent no more than a single one."
        )
        todo = remedies.of_a_start(record.function)
        return [
            Finding(
                "linearity",
                record.name,
                severity if settled else "info",
                found.since,
                evidence,
                explanation,
                todo,
            )
        ]
    return []


def _linear(record: ActivationRecord | None) -> bool:
    return record is not None and record.linearity >= LINEAR_LAYER


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
