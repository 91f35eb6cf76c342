"""vanishing_gradient and exploding_gradient: the error signal on its way back to the first layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.diagnosis.history.persistence import RECOVERY, course, hidden_activations
from lightning_tricks.diagnosis.rules.dead_units import dying, find_dead_units
from lightning_tricks.probes import Snapshot, WeightedRecord

VANISHED = 1e-3  # first over last error signal (AUTOTRAINER's bound for gradients)
BLOCKED = 1e-6
EXPLODED = 100.0  # AUTOTRAINER takes 70; 32 healthy SELU layers reach 3
OVERFLOWING = 1e4
STEEP = 0.1  # decades per layer: a healthy ladder is flatter, whatever its ends are
SUDDEN = 0.5  # share of the whole loss, in decades, at one layer: then that layer is the place


@dataclass(frozen=True)
class Ladder:
    """Norm of the error signal of every weighted layer, in the order of execution.

    The norm over the whole output, not the mean over its elements: an early convolution spreads the same signal over a
    thousand positions.
    """

    names: tuple[str, ...]
    norms: tuple[float, ...]

    @classmethod
    def of(cls, snapshot: Snapshot) -> Ladder:
        layers = [record for record in snapshot.weighted if _heard(record)]
        return cls(
            tuple(record.name for record in layers),
            tuple(record.error_signal * math.sqrt(record.elements) for record in layers),
        )

    @property
    def ratio(self) -> float:
        """First layer over last layer; NaN for a single layer."""
        if len(self.norms) < 2 or not self.norms[-1] > 0:
            return math.nan
        return self.norms[0] / self.norms[-1]

    @property
    def slope(self) -> float:
        """Decades the signal loses per layer on its way back (least squares over depth); negative where it grows."""
        points = [(depth, math.log10(norm)) for depth, norm in enumerate(self.norms) if norm > 0]
        if len(points) < 2:
            return math.nan
        depth = sum(x for x, _ in points) / len(points)
        level = sum(y for _, y in points) / len(points)
        spread = sum((x - depth) ** 2 for x, _ in points)
        return sum((x - depth) * (y - level) for x, y in points) / spread

    @property
    def place(self) -> str:
        """The layer at which more than half of the change happens, seen from the loss; else the first layer."""
        logs = [math.log10(max(norm, 1e-300)) for norm in self.norms]
        whole = logs[0] - logs[-1]
        for index in range(len(logs) - 2, -1, -1):
            if whole and (logs[index] - logs[index + 1]) / whole > SUDDEN:
                return self.names[index]
        return self.names[0]


def find_vanishing_gradient(history: Sequence[Snapshot]) -> list[Finding]:
    """An error signal that is lost before it reaches the first layer."""
    found = course(history, lambda snapshot: _vanishes(Ladder.of(snapshot)))
    if found is None:
        return []
    ladder = Ladder.of(history[-1])
    blocking = min(
        (record for record in history[-1].activations if record.transmission >= 0),
        key=lambda record: record.transmission,
        default=None,
    )
    evidence = {
        "shrinks to": ladder.ratio,
        "decades lost per layer": ladder.slope,
        "weighted layers": len(ladder.names),
        "smallest transmission": None if blocking is None else blocking.transmission,
        "smallest transmission at": None if blocking is None else blocking.name,
    }
    explanation = (
        f"The error signal shrinks to {ladder.ratio:.1e} of itself on its way from the last layer to the first. "
        "The first layers therefore hardly learn, and every later layer builds on features that stay random."
    )
    start = remedies.of_a_start(blocking.function if blocking else "")
    todo = (*start[:-1], remedies.RESIDUAL)
    severity = found.severity(critical=ladder.ratio < BLOCKED)
    if ladder.ratio >= BLOCKED and history[-1].step - found.since < RECOVERY:
        severity = "info"  # torch's default start of a ReLU network of eight layers, which mends itself
    if any(dying(record) for record in hidden_activations(history[-1])) and not find_dead_units(history):
        severity = "info"  # units that look dead are to be judged first, and not enough patterns have been seen
    return [Finding("vanishing_gradient", ladder.place, severity, found.since, evidence, explanation, todo)]


def find_exploding_gradient(history: Sequence[Snapshot]) -> list[Finding]:
    """An error signal that grows from layer to layer on its way back."""
    found = course(history, lambda snapshot: _explodes(Ladder.of(snapshot)))
    if found is None:
        return []
    ladder = Ladder.of(history[-1])
    evidence = {
        "grows to": ladder.ratio,
        "decades gained per layer": -ladder.slope,
        "weighted layers": len(ladder.names),
    }
    explanation = (
        f"The error signal grows to {ladder.ratio:.1e} times itself on its way from the last layer to the first. "
        "One step then throws the first layers far off, and the loss jumps or overflows."
    )
    todo = (remedies.initialize(), remedies.CLIP, remedies.LOWER_LR)
    severity = found.severity(critical=ladder.ratio > OVERFLOWING)
    return [Finding("exploding_gradient", ladder.place, severity, found.since, evidence, explanation, todo)]


def _heard(record: WeightedRecord) -> bool:
    return math.isfinite(record.error_signal) and record.operation not in ("embedding", "embedding_bag")


def _vanishes(ladder: Ladder) -> bool:
    return ladder.ratio < VANISHED and (ladder.slope > STEEP or ladder.norms[0] == 0)


def _explodes(ladder: Ladder) -> bool:
    return ladder.ratio > EXPLODED and ladder.slope < -STEEP
