"""batch_norm_mismatch: a network that is evaluated by other statistics than it was trained with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy
from lightning_tricks.diagnosis.history import batch_norms
from lightning_tricks.diagnosis.history.batch_norms import calls_of, in_order, misses, steps_to_follow
from lightning_tricks.diagnosis.history.persistence import RECOVERY, Persistence, persistence
from lightning_tricks.diagnosis.remedies import LOWER_LR
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.diagnosis.rules.batch_norm_mismatch_source import GROUP_NORM, one_source
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.records.loss_and_norm import NormalizationRecord

PROBLEM = "batch_norm_mismatch"
LARGER_BATCH = Remedy("larger_batch", "use larger batches: 16 or more")
BATCH_RENORM = Remedy(
    "replace_normalization", "use batch renormalisation: lt.surgery.convert_batch_norm(model, lt.nn.BatchRenorm2d)"
)
POPULATION = Remedy(
    "update_population_statistics",
    "take the statistics from the data before evaluation: the callback lt.PreciseBatchNorm(), or "
    "lt.surgery.update_population_statistics(model, train_loader)",
)
MOMENTUM = Remedy("raise_momentum", "let the running statistics follow faster: momentum=0.1")
OWN_NORM = Remedy("own_normalization", "give every layer a batch norm of its own: one nn.BatchNorm1d / 2d for each")
TRAIN_MODE = Remedy("train_mode", "put the model into training mode: model.train() after every evaluation")
DROPOUT_LAST = Remedy("move_dropout", "put dropout behind the last batch norm, right before the output layer")
LESS_DROPOUT = Remedy("lower_dropout", "or lower its p, or leave it out: batch norm regularises too")
NO_BIAS = Remedy("remove_bias", "leave the bias out: bias=False")
_Holds = Callable[[NormalizationRecord], bool]


@thresholds
class LIMITS:
    # Samples in a batch. The variance of 4 is off by sqrt(2 / (n - 1)) = 82 % of itself; positions of one image are
    # alike and help little: ResNet-50 loses 3.7 points of ImageNet with 4 images and 11 with 2 (Wu & He 2018, table 2).
    tiny: int = 4
    pair: int = 2  # with two, the outputs of a unit are -1 and 1 whatever comes in
    # Statistics that follow: in 54 healthy trainings the variances stayed within a factor of 1.6, noise included, and
    # far closer at any learning rate; those of the start, with a momentum of 0.001, are off by a factor of 2 to 8.
    variance_gap: float = math.log(1.6)
    most: float = 0.7  # mean over root mean square: sqrt(f) where a share f of the channels is off; few are not
    frozen: float = 3.0  # times variance_gap where they are frozen: other data may be a little different
    # Root mean square over channels, in running standard deviations, beyond the noise: three layers behind one norm had
    # .36 to .42 with ReLU, where evaluation lost 4 to 7 points, and .13 with tanh, where it lost none. The median over
    # looks is .1 at most in 126 layers of other trainings, and .4 where each batch has one of 14 sources.
    mean_gap: float = 0.25
    patience: int = 1000  # steps; statistics that need more are still those of the start in many a whole training
    dropped: float = 0.3  # p of a dropout in front: the variance in training is at least 1.43 times the other


@rule(
    PROBLEM,
    "code",
    "overfitting learning_rate_too_high bias_shift exploding_gradient dead_units saturation linearity",
    clause="batch norm differs between training and evaluation",
    order=7,
    table=(18, "population statistics, group norm"),
    needs="batch norms",
)
def find_batch_norm_mismatch(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """Statistics that do not fit: tiny or unlike batches, slow, shared or frozen running ones, dropout right before.

    At the first layer where they are so; and biases that batch norm takes away.
    """
    tiny = next(_tiny_batches(history), None)
    stale = None if tiny else next(_stale(history), None)  # with tiny batches the statistics are mere noise
    sources = None if tiny or (stale and stale.rank) else next(one_source(history, LIMITS.mean_gap), None)
    stale = None if sources else stale  # one batch that is unlike the others seems to be that, too
    others = (next(kind(history), None) for kind in (_shared, _frozen, _behind_dropout, _useless_bias))
    yield from filter(None, (tiny, stale, sources, *others))


def _tiny_batches(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """Batch statistics over so few samples that they are noise, on most steps: a last, partial batch is no fault."""
    for layer in in_order(history[-1]):
        if not layer.training or layer.samples > LIMITS.tiny:
            continue
        seen = [(snapshot, r.samples) for snapshot, r in calls_of(history, layer.name) if r.training]
        few = [(snapshot, size) for snapshot, size in seen if size <= LIMITS.tiny]
        if 2 * len(few) <= len(seen):
            continue
        typical = sorted(size for _, size in few)[len(few) // 2]
        noise = math.sqrt(2.0 / max(typical - 1, 1))
        evidence = {
            "batch size": typical,
            "patterns per channel": layer.patterns,
            "relative noise of the variance": noise,
            "share of the looks": len(few) / len(seen),
        }
        explanation = (
            f"Mean and variance are taken over a batch of {typical}, and the variance of so few is off by up to "
            f"{noise:.0%} of itself. Each pattern is shifted by its neighbours in the batch at random, and evaluation, "
            "by running statistics, meets another network than training did."
        )
        found, todo = Persistence.over([snapshot for snapshot, _ in few]), (GROUP_NORM, LARGER_BATCH, BATCH_RENORM)
        severity = found.severity(critical=layer.patterns <= LIMITS.pair)
        why = (
            Criterion("batch size", typical, "<=", LIMITS.tiny),
            Criterion("share of the probed steps", len(few) / len(seen), ">", 0.5),
        )
        yield found.finding(PROBLEM, layer.name, severity, evidence, explanation, todo, why)


def _stale(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """Running statistics far from the measured ones although they had time to follow, or where they hardly can."""
    latest = history[-1]
    for layer in in_order(latest):
        if not layer.training or not _far(layer) or batch_norms.called_twice(latest, layer.name):
            continue  # of a layer that is called more than once (real and generated) they are a mixture
        momenta = {record.momentum for _, record in calls_of(history, layer.name) if record.training}
        if len(momenta) > 1 or math.isnan(layer.momentum):
            continue  # an average over all steps so far lags behind by its nature
        needed, waited = steps_to_follow(layer), latest.step - history[0].step
        slow = waited < needed
        if slow and (needed <= LIMITS.patience or waited < RECOVERY):
            continue
        ready = history[0].step + (0 if slow else math.ceil(needed))
        found = _while(history, layer.name, lambda record: record.training and _far(record), ready)
        if found is None:
            continue
        evidence = {**_gap_by_name(layer), "momentum": layer.momentum, "steps they need to follow": needed}
        time, todo = Criterion("steps they had to follow", waited, ">=", needed), [POPULATION, MOMENTUM, LOWER_LR]
        explanation = (
            f"The running statistics had time to follow and do not fit: {_gap_in_words(layer)}. Evaluation uses "
            "them, so it sees another network than training does."
        )
        if slow:
            time, todo = Criterion("steps they need to follow", needed, ">", LIMITS.patience), [MOMENTUM, POPULATION]
            pace = f"need {needed:.0f} steps to follow and are still near" if layer.momentum > 0 else "never move from"
            explanation = (
                f"With a momentum of {layer.momentum:.2g} the running statistics {pace} those of the start: "
                f"{_gap_in_words(layer)}. So the network evaluates as if it were untrained."
            )
        yield found.finding(PROBLEM, layer.name, found.severity(), evidence, explanation, todo, (_gap(layer), time))


def _shared(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """One batch norm behind several layers whose outputs differ: its running statistics are a mixture that fits none.

    A network that runs several times a step, as the discriminator of a GAN does, calls each of its layers as often.
    """
    weights = {record.name: record.weight for record in history[-1].weighted}
    for layer in in_order(history[-1]):
        calls = [r for r in history[-1].normalizations if r.name == layer.name or batch_norms.repeats(r, layer)]
        behind = {weights.get(record.follows or "") for record in calls}
        if len(behind) < 2 or None in behind or not all(record.training for record in calls):
            continue
        worst, patience = max(calls, key=misses), min(steps_to_follow(layer), LIMITS.patience)
        found = _while(history, worst.name, lambda r: r.training and _misfits(r), history[0].step + math.ceil(patience))
        if found is None:
            continue
        names = ", ".join(dict.fromkeys(str(record.follows) for record in calls))
        evidence = {"layers that share it": names, "of them worst off": worst.follows, **_gap_by_name(worst)}
        explanation = (
            f"{layer.name} normalises the outputs of several layers ({names}): in training each by its own batch, in "
            f"evaluation all by one mixture. Behind {worst.follows} {_gap_in_words(worst)}."
        )
        means = Criterion("means, from the running ones", misses(worst), ">", LIMITS.mean_gap)
        todo, why = (OWN_NORM, GROUP_NORM), [_gap(worst) if _far(worst) else means]
        yield found.finding(PROBLEM, layer.name, found.severity(), evidence, explanation, todo, why)


def _frozen(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """Layers in eval mode whose statistics do not fit: the first that was left behind together with the worst.

    Frozen statistics that fitted when the training began are as they should be in fine-tuning, wherever the weights go
    from there: training and evaluation use the same ones. Those that were learned first and then left behind were not
    meant to stay.
    """
    left: dict[int, list[NormalizationRecord]] = {}
    for layer in in_order(history[-1]):
        calls = [] if layer.training else calls_of(history, layer.name)
        still = list(itertools.takewhile(lambda call: not call[1].training, reversed(calls)))
        if still:
            left.setdefault(still[-1][0].step, []).append(calls[0][1] if len(still) == len(calls) else layer)
    for since, layers in sorted(left.items()):
        far = [record for record in layers if _far(record, LIMITS.frozen)]
        if not far:
            continue
        evidence = {
            "layers in eval mode": len(layers),
            "of them with statistics that do not fit": len(far),
            "the first of these": far[0].name,
            **_gap_by_name(far[0]),
        }
        explanation = (
            f"{len(layers)} batch norm layers are in eval mode, and the statistics they normalise by do not fit: at "
            f"{far[0].name} {_gap_in_words(far[0])}. So they do not normalise while the weights train, and their "
            "statistics never learn."
        )
        found = Persistence.over([snapshot for snapshot in history if snapshot.step >= since])
        todo, why = (TRAIN_MODE, POPULATION), [_gap(far[0], LIMITS.frozen)]
        yield found.finding(PROBLEM, layers[0].name, found.severity(), evidence, explanation, todo, why)


def _behind_dropout(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """Dropout right before batch norm: the variance differs between training and evaluation."""
    for layer in in_order(history[-1]):
        found = _while(history, layer.name, lambda record: record.training and record.dropout >= LIMITS.dropped)
        if found is None:
            continue
        shift = 1.0 / (1.0 - layer.dropout) if layer.dropout < 1.0 else math.inf
        evidence = {"dropout before it": layer.dropout, "training over evaluation variance, at least": shift}
        explanation = (
            f"Dropout with p = {layer.dropout:g} right before batch norm makes the variance in training at least "
            f"{shift:.2f} times that in evaluation, where nothing is dropped. The running variance is the training's, "
            "so in evaluation every output comes out too small."
        )
        todo, why = (DROPOUT_LAST, LESS_DROPOUT), (Criterion("dropout before it", layer.dropout, ">=", LIMITS.dropped),)
        yield found.finding(PROBLEM, layer.name, found.severity(), evidence, explanation, todo, why)


def _useless_bias(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """Biases whose effect the mean of the batch takes away again: information, never more."""
    added = [r.follows for r in history[-1].normalizations if r.training and r.follows_bias]
    layers = list(dict.fromkeys(filter(None, added)))
    if not layers:
        return
    evidence = {"layers": ", ".join(layers), "number of layers": len(layers)}
    explanation = (
        "These layers add a bias right before batch norm, which subtracts the mean and the bias with it. "
        "Such a bias does no harm and no good: batch norm has a shift of its own."
    )
    why = (Criterion("number of layers", len(layers), ">", 0),)
    yield Persistence.over(history).finding(PROBLEM, layers[0], "info", evidence, explanation, (NO_BIAS,), why)


def _while(history: Sequence[Snapshot], name: str, holds: _Holds, ready: int = 0) -> Persistence | None:
    return persistence(history, lambda s: s.step >= ready and any(holds(record) for _, record in calls_of([s], name)))


def _misfits(record: NormalizationRecord) -> bool:
    return _far(record) or misses(record) > LIMITS.mean_gap


def _far(record: NormalizationRecord, times: float = 1.0) -> bool:
    """Beyond what the noise of the batch itself explains, and in most channels.

    By the variances: a mean is measured in running standard deviations, of which a constant feature has none.
    """
    gap = _gap(record, times)
    return gap.holds and gap.value > LIMITS.most * record.log_variance_gap


def _gap(record: NormalizationRecord, times: float = 1.0) -> Criterion:
    """The mean log ratio of the variances, measured over running, and what it may come to."""
    noise = math.sqrt(2.0 / max(record.patterns - 1, 1))
    gap = abs(math.log(record.variance_ratio)) if record.variance_ratio > 0 else math.nan
    return Criterion("log of the variances' ratio, mean size", gap, ">", times * LIMITS.variance_gap + noise)


def _gap_by_name(record: NormalizationRecord) -> dict[str, Any]:
    return {
        "mean, measured from running, in std": record.mean_gap,
        "variance, measured over running": record.variance_ratio,
    }


def _gap_in_words(record: NormalizationRecord) -> str:
    return (
        f"measured means are {record.mean_gap:.2g} standard deviations from the running ones, variances "
        f"{record.variance_ratio:.2g} times as large"
    )
