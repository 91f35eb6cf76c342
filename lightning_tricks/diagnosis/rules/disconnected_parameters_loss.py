"""disconnected_parameters, continued: a loss that is computed and multiplied by 0."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy
from lightning_tricks.diagnosis.history.learning import TOLD_AFTER
from lightning_tricks.diagnosis.history.loss_calls import LossCalls, loss_calls
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS
from lightning_tricks.probes import LossRecord, Snapshot

_SINGLE = 1e-5  # resolution of single precision and better; in half precision signals become 0 by themselves


def weightless(history: Sequence[Snapshot], problem: str) -> Iterator[Finding]:
    """One of several losses is over 0, and exactly nothing of it comes back to the layer that it looks at.

    A weight that is raised from 0 later, as by annealing, is waited for.
    """
    calls = [each for each in loss_calls(history) if len(each.records) >= HYSTERESIS]
    steps = history[-1].step - history[0].step + 1
    if len(calls) < 2 or steps < TOLD_AFTER:
        return
    silent = [each for each in calls if _is_silent(each.snapshots[-1], each.latest)]
    silent = [each for each in silent if all(map(_is_silent, each.snapshots, each.records))]
    for each in silent:
        yield _finding(each, problem, steps)


def _is_silent(snapshot: Snapshot, record: LossRecord) -> bool:
    layer = next((r for r in snapshot.weighted if r.name == record.weighted), None)
    if layer is None or record.activation is not None or not record.input_resolution < _SINGLE:
        return False
    return record.value > 0.0 and layer.error_signal == 0.0


def _finding(calls: LossCalls, problem: str, steps: int) -> Finding:
    latest, looks = calls.latest, len(calls.records)
    explanation = (
        f"{latest.function} behind {latest.weighted} is {latest.value:.3g}, and in none of {looks} looks did anything "
        "of it come back to that layer: it is added with a weight of 0, or beyond a limit. What only this loss would "
        "train stays as it was initialised."
    )
    text = (
        f"look at the number that {latest.function} is multiplied by before the losses are added: 1 // 2 is 0, and a "
        "weight that is annealed has to begin some time"
    )
    evidence = {"loss function": latest.function, "its value": latest.value, "looks": looks, "steps": steps}
    why = Criterion("error signal behind this loss, root mean square", 0.0, "<", math.ulp(0.0))
    todo = [Remedy("weigh_losses", text, latest.weighted)]
    return calls.all().finding(problem, latest.weighted, "warning", evidence, explanation, todo, [why])
