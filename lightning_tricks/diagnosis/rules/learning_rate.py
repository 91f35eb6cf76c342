"""learning_rate_too_high and learning_rate_too_low: the size of the updates against what the loss makes of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Finding, Severity
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS, RECOVERY
from lightning_tricks.diagnosis.history.progress import STUCK, guess_loss, recent_loss
from lightning_tricks.diagnosis.rules.dead_units import find_dead_units
from lightning_tricks.diagnosis.rules.gradient import EXPLODED, VANISHED, Ladder
from lightning_tricks.diagnosis.rules.saturation import find_saturation
from lightning_tricks.diagnosis.rules.unnormalized_input import find_unnormalized_input
from lightning_tricks.probes import ParameterRecord, Snapshot

# Calibrated on 600 trainings: 16 architectures, 3 optimisers, learning rates from 1e-6 to 1000 times a good one.
LARGE = 0.03  # median update ratio; healthy about 1e-3, with Adam .02 in the first steps, and .1 TheDeepChecker's bound
OVERSHOOT = 0.3  # where it is not known what a guess loses: adversarial and policy losses rise by nature
LEAP = 5.0  # loss over its start; the best learning rate of a shallow network may overshoot to 4
LEAP_UNMENDED = 2.0  # where it has not learned in RECOVERY steps since
FAR = 100.0
RUNAWAY = 1.0  # median update ratio: weights replaced in one step, and RISE times what it was
RISE = 10.0
REPLACED = 1000.0
SPIKE = 1.3  # one loss over its start by this much shows that it was thrown up, not only held back
DEADLY = 0.1  # median update ratio, TheDeepChecker's bound: units that die or saturate behind it were thrown there
SHAKEN = 1.015  # the same, median of many: weights at rest come to 1.005, whatever the shares of the classes
LEARNED = 0.7
WRONG_START = 3.0  # first loss over that of a guess: wrong before the first update

SMALL = 1.5e-4  # TheDeepChecker takes 1e-4; plain SGD learns at 1e-3 to 2e-4, if slowly
TINY = 3e-6  # at once: at this size the weights move by a thousandth in 300 steps
FALLEN = 0.1  # share of the start by which the loss of such a training may fall
WARM_UP = 1.2  # growth of the learning rate over the history
SENSITIVE = (
    0.01  # abs(gradient x weights) over loss, median: .02 to 100 in nets that learn, .004 where gradients vanish
)
GOOD_START = 0.5  # first loss over that of a guess: a network that is fine-tuned has less to learn

AIM_DOWN = 0.01  # ratio to come down to: that of healthy trainings in their first steps
AIM_UP = 0.001  # ratio to come up to: safe from above
MOST = 1e6  # factor, in either direction


def find_learning_rate_too_high(history: Sequence[Snapshot]) -> list[Finding]:
    """Large updates, after which the loss leaps over its start or comes to rest at that of a guess.

    Large updates alone are healthy: Adam begins so, and batch normalisation takes the size of the weights away.
    """
    start = next((snapshot for snapshot in history if math.isfinite(snapshot.loss)), None)
    if start is None or _is_otherwise_sick(start):
        return []
    guess = guess_loss(start)
    level = max(start.loss, guess) if guess > 0 else start.loss
    ratios = [typical_ratio(snapshot) for snapshot in history]
    large = LARGE if guess > 0 else OVERSHOOT
    begin = next((index for index, ratio in enumerate(ratios) if ratio >= large), None)
    if begin is None:
        return []
    signs = [
        _leaps(history, begin, level) if level > 0 else None,
        _comes_to_rest(history, begin, guess) if guess > 0 else None,
        _runs_away(ratios),
        _throws_units(history, ratios),
    ]
    severities = [sign for sign in signs if sign is not None]
    if not severities:
        return []
    severity: Severity = "critical" if "critical" in severities else "warning" if "warning" in severities else "info"
    factor = min(max(3.0, ratios[begin] / AIM_DOWN), MOST)
    now = recent_loss(history)
    losses = [loss for snapshot in history for loss in (*snapshot.recent_losses, snapshot.loss)]
    evidence: dict[str, Any] = {
        "learning rate": history[begin].learning_rate,
        "update ratio, median over weights": ratios[begin],
        "largest of them": max(ratio for ratio in ratios if not math.isnan(ratio)),
        "first loss": start.loss,
        "highest loss": max((loss for loss in losses if not math.isnan(loss)), default=math.nan),
        "recent loss": now,
        "loss of a guess": guess,
    }
    course = f", and the loss went from {start.loss:.3g} to {now:.3g}" if now > STUCK * start.loss else ""
    explanation = (
        f"One update changes the weights by {ratios[begin]:.2g} of their size, where about 0.001 is healthy{course}. "
        "Such steps leap over every valley of the loss and may leave units dead or saturated behind them."
    )
    todo = (remedies.change_lr("lower", factor, history[begin].learning_rate), remedies.WARM_UP, remedies.CLIP)
    return [Finding("learning_rate_too_high", None, severity, history[begin].step, evidence, explanation, todo)]


def find_learning_rate_too_low(history: Sequence[Snapshot]) -> list[Finding]:
    """Updates that never were more than tiny though the loss depends on the weights, and a loss that hardly falls."""
    first, latest = history[0], history[-1]
    ratios = [ratio for ratio in map(typical_ratio, history) if not math.isnan(ratio)]
    if len(ratios) < HYSTERESIS or not 0.0 < statistics.median(ratios) < SMALL or not 0.0 < ratios[-1] < SMALL:
        return []
    if max(ratios) > RISE * SMALL or _warms_up(history, ratios):
        return []
    if not _median(map(_sensitivity, history)) >= SENSITIVE or find_unnormalized_input(history[:1]):
        return []
    guess, begin, now = guess_loss(first), _first_loss(history), recent_loss(history)
    if begin < GOOD_START * guess or not begin > 0 or not now > (1.0 - FALLEN) * begin:
        return []
    extreme = max(ratios) < TINY
    if not extreme and (latest.step - first.step < RECOVERY or math.isnan(guess)):
        return []
    ratio = statistics.median(ratios)
    evidence: dict[str, Any] = {
        "learning rate": latest.learning_rate,
        "update ratio, median over weights": ratio,
        "first loss": begin,
        "recent loss": now,
        "loss of a guess": guess,
        "steps": latest.step - first.step + 1,
    }
    explanation = (
        f"One update changes the weights by {ratio:.1e} of their size, where about 1e-3 is healthy, and in "
        f"{latest.step - first.step + 1} steps the loss went from {begin:.3g} to {now:.3g}. The gradients reach the "
        "weights, but at this pace the training takes hundreds of times as long as it has to."
    )
    todo = (remedies.change_lr("raise", min(AIM_UP / ratio, MOST), latest.learning_rate),)
    severity: Severity = "critical" if extreme and latest.step - first.step >= RECOVERY else "warning"
    return [Finding("learning_rate_too_low", None, severity, first.step, evidence, explanation, todo)]


def typical_ratio(snapshot: Snapshot) -> float:
    """Median update ratio over the weights that are trained; biases and norms begin at zero or are few."""
    return _median(record.update_ratio for record in _trained(snapshot))


def _trained(snapshot: Snapshot) -> list[ParameterRecord]:
    return [
        record
        for record in snapshot.parameters
        if record.fan_in > 1 and record.trainable and record.optimized and not math.isnan(record.gradient)
    ]


def _sensitivity(snapshot: Snapshot) -> float:
    """Median over weights of the change of the loss, relative to it, if they grew by their size along the gradient."""
    if not snapshot.loss > 0:
        return math.nan
    changes = (record.gradient * record.weight * math.prod(record.shape) for record in _trained(snapshot))
    return _median(change / snapshot.loss for change in changes)


def _median(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def _is_otherwise_sick(start: Snapshot) -> bool:
    """Whether something is wrong before the first update: then that is the cause, at any learning rate."""
    ladder = Ladder.of(start).ratio
    return start.loss > WRONG_START * guess_loss(start) or ladder > EXPLODED or bool(find_unnormalized_input([start]))


def _leaps(history: Sequence[Snapshot], begin: int, level: float) -> Severity | None:
    """The loss after the first large update is far over its start, and has not come back yet."""
    after = history[begin:]
    losses = [loss for snapshot in after[1:] for loss in (*snapshot.recent_losses, snapshot.loss)]
    highest = max((loss for loss in losses if not math.isnan(loss)), default=0.0)
    settled = len(history) > HYSTERESIS and after[-1].step - after[0].step >= RECOVERY
    levels = [recent_loss(history[:index]) for index in range(max(1, len(history) - 2), len(history) + 1)]
    if highest < (LEAP_UNMENDED if settled else LEAP) * level:
        return None
    if not (statistics.median(levels) > LEARNED * level if settled else levels[-1] > level):
        return None
    above = sum(snapshot.loss > 1.5 * level for snapshot in after[1:])
    if not settled and above < HYSTERESIS and highest < FAR * level:
        return "info"
    return "critical" if highest >= FAR * level else "warning"


def _comes_to_rest(history: Sequence[Snapshot], begin: int, guess: float) -> Severity | None:
    """Long after the first large update the loss is that of a guess, though it was lower or was thrown up since."""
    after = history[begin:]
    if after[-1].step - after[0].step < RECOVERY or len(after) <= HYSTERESIS:
        return None
    levels = [recent_loss(history[:index]) for index in range(HYSTERESIS, len(history) + 1)]
    if not min(levels[-HYSTERESIS:]) >= STUCK * guess or _vanishes(history[0]):
        return None
    losses = [loss for snapshot in after[1:] for loss in (*snapshot.recent_losses, snapshot.loss)]
    thrown_up = max((loss for loss in losses if not math.isnan(loss)), default=0.0) >= SPIKE * guess
    shaken = min(levels[-HYSTERESIS:]) >= SHAKEN * guess
    return "critical" if thrown_up or shaken or min(levels) < LEARNED * guess else None


def _vanishes(start: Snapshot) -> bool:
    return Ladder.of(start).ratio < VANISHED


def _runs_away(ratios: Sequence[float]) -> Severity | None:
    """The last look before the end of all numbers: weights are replaced in one step, and were not before."""
    known = [ratio for ratio in ratios if not math.isnan(ratio)]
    if known[-1] > REPLACED:
        return "critical"
    before = _median(known[:-1])
    return "warning" if known[-1] >= RUNAWAY and known[-1] >= RISE * before else None


def _throws_units(history: Sequence[Snapshot], ratios: Sequence[float]) -> Severity | None:
    """Units that were alive at the start and died, or came to rest on a flat side, behind updates that large."""
    for found in (*find_dead_units(history), *find_saturation(history)):
        before = [ratio for snapshot, ratio in zip(history, ratios, strict=True) if snapshot.step < found.step]
        if max((ratio for ratio in before if not math.isnan(ratio)), default=0.0) >= DEADLY:
            return found.severity
    return None


def _warms_up(history: Sequence[Snapshot], ratios: Sequence[float]) -> bool:
    known = [snapshot.learning_rate for snapshot in history if not math.isnan(snapshot.learning_rate)]
    if len(known) > 1:
        return known[-1] > WARM_UP * known[0]
    return ratios[-1] > 2.0 * ratios[len(ratios) // 2]  # momentum grows at the start, warm-up goes on


def _first_loss(history: Sequence[Snapshot]) -> float:
    return _median(loss for snapshot in history[:HYSTERESIS] for loss in (snapshot.loss, *snapshot.recent_losses))
