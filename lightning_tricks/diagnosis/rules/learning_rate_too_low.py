"""learning_rate_too_low: updates that never were more than tiny, and a loss that hardly falls."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity
from lightning_tricks.diagnosis.history import progress
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS, RECOVERY
from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.diagnosis.rules.unnormalized_input import find_unnormalized_input
from lightning_tricks.probes import Snapshot


@thresholds
class LIMITS:
    """Calibrated as those of learning_rate_too_high."""

    small: float = 1.5e-4  # median update ratio; TheDeepChecker takes 1e-4; plain SGD learns, slowly, at 2e-4 to 1e-3
    once: float = 1.5e-3  # that none was larger than
    tiny: float = 3e-6  # at once: at this size the weights move by a thousandth in 300 steps
    fallen: float = 0.1  # share of the start by which the loss of such a training may fall
    warm_up: float = 1.2  # growth of the learning rate over the history
    rising: float = 1.001  # and over the last RECOVERY steps: one that stands is no warm-up any more
    longest_warm_up: int = 1000  # steps; the longest that are usual take 4000, and learn on their way
    warm_up_unseen: float = 2.0  # growth of the update over its later half, where no rate is known: momentum grows too
    clipped: float = 0.5  # share of the gradient that arrives in the step
    sensitive: float = 0.01  # abs(gradient x weights) over loss, median: .02 to 100 in nets that learn, .004 vanishing
    good_start: float = 0.5  # first loss over that of a guess: a network that is fine-tuned has less to learn
    aim: float = 0.001  # ratio to come up to: safe from above
    most: float = 1e6  # factor by which the learning rate is raised


@rule(
    "learning_rate_too_low",
    "learning rate",
    clause="the learning rate is too low",
    order=2,
    table=(13, ""),
    needs=("updates", "losses"),
)
def find_learning_rate_too_low(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """Updates that never were more than tiny though the loss depends on the weights, and a loss that hardly falls."""
    first, latest = history[0], history[-1]
    ratios = [ratio for ratio in map(progress.typical_ratio, history) if not math.isnan(ratio)]
    if len(ratios) < HYSTERESIS or max(ratios) > LIMITS.once:
        return
    rises = _warms_up(history, ratios)
    if rises and not _has_to_have_arrived(history):
        return
    guess, now, passed = progress.guess_loss(first), progress.recent_loss(history), latest.step - first.step
    ratio, begin = progress.median(ratios), progress.median(progress.all_losses(history[:HYSTERESIS]))
    why = [
        Criterion("update ratio, median over weights", ratio, "<", LIMITS.small),
        Criterion("recent loss", now, ">", (1.0 - LIMITS.fallen) * begin),
    ]
    if not all(criterion.holds for criterion in why) or not ratio > 0.0:
        return
    if not 0.0 < ratios[-1] < (LIMITS.once if rises else LIMITS.small):
        return
    extreme = max(ratios) < LIMITS.tiny
    if begin < LIMITS.good_start * guess or not begin > 0.0:
        return
    if not extreme and (passed < RECOVERY or math.isnan(guess)):
        return
    if not progress.median(map(_sensitivity, history)) >= LIMITS.sensitive or find_unnormalized_input(history[:1]):
        return
    evidence = {
        "learning rate": latest.learning_rate,
        "update ratio, median over weights": ratio,
        "first loss": begin,
        "recent loss": now,
        "loss of a guess": guess,
        "steps": passed + 1,
    }
    explanation = (
        f"One update changes the weights by {ratio:.1e} of their size, where about 1e-3 is healthy, and in "
        f"{passed + 1} steps the loss went from {begin:.3g} to {now:.3g}. "
    )
    share = progress.gradient_share(first)
    todo: list[Remedy] = []
    if share < LIMITS.clipped:
        norm = progress.gradient_norm(first)
        evidence |= {"norm of the gradient": norm, "norm that arrives in the step": share * norm}
        why += [Criterion("share of the gradient that arrives in the step", share, "<", LIMITS.clipped)]
        explanation += (
            f"Of the gradient, whose norm is {norm:.2g}, only {share * norm:.2g} arrives in the step, as where it is "
            "clipped to that: no learning rate that is usual makes up for it."
        )
        todo += [_clip_later(norm, share)]
    elif rises:
        explanation += f"The learning rate was still rising, from {first.learning_rate:.2g}: its warm-up is too long."
        todo += [Remedy("shorten_warm_up", f"let the warm-up end within the first {max(passed // 10, 1)} steps")]
    else:
        explanation += "The gradients reach the weights; at this pace the training takes hundreds of times too long."
    unclipped = ratio / share if share < LIMITS.clipped else ratio
    if unclipped < LIMITS.small and not rises:
        todo += [remedies.change_lr("raise", min(LIMITS.aim / unclipped, LIMITS.most), latest.learning_rate)]
    severity: Severity = "critical" if extreme and passed >= RECOVERY else "warning"
    yield Finding(
        "learning_rate_too_low", None, severity, first.step, evidence, explanation, tuple(todo), decided_by=tuple(why)
    )


@remembered
def _sensitivity(snapshot: Snapshot) -> float:
    """Median over weights of the change of the loss, relative to it, if they grew by their size along the gradient."""
    if not snapshot.loss > 0:
        return math.nan
    weights = progress.trained_weights(snapshot)
    return progress.median(r.gradient * r.weight * math.prod(r.shape) / snapshot.loss for r in weights)


def _warms_up(history: Sequence[Snapshot], ratios: Sequence[float]) -> bool:
    """Whether the learning rate has grown, and still does."""
    known = [(snapshot.step, snapshot.learning_rate) for snapshot in history if not math.isnan(snapshot.learning_rate)]
    if len(known) > 1:
        (_, first), (step, last) = known[0], known[-1]
        before = next((rate for at, rate in reversed(known) if step - at >= RECOVERY), first)
        return last > LIMITS.warm_up * first and last > LIMITS.rising * before
    return ratios[-1] > LIMITS.warm_up_unseen * ratios[len(ratios) // 2]  # momentum grows at the start, warm-up goes on


def _has_to_have_arrived(history: Sequence[Snapshot]) -> bool:
    """Whether a learning rate that still rises is no excuse any more: the training is over, or has waited for long."""
    return history[-1].ended or history[-1].step - history[0].step >= LIMITS.longest_warm_up


def _clip_later(norm: float, share: float) -> Remedy:
    now, better = f"{share * norm:.2g}", f"{float(f'{2 * norm:.1g}'):g}"
    text = f"clip less: Trainer(gradient_clip_val={better}), or not at all, where the gradient is cut to {now} now"
    return Remedy("raise_clipping", text)
