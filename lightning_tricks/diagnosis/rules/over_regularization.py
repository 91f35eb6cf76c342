"""over_regularization: decay, dropout or clipping takes away what the gradient brings."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Trait
from lightning_tricks.diagnosis.history import progress
from lightning_tricks.diagnosis.history.clipping import CLIPPED
from lightning_tricks.diagnosis.history.learning import FALLING, LEARNED, level
from lightning_tricks.diagnosis.history.persistence import HYSTERESIS, persistence
from lightning_tricks.diagnosis.history.remembered import remembered
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.diagnosis.rules import learning_rate_too_low
from lightning_tricks.diagnosis.rules.learning_rate_too_low import sensitivity, slow_steps
from lightning_tricks.probes import ParameterRecord, Snapshot, WeightedRecord

PROBLEM = "over_regularization"


@thresholds
class LIMITS:
    """Of 16 trainings on digits, four with decay of .1 to 50 at which nothing is learned, and six with dropout."""

    outweighs: float = 1.0  # decay over gradient, median: .02 usual, .9 where labels are noise, 4 and more where fatal
    balances: float = 0.5  # at every look: weights that have shrunk until their gradient is a match still show .9
    shrunk: float = 0.2  # weights over their largest; .4 where only noise is to be learned
    halved: float = 0.5  # the same where decay outweighs the gradient at every look, as it does not there
    usual: float = 0.02  # share of the decay that harms nothing
    penalty: float = 1.0  # what a loss has beside that of the targets, over that
    noise: float = 0.8  # share of a layer's variance: .5 to .77 before p = .5 learns, .85 at .8, .92 and more at .9
    grown: float = 2.0  # recent loss over that of a guess: such noise multiplies by 1 / (1 - p) from layer to layer
    dropped: float = 0.5  # p; under it the noise can only dominate where the units hardly vary, which is another fault


@rule(
    PROBLEM,
    "learning rate",
    "collapsed_output vanishing_gradient linearity dead_units bias_shift learning_rate_too_low not_learning",
    "over-regularization",
    clause="the regularisation takes away what is learned",
    order=0,
    reads="last losses",
    table=(17, "`weight_decay`, `p`, `gradient_clip_val`, as numbers"),
    needs=("layers", "updates", "losses"),
)
def find_over_regularization(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """Decay, dropout or clipping takes away what the gradient brings."""
    seen = [snapshot for snapshot in history if snapshot.weighted]  # without the losses that led to a NaN
    if seen:
        yield from filter(None, (_decay(seen), _penalty(seen), _dropout(seen, history), _clipping(seen)))


def _decay(history: Sequence[Snapshot]) -> Finding | None:
    """Weight decay that outweighs the gradient, until the weights have shrunk and the loss is not much better."""
    found = persistence(history, lambda snapshot: decay_share(snapshot) >= LIMITS.balances)
    if found is None or not HYSTERESIS <= found.run == len(history):
        return None  # where there is nothing to learn, or no more, decay comes to outweigh what is left of a gradient
    begun, latest = history[0], history[-1]
    if not sensitivity(begun) >= learning_rate_too_low.LIMITS.sensitive:
        return None  # the gradient is lost by another fault
    held, share, loss = decayed(latest), decay_share(begun), _over_guess(history)
    if share < LIMITS.outweighs or not loss > LEARNED:
        return None  # before the sizes of all looks are read
    size = shrunk(history, {record.name for record in held})
    factor = progress.median(_factor(latest, record) for record in held)
    always = min(map(decay_share, history)) >= LIMITS.outweighs
    why = (
        Criterion("weight decay over the gradient, median over weights", share, ">=", LIMITS.outweighs),
        Criterion("size of the weights over their largest", size, "<=", LIMITS.halved if always else LIMITS.shrunk),
        Criterion("recent loss over that of a guess", loss, ">", LEARNED),
    )
    if not all(each.holds for each in why):
        return None
    evidence = {each.name: each.value for each in why} | {"weight_decay": factor, "weights that decay": len(held)}
    better = float(f"{LIMITS.usual / share * factor:.1g}")
    explanation = (
        f"Weight decay of {factor:g} takes {share:.2g} times as much from the weights as the gradient gives: they have "
        f"shrunk to {size:.2g} of their size, and the loss is {loss:.2f} of a guess's. "
        "What the network learns is gone before it is of use."
    )
    todo = (
        Remedy("lower_weight_decay", f"weight_decay={better:g} in the optimiser, in place of {factor:g}"),
        Remedy("no_weight_decay", "or weight_decay=0 until the loss falls"),
    )
    some = len(held) < len(progress.trained_weights(latest))
    severity = found.severity(critical=progress.is_stuck(history))
    return found.finding(PROBLEM, held[0].layer if some else None, severity, evidence, explanation, todo, why)


def _penalty(history: Sequence[Snapshot]) -> Finding | None:
    """A penalty on the weights, written into the loss, that dwarfs the loss of the targets until they have shrunk."""
    first = history[0]
    decays = any(decay > 0 for look in (first, history[-1]) for decay in _decays(look))
    if decays or len(first.losses) != 1 or len(history) < HYSTERESIS or progress.summed_terms(first):
        return None
    own, chance = first.losses[0].value, first.losses[0].chance
    now = progress.median(record.value for look in history[-HYSTERESIS:] for record in look.losses[:1])
    if not (own > 0 and chance > 0 and first.loss - own > LIMITS.penalty * own):
        return None
    size = shrunk(history)
    why = (
        Criterion("rest of the loss over that of the targets", (first.loss - own) / own, ">", LIMITS.penalty),
        Criterion("size of the weights over their largest", size, "<=", LIMITS.shrunk),
        Criterion("loss of the targets over that of a guess", now / chance, ">", progress.STUCK),
    )
    if not all(each.holds for each in why):
        return None
    better = float(f"{LIMITS.usual / why[0].value:.1g}")
    explanation = (
        f"Of the first loss, {first.loss:.3g}, only {own:.3g} is about the targets, and the weights have shrunk to "
        f"{size:.2g} of their size since: the rest is a penalty on them, and following it the network unlearns."
    )
    todo = (Remedy("weaken_penalty", f"multiply the penalty in the loss by {better:g}, or leave it out"),)
    evidence = {each.name: each.value for each in why}
    severity = "critical" if progress.is_stuck(history) else "warning"
    return Finding(PROBLEM, None, severity, first.step, evidence, explanation, todo, decided_by=why)  # type: ignore[arg-type]


def _dropout(history: Sequence[Snapshot], with_last_losses: Sequence[Snapshot]) -> Finding | None:
    """Dropout whose noise drowns what a layer hands on, and a loss that stands at that of a guess, or leaves it."""
    found = persistence(history, lambda snapshot: bool(_noisy(snapshot)))
    if found is None or found.run < HYSTERESIS:
        return None
    diverges = _over_guess(with_last_losses) > LIMITS.grown
    if not diverges and not _learns_nothing(history):
        return None
    noisy, first = _noisy(found.at), _noisy(found.at)[0]
    why = (
        Criterion("share of noise in the layer behind the dropout", first.dropout_noise, ">=", LIMITS.noise),
        Criterion("p of the dropout", first.dropout, ">", LIMITS.dropped),
    )
    evidence = {each.name: each.value for each in why} | {
        "layers": len(noisy),
        "loss over that of a guess": _over_guess(with_last_losses),
    }
    kept = f"{1.0 - first.dropout:.2g}"
    explanation = (
        f"Dropout at {first.dropped_by} keeps {kept} of the units, and {min(first.dropout_noise, 1.0):.0%} of the "
        f"variance of {first.name} is the draw's alone: two draws hardly agree on a pattern, and the loss "
        + ("grows: what is kept is divided by that share, in every layer." if diverges else "stays at that of a guess.")
    )
    places = ", ".join(str(record.dropped_by) for record in noisy)
    text = (
        f"p={kept} in place of p={first.dropout:g} at {places}, as in nn.Dropout({kept}): p is the share of units that "
        "is dropped, not of those that are kept"
    )
    todo, severity = (Remedy("lower_dropout", text, first.dropped_by),), found.severity()
    traits, layer = [Trait.IN_CODE, *[Trait.LOUD] * diverges], first.dropped_by
    return found.finding(PROBLEM, layer, severity, evidence, explanation, todo, why, traits, first.name)


def _clipping(history: Sequence[Snapshot]) -> Finding | None:
    """Clipping to so little that steps which scale with the gradient come to nothing."""
    slow = slow_steps(history)
    if slow is None or slow.clipping is None or not slow.clips_most:
        return None
    cut, first = slow.clipping, history[0]
    evidence = {**slow.evidence, "norm of the gradient": cut.norm, "norm that arrives in the step": cut.arrived}
    why = (*slow.why, Criterion("share of the gradient that arrives in the step", cut.share, "<", CLIPPED))
    explanation = (
        f"{slow.explanation}Of the gradient, whose norm is {cut.norm:.2g}, only {cut.arrived:.2g} arrives in the step, "
        "as where it is clipped to that: no learning rate that is usual makes up for it."
    )
    better = f"{float(f'{2 * cut.norm:.1g}'):g}"
    now = f"to {cut.arrived:.2g}" if math.isnan(cut.limit) else f"entry by entry to {cut.limit:.2g}"
    text = f"clip less: Trainer(gradient_clip_val={better}), or not at all, where the gradient is cut {now} now"
    todo = (Remedy("raise_clipping", text),)
    return Finding(PROBLEM, None, slow.severity, first.step, evidence, explanation, todo, decided_by=why)


def _over_guess(history: Sequence[Snapshot]) -> float:
    guess = progress.guess_or_start(history)
    return progress.recent_loss(history) / guess if guess > 0 else math.nan


def _learns_nothing(history: Sequence[Snapshot]) -> bool:
    """Whether the loss stands at that of a guess, or is still on its way down to it."""
    now = level(history, progress.guess_or_start(history))
    return now is not None and now.at_a_guess and (now.fall <= FALLING or now.mean >= now.guess)


@remembered
def decayed(snapshot: Snapshot) -> list[ParameterRecord]:
    """The trained weights that decay."""
    return [record for record in progress.trained_weights(snapshot) if _factor(snapshot, record) > 0]


@remembered
def decay_share(snapshot: Snapshot) -> float:
    """What decay takes from the weights over what the gradient gives them, as a median over those that decay.

    Where nothing is left of a weight, decay has taken it.
    """
    return progress.median(record.decay_share if record.weight else math.inf for record in decayed(snapshot))


def shrunk(history: Sequence[Snapshot], names: Collection[str] | None = None) -> float:
    """To which share of their size the weights have shrunk at any look, as a median over them, or over those named."""
    largest: dict[str, float] = {}
    least: dict[str, float] = {}
    for r in (record for snapshot in history for record in progress.trained_weights(snapshot)):
        largest[r.name] = max(r.weight, largest.get(r.name, 0.0))
        if largest[r.name] > 0 and (names is None or r.name in names):
            least[r.name] = min(r.weight / largest[r.name], least.get(r.name, 1.0))
    return progress.median(least.values())


@remembered
def _noisy(snapshot: Snapshot) -> list[WeightedRecord]:
    """The layers that a dropout of most of its units leaves little to hand on, in the order of execution."""
    return [r for r in snapshot.weighted if r.dropout > LIMITS.dropped and r.dropout_noise >= LIMITS.noise]


def _decays(snapshot: Snapshot) -> tuple[float, ...]:
    return () if snapshot.training is None else snapshot.training.decays


def _factor(snapshot: Snapshot, record: ParameterRecord) -> float:
    decays = _decays(snapshot)
    return decays[record.group] if 0 <= record.group < len(decays) else math.nan
