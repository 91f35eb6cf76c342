"""learning_rate_too_high: large updates after which the loss leaps, or comes to rest at that of a guess."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import SEVERITIES, Criterion, Finding, Remedy, Severity
from lightning_tricks.diagnosis.history import progress
from lightning_tricks.diagnosis.history.error_signal import ErrorSignalByLayer
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS, RECOVERY
from lightning_tricks.diagnosis.history.progress import STUCK, all_losses, recent_loss
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.diagnosis.rules import exploding_gradient, vanishing_gradient
from lightning_tricks.diagnosis.rules.dead_units import find_dead_units
from lightning_tricks.diagnosis.rules.saturation import find_saturation
from lightning_tricks.diagnosis.rules.unnormalized_input import find_unnormalized_input
from lightning_tricks.probes import Snapshot

WARM_UP = Remedy("warm_up", "warm up: let the learning rate grow from near 0 over the first few hundred steps")


@thresholds
class LIMITS:
    """Calibrated on 600 trainings: 16 architectures, 3 optimisers, learning rates from 1e-6 to 1000 times a good one.

    All that are called an update are median update ratios.
    """

    large_update: float = 0.03  # healthy about 1e-3, with Adam .02 in the first steps, and .1 TheDeepChecker's bound
    without_guess: float = 0.3  # where no guess is known: adversarial and policy losses rise by nature
    leap: float = 5.0  # loss over its start; the best learning rate of a shallow network may overshoot to 4
    leap_unmended: float = 2.0  # where it has not learned in RECOVERY steps since
    above_start: float = 1.5  # loss over its start at a probed step that counts as one after a leap
    far: float = 100.0
    runaway_update: float = 1.0  # weights replaced in one step, and rise times what it was
    rise: float = 10.0
    replacing_update: float = 1000.0
    spike: float = 1.3  # one loss over its start by this much shows that it was thrown up, not only held back
    deadly_update: float = 0.1  # TheDeepChecker's bound: units that die or saturate behind it were thrown there
    shaken: float = 1.015  # as spike, median of many: weights at rest come to 1.005, whatever the shares of classes
    learned: float = 0.7
    whole: float = 0.5  # share of the gradient that arrives in the step: clipped, its size does not matter
    wrong_start: float = 3.0  # first loss over that of a guess: wrong before the first update
    aim: float = 0.01  # ratio to come down to: that of healthy trainings in their first steps
    factor: tuple[float, float] = (3.0, 1e6)  # by which it is lowered, at least and at most


@rule(
    "learning_rate_too_high",
    "learning rate",
    "dead_units saturation bias_shift linearity vanishing_gradient exploding_gradient non_finite output_mismatch "
    "poor_initialization overfitting",
    clause="the learning rate is too high",
    order=1,
    reads="last losses",
    table=(12, "a rate, as a number"),
    needs=("updates", "losses"),
)
def find_learning_rate_too_high(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """The size of the updates against what the loss makes of them.

    Large updates alone are healthy: Adam begins so, and batch normalisation takes the size of the weights away.
    """
    start = next((snapshot for snapshot in history if math.isfinite(snapshot.loss)), None)
    if start is None or _is_otherwise_sick(start):
        return
    guess = progress.guess_loss(start)
    level = max(start.loss, guess) if guess > 0 else start.loss
    large = LIMITS.large_update if guess > 0 else LIMITS.without_guess
    ratios = [progress.typical_ratio(snapshot) for snapshot in history]
    known = [ratio for ratio in ratios if not math.isnan(ratio)]
    begin = next((index for index, ratio in enumerate(ratios) if ratio >= large), None)
    if begin is None:
        return
    signs = (
        _leaps(history, begin, level) if level > 0 else None,
        _comes_to_rest(history, begin, guess) if guess > 0 else None,
        _runs_away(known),
        _throws_units(history, ratios),
    )
    severity: Severity | None = max(filter(None, signs), key=SEVERITIES.index, default=None)
    if severity is None:
        return
    step, rate, ratio, now = history[begin].step, history[begin].learning_rate, ratios[begin], recent_loss(history)
    evidence = {
        "learning rate": rate,
        "update ratio, median over weights": ratio,
        "largest of them": max(known),
        "first loss": start.loss,
        "highest loss": max(all_losses(history)),
        "recent loss": now,
        "loss of a guess": guess,
    }
    rise = f", and the loss went from {start.loss:.3g} to {now:.3g}" if now > STUCK * start.loss else ""
    explanation = (
        f"One update changes the weights by {ratio:.2g} of their size, where about 0.001 is healthy{rise}. "
        "Such steps leap over every valley of the loss and may leave units dead or saturated behind them."
    )
    todo = _remedies(history, ratios[begin], rate)
    terms, share = progress.summed_terms(start), progress.gradient_share(start)
    if terms and share >= LIMITS.whole:
        (loss,) = start.losses
        evidence["terms that the loss is the sum of"] = terms
        explanation += f" {loss.function} is summed over {terms} terms, which makes the steps {terms} times as large."
        mean = Remedy("mean_loss", f'average the loss: {loss.function}(..., reduction="mean")')
        todo = (mean, remedies.change_lr("lower", float(terms), rate), *todo[1:])
    why = (Criterion("update ratio, median over weights", ratio, ">=", large),)
    yield Finding("learning_rate_too_high", None, severity, step, evidence, explanation, todo, decided_by=why)


def _remedies(history: Sequence[Snapshot], ratio: float, rate: float) -> tuple[Remedy, ...]:
    """A lower rate; a warm-up where the updates have come down by themselves, clipping where a step follows it."""
    least, most = LIMITS.factor
    lower = remedies.change_lr("lower", min(max(least, ratio / LIMITS.aim), most), rate)
    calm = progress.typical_ratio(history[-1]) < LIMITS.large_update
    clip = not math.isnan(progress.gradient_share(history[0]))
    return (lower, *([WARM_UP] if calm else []), *([remedies.CLIP] if clip else []))


def _is_otherwise_sick(start: Snapshot) -> bool:
    """Whether something is wrong before the first update: then that is the cause, at any learning rate."""
    if start.loss > LIMITS.wrong_start * progress.guess_loss(start) or find_unnormalized_input([start]):
        return True
    return ErrorSignalByLayer.of(start).ratio > exploding_gradient.LIMITS.exploded


def _leaps(history: Sequence[Snapshot], begin: int, level: float) -> Severity | None:
    """The loss after the first large update is far over its start, and has not come back yet."""
    after = history[begin:]
    highest = max(all_losses(after[1:]), default=0.0)
    settled = len(history) > HYSTERESIS and after[-1].step - after[0].step >= RECOVERY
    if highest < (LIMITS.leap_unmended if settled else LIMITS.leap) * level:
        return None
    levels = [recent_loss(history[:index]) for index in range(max(1, len(history) - 2), len(history) + 1)]
    if not (statistics.median(levels) > LIMITS.learned * level if settled else levels[-1] > level):
        return None
    if highest >= LIMITS.far * level:
        return "critical"
    above = sum(snapshot.loss > LIMITS.above_start * level for snapshot in after[1:])
    return "warning" if settled or above >= HYSTERESIS else "info"


def _comes_to_rest(history: Sequence[Snapshot], begin: int, guess: float) -> Severity | None:
    """Long after the first large update the loss is that of a guess, though it was lower or was thrown up since."""
    after = history[begin:]
    if after[-1].step - after[0].step < RECOVERY or len(after) <= HYSTERESIS:
        return None
    levels = [recent_loss(history[:index]) for index in range(HYSTERESIS, len(history) + 1)]
    rest = min(levels[-HYSTERESIS:])
    if not rest >= STUCK * guess or ErrorSignalByLayer.of(history[0]).ratio < vanishing_gradient.LIMITS.vanished:
        return None
    thrown_up = max(all_losses(after[1:]), default=0.0) >= LIMITS.spike * guess
    moved = thrown_up or rest >= LIMITS.shaken * guess or min(levels) < LIMITS.learned * guess
    return "critical" if moved else None


def _runs_away(ratios: Sequence[float]) -> Severity | None:
    """The last snapshot before the end of all numbers: weights are replaced in one step, and were not before."""
    if ratios[-1] > LIMITS.replacing_update:
        return "critical"
    rises = ratios[-1] >= LIMITS.runaway_update and ratios[-1] >= LIMITS.rise * progress.median(ratios[:-1])
    return "warning" if rises else None


def _throws_units(history: Sequence[Snapshot], ratios: Sequence[float]) -> Severity | None:
    """Units that were alive at the start and died, or came to rest on a flat side, behind updates that large."""
    thrown = (s.step for s, ratio in zip(history, ratios, strict=True) if ratio >= LIMITS.deadly_update)
    first = next(thrown, math.inf)
    units = (*find_dead_units(history), *find_saturation(history))
    return next((found.severity for found in units if found.step > first), None)
