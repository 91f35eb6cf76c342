"""wrong_values: how many targets are others than their inputs' neighbours say, beyond what is noise?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Trait
from lightning_tricks.diagnosis.rule import thresholds
from lightning_tricks.experiments.asking.asks import Answer, asks
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.data.patterns.copies import keys_of
from lightning_tricks.experiments.data.patterns.examples import SHOWN, examples_of, listed
from lightning_tricks.experiments.data.patterns.features import values_of
from lightning_tricks.experiments.data.patterns.neighbours import NEAREST, Data, Neighbours, read_once
from lightning_tricks.experiments.data.patterns.predicting import fitted
from lightning_tricks.experiments.data.patterns.residuals import Wrong, normal_scores, robust_std, wrong
from lightning_tricks.experiments.preflight.patterns import NotAskedError

QUESTION = "How many targets are others than those of inputs like theirs?"
_FEWEST = 100  # patterns
_DIFFERENT = 20  # numbers
_SAME = 0.3  # of the targets that are one number: then it is no scale
_ROUNDS = 2  # predictions are made once more without what is wrong


@asks(QUESTION)
def wrong_values(data: Any) -> Answer:
    """The share of numbers to predict that belong to other patterns, with an interval, and the most suspicious ones.

    Targets are predicted by their neighbours and by a small model that has not seen the pattern. Heavy tails of honest
    noise are taken for what they are: wrong are those targets that the prediction says nothing of.

    Args:
        data: A loader, a data set, a LightningDataModule, an iterable of batches, or one batch ``(x, y)``, with one
            number to predict.

    Returns:
        The most suspicious patterns are ``examples``. Numbers: ``share`` of wrong targets, from ``low`` to ``high``
        (95 %); ``noise``: the spread of the others about the prediction, over that of all targets, in ranks;
        ``toward``: of targets that lie far off, the share that lies toward the median, at the least: of noise a half,
        of wrong ones most; ``least``: the share's lower end by the likelihood alone; ``patterns``.

        How to read it: the share is one of wrong targets where noise is under a half and toward over it. Else targets
        can hardly be predicted, or some are far off by nature.

    >>> x = torch.randn(800, 4)
    >>> y = x.sum(1, keepdim=True) + 0.1 * torch.randn(800, 1)
    >>> y[:80] = y[80:160]
    >>> found = wrong_values((x, y)).numbers
    >>> found["low"] <= 0.1 <= found["high"]
    True
    """
    return _measured(Data(data))


def _measured(data: Data) -> Answer:
    values = values_of(data.train.target)
    if values is None:
        raise NotAskedError("the targets are not one number a pattern")
    places = np.sort(np.unique(keys_of(data.train), return_index=True)[1])
    values = values[places]
    counts = np.unique(values, return_counts=True)[1]
    if len(places) < _FEWEST or len(counts) < _DIFFERENT or counts.max() > _SAME * len(places):
        raise NotAskedError("too few patterns" if len(places) < _FEWEST else "the targets are few different numbers")
    found, predicted = _predicted(data.features[torch.from_numpy(places)], values)
    numbers = {"share": found.share, "low": found.low, "high": found.high, "noise": found.scale, "toward": found.toward}
    numbers |= {"least": found.least, "patterns": float(len(places))}
    if found.scale > LIMITS.noise:
        return Answer(f"not to be told: {found.scale:.0%} of the targets' spread cannot be predicted", numbers)
    if found.least <= 0 or found.toward <= LIMITS.toward:
        return Answer("none that noise does not explain", numbers)
    order = np.argsort(-found.probability, kind="stable")[: max(round(found.share * len(places)), 0)]
    said = np.quantile(values, torch.special.ndtr(torch.from_numpy(predicted[order])).clamp(0, 1).numpy())
    shown = [
        (int(places[i]), f"{values[i]:.4g}, inputs like it have {each:.4g}")
        for i, each in zip(order, said, strict=True)
    ]
    text = f"about {found.share:.1%}, {found.low:.1%} to {found.high:.1%}"
    text += f": {listed(data.train, [place for place, _ in shown])} ({data.train.numbering})"
    return Answer(text, numbers, examples=examples_of(data.train, shown))


def _predicted(features: Tensor, values: np.ndarray) -> tuple[Wrong, np.ndarray]:
    """What is wrong by the prediction that leaves least open, and that prediction, as scores."""
    scores = normal_scores(values)
    near = Neighbours.of(features, features, NEAREST, same=True)
    trusted = np.ones(len(scores), bool)
    for _ in range(_ROUNDS):
        weights = torch.from_numpy(trusted.astype(np.float32))
        model = fitted(features, torch.from_numpy(scores)[:, None], weights, bent=True)
        said = model.scores[:, 0].double().numpy()
        around = np.where(trusted[near.index], scores[near.index], np.nan)
        around[np.isnan(around).all(1)] = 0.0
        alike = said.copy()  # neighbours are asked of some only where patterns are many
        alike[near.asked] = np.nanmedian(around, 1)
        best = min((said, alike, (said + alike) / 2), key=lambda each: robust_std(scores - each))
        found = wrong(values, best, near)
        trusted = found.probability < LIMITS.trusted
    return found, best


@thresholds
class LIMITS:
    least: float = 0.005  # of the targets, as the likelihood has it
    share: float = 0.02
    noise: float = 0.5  # of the targets' spread, in ranks
    toward: float = 0.5  # what noise has, whatever its tails
    trusted: float = 0.5  # probability of being wrong, from which on a target is not learned from


def judged(found: Experiment, step: int = 0) -> Iterator[Finding]:
    """Numbers that are wrong."""
    numbers = found.numbers
    why = (
        Criterion("share of wrong targets, at the least", numbers["least"], ">", LIMITS.least),
        Criterion("share of wrong targets", numbers["share"], ">=", LIMITS.share),
        Criterion("noise of the others, over the targets' spread", numbers["noise"], "<=", LIMITS.noise),
        Criterion("share of those far off that lies toward the median", numbers["toward"], ">", LIMITS.toward),
    )
    if not all(each.holds for each in why):
        return
    indices = ", ".join(str(each.index) for each in found.examples[:SHOWN])
    explanation = (
        f"About {numbers['share']:.1%} of the targets ({numbers['low']:.1%} to {numbers['high']:.1%}) have nothing to "
        "do with what inputs like theirs have. Noise, however large, lies about that; these lie anywhere. A squared "
        "error follows such targets more than all others."
    )
    evidence = {"share of wrong targets": numbers["share"], "from": numbers["low"], "to": numbers["high"]}
    todo = Remedy("clean_labels", f"look at these targets first: {indices}")
    other = Remedy("change_loss", "a loss that follows single targets less: F.huber_loss or F.l1_loss")
    given = {**evidence, "examples": indices}, explanation, (todo, other)
    traits = frozenset({Trait.WRONG_LABELS})
    yield Finding("target_mismatch", None, "warning", step, *given, traits=traits, decided_by=why)


def _brings(subject: Subject, found: Experiment) -> Iterator[Finding]:
    return judged(found, subject.diagnosis.history[0].step)


def _wanted(subject: Subject) -> bool:
    try:
        return values_of(read_once(subject).train.target) is not None
    except Exception:  # the experiments before this one say why they cannot be read
        return False


@tried("wrong_values", order=22, wanted=_wanted, brings=_brings)
def _in_checkup(subject: Subject) -> Experiment:
    return _asked(subject)


_asked = asks(QUESTION, "wrong_values")(lambda subject: _measured(read_once(subject)))
