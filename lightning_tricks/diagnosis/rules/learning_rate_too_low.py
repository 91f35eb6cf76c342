"""learning_rate_too_low: updates that never were more than tiny, and a loss that hardly falls."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lightning_tricks.diagnosis import remedies
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity
from lightning_tricks.diagnosis.history import learning, progress
from lightning_tricks.diagnosis.history.clipping import Clipping
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
    sensitive: float = 0.01  # abs(gradient x weights) over loss, median: .02 to 100 in nets that learn, .004 vanishing
    good_start: float = 0.5  # first loss over that of a guess: a network that is fine-tuned has less to learn
    aim: float = 0.001  # ratio to come up to: safe from above
    gone: float = 0.01  # of the highest rate: what is left by then moves nothing that the rest has not moved
    early: float = 0.5  # of the training: schedules that are usual come there at its end
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
    slow = slow_steps(history)
    if slow is None or slow.clips_most:
        gone = None if slow is not None else _taken_away(history)
        if gone is not None:
            yield gone
        return
    first, latest = history[0], history[-1]
    reason = "The gradients reach the weights; at this pace the training takes hundreds of times too long."
    todo = slow.raise_rate(latest)
    if slow.rises:
        reason = f"The learning rate was still rising, from {first.learning_rate:.2g}: its warm-up is too long."
        within = max((latest.step - first.step) // 10, 1)
        todo = Remedy("shorten_warm_up", f"let the warm-up end within the first {within} steps")
    numbers = (slow.severity, first.step, slow.evidence, slow.explanation + reason, (todo,))
    yield Finding("learning_rate_too_low", None, *numbers, decided_by=slow.why)


def _taken_away(history: Sequence[Snapshot]) -> Finding | None:
    """A schedule that has brought the rate down before anything was learned, and long before the end."""
    known = [(snapshot.step, snapshot.learning_rate) for snapshot in history if snapshot.learning_rate > 0]
    highest, (begun, last) = max((rate for _, rate in known), default=0.0), (history[0].step, history[-1].step)
    if not known or known[-1][1] > LIMITS.gone * highest:
        return None  # before the losses of all steps are read
    now = learning.level(history)
    if now is None:
        return None
    fallen = next((step for step, rate in known if rate <= LIMITS.gone * highest), last)
    late = [progress.typical_ratio(s) for s in history if s.step >= fallen]
    why = (
        Criterion("learning rate over its highest", known[-1][1] / highest, "<=", LIMITS.gone),
        Criterion("share of the steps until then", (fallen - begun) / max(last - begun, 1), "<", LIMITS.early),
        Criterion("steps since", last - fallen, ">=", RECOVERY),
        Criterion("loss over that of a guess", now.share, ">=", progress.STUCK),
        Criterion("update ratio since, median", progress.median(late), "<", LIMITS.small),
    )
    if not all(each.holds for each in why) or now.fall >= learning.FALLING:
        return None
    evidence = {"highest learning rate": highest, "learning rate": known[-1][1], **{c.name: c.value for c in why[2:]}}
    explanation = (
        f"The schedule has brought the learning rate from {highest:.2g} to {known[-1][1]:.2g}, under a hundredth after "
        f"{fallen - begun} steps, when nothing was learned yet: the loss is {now.share:.2f} of a guess's and stands."
    )
    text = (
        "let the schedule go on once an epoch, not once a batch: scheduler.step() behind the loop over batches, or "
        '{"scheduler": ..., "interval": "epoch"}; else a slower one'
    )
    todo = (Remedy("mend_schedule", text),)
    return Finding("learning_rate_too_low", None, "warning", fallen, evidence, explanation, todo, decided_by=why)


@dataclass(frozen=True)
class SlowSteps:
    """A training whose steps are far too small."""

    ratio: float  # update over weight, as a median over weights and looks
    rises: bool  # whether the learning rate still does
    severity: Severity
    evidence: Mapping[str, float]
    explanation: str
    why: tuple[Criterion, ...]
    clipping: Clipping | None  # what is done to its gradient, where the steps scale with that

    @property
    def clips_most(self) -> bool:
        """Whether the steps lose more by clipping than by the learning rate."""
        return self.clipping is not None and self.clipping.share**2 < self.ratio / LIMITS.small

    def raise_rate(self, latest: Snapshot) -> Remedy:
        return remedies.change_lr("raise", min(LIMITS.aim / self._unclipped, LIMITS.most), latest.learning_rate)

    @property
    def _unclipped(self) -> float:
        return self.ratio if self.clipping is None else self.ratio / self.clipping.share


def slow_steps(history: Sequence[Snapshot]) -> SlowSteps | None:
    """Whether the updates never were more than tiny though the loss depends on the weights and hardly falls."""
    first, latest, rises = history[0], history[-1], _warms_up(history)
    last = next(_ratios(reversed(history)), math.nan)
    if not 0.0 < last < (LIMITS.once if rises else LIMITS.small):
        return None  # before the updates of all looks are read
    ratios = list(_ratios(history))
    if len(ratios) < HYSTERESIS or max(ratios) > LIMITS.once:
        return None
    if rises and not history[-1].ended and history[-1].step - history[0].step < LIMITS.longest_warm_up:
        return None  # a rate that rises is an excuse until the training is over, or has waited for long
    guess, now, passed = progress.guess_loss(first), progress.recent_loss(history), latest.step - first.step
    ratio, begin = progress.median(ratios), progress.median(progress.all_losses(history[:HYSTERESIS]))
    why = (
        Criterion("update ratio, median over weights", ratio, "<", LIMITS.small),
        Criterion("recent loss", now, ">", (1.0 - LIMITS.fallen) * begin),
    )
    extreme, fresh = max(ratios) < LIMITS.tiny, begin > 0.0 and not begin < LIMITS.good_start * guess
    if not (all(criterion.holds for criterion in why) and ratio > 0.0 and fresh):
        return None
    if not extreme and (passed < RECOVERY or math.isnan(guess)):
        return None
    if not progress.median(map(sensitivity, history)) >= LIMITS.sensitive or find_unnormalized_input(history[:1]):
        return None
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
    severity: Severity = "critical" if extreme and passed >= RECOVERY else "warning"
    return SlowSteps(ratio, rises, severity, evidence, explanation, why, Clipping.of(history))


@remembered
def sensitivity(snapshot: Snapshot) -> float:
    """Median over weights of the change of the loss, relative to it, if they grew by their size along the gradient."""
    if not snapshot.loss > 0:
        return math.nan
    weights = progress.trained_weights(snapshot)
    return progress.median(r.gradient * r.weight * math.prod(r.shape) / snapshot.loss for r in weights)


def _ratios(history: Iterable[Snapshot]) -> Iterator[float]:
    return (ratio for ratio in map(progress.typical_ratio, history) if not math.isnan(ratio))


def _warms_up(history: Sequence[Snapshot]) -> bool:
    """Whether the learning rate has grown, and still does."""
    known = [(snapshot.step, snapshot.learning_rate) for snapshot in history if not math.isnan(snapshot.learning_rate)]
    if len(known) > 1:
        (_, first), (step, last) = known[0], known[-1]
        before = next((rate for at, rate in reversed(known) if step - at >= RECOVERY), first)
        return last > max(LIMITS.warm_up * first, LIMITS.rising * before)
    ratios = list(_ratios(history)) or [math.nan]
    return ratios[-1] > LIMITS.warm_up_unseen * ratios[len(ratios) // 2]  # momentum grows at the start, warm-up goes on
