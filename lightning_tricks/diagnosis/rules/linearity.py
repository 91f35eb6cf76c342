"""linearity: hidden units that act as a linear filter on every pattern they see."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

from lightning_tricks.activations import properties_of
from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity, Trait
from lightning_tricks.diagnosis.history import layers
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS, RECOVERY, Persistence, leading_in, persistences
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.probes import ActivationRecord, Snapshot, WeightedRecord


@thresholds
class LIMITS:
    """What is counted in steps is counted in updates, by which weights grow, whatever the batch and the length.

    Of 86 healthy networks that began linear, Adam's bent within 32 steps with batches of 16 and 100 with 64, RMSprop's
    within 8, plain gradient descent's within 200 but for one. ``lost_steps`` is for weights that no scheme draws.
    """

    linear: float = 0.999  # corr(a, g(a))^2; a centred Gaussian of std 1: .93 (tanh), .97 (SELU), of .2 .9987 (tanh)
    tiny_std: float = 1e-4  # torch's default start with GELU is at .01 in five layers and recovers; this does not
    straight: float = 0.9999  # tanh at std .1, rectifiers that are always on
    patterns: int = 16  # through two points there is always a straight line
    lost_steps: int = 16  # optimiser steps that were lost, though the layer mended itself in the end
    shifted: float = 2.0  # mean over std of a pre-activation that biases hold on one side
    few: float = 1 / 3  # of the hidden layers may be linear: one among many costs depth, not the training
    nearly: float = 1 / 2  # of them may be nearly so, as the second layer of a small policy is for 200 steps


@rule(
    "linearity",
    "units",
    "bias_shift vanishing_gradient learning_rate_too_low",
    "linear units",
    clause="the units act linearly",
    at_start="start",
    order=4,
    first_only=True,
    table=(1, "initialise for the activation"),
    needs="activations",
)
def find_linearity(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """A layer is a linear filter on every pattern it sees, or has no activation at all."""
    by_construction = _without_activation(history)
    if by_construction is not None:
        yield by_construction
        return
    hidden = layers.judged_activations(history[-1])
    linear = len(_linear(hidden))
    faded = sum(math.isnan(record.linearity) and 0 < record.std < LIMITS.tiny_std for record in hidden)
    everywhere = (
        _lost_time(history)
        | persistences(history, layers.names_of(_always_on), from_start=True)
        | persistences(history, layers.names_of(_linear))
    )
    for name in (record.name for record in hidden if record.name in everywhere):
        found = everywhere[name]
        record = found.at.activation(name)
        if record is None:
            continue
        before, always_on = layers.fed_by(found.at, record), bool(_always_on([record]))
        straight, scale = _straight(history, name, found), layers.weight_scale(history[0], before)
        extreme = not LIMITS.tiny_std <= record.std <= 1.0 / LIMITS.tiny_std or always_on
        tiny_start = straight and found.since == history[0].step and layers.is_tiny(scale)
        share = (linear + faded) / len(hidden)
        many = tiny_start or (share >= LIMITS.few if straight else share > LIMITS.nearly)
        settled = extreme or (many and history[-1].step - found.since >= RECOVERY)
        evidence = {
            "linearity": record.linearity,
            "linear layers": f"{linear} of {len(hidden)}",
            "units": record.function,
            "pre-activation std": record.std,
            "pre-activation mean": record.mean,
            "weighted layer": before,
            "weight scale": scale,
            **({"always on": True} if always_on else {}),
        }
        explanation = (
            f"These {record.function} units only meet patterns on a nearly straight part of their curve, so the layer "
            "is a linear filter. A stack of linear layers can represent no more than a single one."
        )
        kinds = {
            Trait.ALWAYS_ON: always_on,
            Trait.ORDINARY_WEIGHTS: layers.is_ordinary(scale),
            Trait.SCALE_FREE_UNITS: properties_of(record.function).scale_free,
        }
        traits = [trait for trait, so in kinds.items() if so]
        why = [Criterion("linearity", record.linearity, ">=", LIMITS.linear)]
        severity: Severity = found.severity() if settled else "info"
        ordinary = scale is None or layers.is_ordinary(scale)
        todo = remedies.of_a_start(found.at, record.function, before, ordinary=ordinary)
        yield found.finding("linearity", name, severity, evidence, explanation, todo, why, traits, before)


def _lost_time(history: Sequence[Snapshot]) -> dict[str, Persistence]:
    """Units that began linear by weights that no scheme draws, and stayed so for long, if not until now."""
    first = history[0]
    return {
        name: found
        for name, found in leading_in(history, layers.names_of(_linear)).items()
        if found.run >= HYSTERESIS and found.at.step - found.since >= LIMITS.lost_steps
        if layers.is_tiny(layers.weight_scale(first, layers.fed_by(first, first.activation(name))), layers.FAR_OFF)
    }


def _always_on(records: Iterable[ActivationRecord]) -> list[ActivationRecord]:
    """Rectifiers that are linear as no pattern reaches their kink."""
    return [r for r in _linear(records) if r.activity >= LIMITS.straight and r.mean > LIMITS.shifted * r.std]


def _linear(records: Iterable[ActivationRecord]) -> list[ActivationRecord]:
    return [r for r in records if r.linearity >= LIMITS.linear and r.patterns >= LIMITS.patterns]


def _straight(history: Sequence[Snapshot], name: str, found: Persistence) -> bool:
    """Whether it uses nothing of the curve at the latest looks: what bends a little more with each is mending."""
    until = (snapshot for snapshot in reversed(history) if snapshot.step <= found.at.step)
    looks = [snapshot.activation(name) for snapshot in itertools.islice(until, HYSTERESIS)]
    return all(look is not None and look.linearity >= LIMITS.straight for look in looks)


def _without_activation(history: Sequence[Snapshot]) -> Finding | None:
    """Weights directly on weights up to the loss: linear by construction."""
    by_name: dict[str | None, WeightedRecord] = {record.name: record for record in history[-1].weighted}
    chain = list(history[-1].weighted[-1:])
    if not chain or chain[0].follows is None:
        return None
    while chain[0].follows in by_name:
        chain.insert(0, by_name[chain[0].follows])
    low_rank = len(chain) == 2 and chain[0].units < min(chain[0].fan_in, chain[1].units)
    evidence = {"weighted layers in a row": len(chain), "last of them": chain[-1].name}
    explanation = (
        f"{len(chain)} weighted layers follow one another up to the loss without an activation between them. "
        "Together they compute a single linear map, however many weights they have."
    )
    found = Persistence(history[0].step, 1, history[-1])
    why = [Criterion("weighted layers in a row", len(chain) + (chain[0].follows is not None), ">", 1)]
    severity: Severity = "info" if low_rank else "critical"
    names = [record.name for record in chain]
    first, second = names[:2] if len(chain) > 1 else (chain[0].follows, names[0])  # what it follows may not be shown
    todo = [Remedy("insert_activation", f"put an activation between {first} and {second}, such as nn.ReLU()", first)]
    traits = [Trait.IN_CODE]
    return found.finding("linearity", chain[0].name, severity, evidence, explanation, todo, why, traits)
