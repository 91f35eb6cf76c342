"""wrong_labels: how many labels do their neighbours contradict with one voice?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Trait
from lightning_tricks.diagnosis.rule import thresholds
from lightning_tricks.experiments.asking.asks import Answer, asks
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.data.patterns.copies import keys_of
from lightning_tricks.experiments.data.patterns.examples import SHOWN, examples_of, listed
from lightning_tricks.experiments.data.patterns.neighbours import NEAREST, Data, Neighbours, read_once
from lightning_tricks.experiments.data.patterns.noise import estimate
from lightning_tricks.experiments.data.patterns.predicting import out_of_fold_scores
from lightning_tricks.experiments.preflight.patterns import NotAskedError

QUESTION = "How many labels do their neighbours contradict?"
_FEWEST = 60  # patterns
_PERMUTED = 20
_BESIDE = 0.9  # of the agreement by the better kind of neighbours, from which on the other kind is heard too


@asks(QUESTION)
def wrong_labels(data: Any) -> Answer:
    """The share of labels that are wrong, with an interval, and the most suspicious ones.

    Neighbours are found by the inputs, and by what a small model says of each class that has not seen the pattern.
    Where classes overlap neighbours disagree among each other; wrong labels stand where these agree. Copies are left
    out.

    Args:
        data: A loader, a data set, a LightningDataModule, an iterable of batches, or one batch ``(x, y)``.

    Returns:
        The most suspicious patterns are ``examples``. Numbers: ``share`` of wrong labels, from ``low`` to ``high``
        (95 %); ``agreement``: how often neighbours have a pattern's label, ``chance``: how often any two patterns have
        the same, ``errors``: the difference in standard
        errors; ``one_voice``: how much of the way from chance to 1 the agreement would be without the wrong ones,
        times the largest likely share of neighbourhoods where classes do not overlap; ``room``: how often others than
        the majority's label occur at all; ``patterns``.

        How to read it: the share is one of wrong labels where ``one_voice`` is about a half and the share well under
        ``room``; else classes overlap. Under 3 ``errors`` neighbours say nothing of the labels: these may belong to
        other inputs, or the task is one that no distance shows, such as parity.

    >>> x, y = torch.randn(600, 8), torch.arange(600) % 2
    >>> x[:, 0] += 8 * y
    >>> y[:60] = 1 - y[:60]
    >>> found = wrong_labels((x, y)).numbers
    >>> found["low"] <= 0.1 <= found["high"]
    True
    """
    return _judged(Data(data))


@dataclasses.dataclass(frozen=True)
class _Kind:
    """Neighbours of one kind: of each neighbourhood the counts of its classes, the pattern's own left out."""

    asked: np.ndarray
    others: np.ndarray
    agreement: float
    errors: float


def _judged(data: Data) -> Answer:
    if data.classes is None:
        raise NotAskedError("the targets are no classes")
    places = np.unique(keys_of(data.train), return_index=True)[1]
    _, codes = np.unique(data.classes, return_inverse=True)
    places = _recognised(data, np.sort(places), codes)
    names, codes = np.unique(data.classes[places], return_inverse=True)
    if len(places) < _FEWEST or len(names) < 2:
        raise NotAskedError("too few patterns" if len(places) < _FEWEST else "there is one class")
    features, count = data.features[torch.from_numpy(places)], len(names)
    kinds = [_neighbours(x, codes, count) for x in (features, out_of_fold_scores(features, codes, count))]
    shares = np.bincount(codes) / len(codes)
    chance = float(np.square(shares).sum())
    best = max(kind.agreement for kind in kinds)
    heard = [kind for kind in kinds if best > chance and kind.agreement - chance >= _BESIDE * (best - chance)]
    counts = [_majority(kind, codes, count) for kind in heard or kinds]
    share, low, high, apart = estimate(counts, NEAREST + 1, count)
    differ, usual = counts[0]
    with_one_voice = usual[differ <= 2]
    room = float((1 - shares)[with_one_voice].mean()) if len(with_one_voice) else 0.0
    clear = (best - chance) / (1 - chance) / (1 - min(low * count / (count - 1), 0.9)) ** 2
    numbers = {"share": share, "low": low, "high": high, "agreement": best, "chance": chance}
    numbers |= {
        "errors": max(kind.errors for kind in kinds),
        "one_voice": clear * apart,
        "room": room,
        "patterns": len(places),
    }
    numbers = {name: float(value) for name, value in numbers.items()}
    if numbers["errors"] < LIMITS.errors:
        text = f"neighbours say nothing of labels: {best:.0%} have the same, of any two {chance:.0%}"
        return Answer(text, numbers)
    if not _is_told(numbers):
        return Answer(f"not to be told: {best:.0%} of neighbours have the same label, of any two {chance:.0%}", numbers)
    asked, said = _suspicious(heard or kinds, codes, share)
    shown = [
        (int(places[i]), f"labelled {names[codes[i]]}, its neighbours {names[j]}")
        for i, j in zip(asked, said, strict=True)
    ]
    text = f"about {share:.1%}, {low:.1%} to {high:.1%}"
    if shown and low > 0:
        text += f": {listed(data.train, [place for place, _ in shown])} ({data.train.numbering})"
    return Answer(text, numbers, examples=examples_of(data.train, shown))


def _recognised(data: Data, places: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Patterns of classes that have neighbours of their own at all: of others every label would look wrong."""
    own = codes[places]
    if len(places) < _FEWEST:
        return places
    kind = _neighbours(data.features[torch.from_numpy(places)], own, int(codes.max()) + 1)
    said = kind.others.argmax(1) == own[kind.asked]
    right, all_ = (np.bincount(own[kind.asked], weights, int(codes.max()) + 1) for weights in (said, None))
    known = right * 2 >= all_
    return places[known[own]] if known.sum() >= 2 else places


def _neighbours(features: torch.Tensor, codes: np.ndarray, count: int) -> _Kind:
    found = Neighbours.of(features, features, NEAREST, same=True)
    labels, own = codes[found.index], codes[found.asked]
    others = np.stack([(labels == c).sum(1) for c in range(count)], 1)
    agreement, rng = float((labels == own[:, None]).mean()), np.random.default_rng(0)
    by_chance = []
    for _ in range(_PERMUTED):
        mixed = codes[rng.permutation(len(codes))]
        by_chance.append(float((mixed[found.index] == mixed[found.asked][:, None]).mean()))
    errors = (agreement - np.mean(by_chance)) / max(float(np.std(by_chance, ddof=1)), 1e-9)
    return _Kind(found.asked, others, agreement, float(errors))


def _majority(kind: _Kind, codes: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each neighbourhood, the pattern itself with it: how many differ from its majority, and which that is."""
    whole = kind.others + np.eye(count, dtype=int)[codes[kind.asked]]
    return NEAREST + 1 - whole.max(1), whole.argmax(1)


def _suspicious(heard: list[_Kind], codes: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """As many patterns as labels are wrong, those whose label has the fewest neighbours first, and what these say."""
    asked, others = heard[0].asked, np.sum([kind.others for kind in heard], 0)
    own = others[np.arange(len(asked)), codes[asked]]
    said = others.argmax(1)
    order = np.lexsort((-others.max(1), own))
    order = order[said[order] != codes[asked[order]]][: max(round(share * len(asked)), 0)]
    return asked[order], said[order]


@thresholds
class LIMITS:
    low: float = 0.005  # of the labels: the interval's lower end
    share: float = 0.02
    # Normal classes whose means are one standard deviation apart have .1, two apart .4; breast cancer .8.
    one_voice: float = 0.42
    room: float = 0.5  # of how often other labels occur: rare ones all over the place are no errors
    errors: float = 3.0


def _is_told(numbers: dict[str, float]) -> bool:
    return numbers["one_voice"] >= LIMITS.one_voice and numbers["share"] <= LIMITS.room * numbers["room"]


def judged(found: Experiment, step: int = 0) -> Iterator[Finding]:
    """Labels that are wrong."""
    numbers = found.numbers
    why = (
        Criterion("share of wrong labels, at the least", numbers["low"], ">", LIMITS.low),
        Criterion("share of wrong labels", numbers["share"], ">=", LIMITS.share),
        Criterion("how far neighbours speak with one voice", numbers["one_voice"], ">=", LIMITS.one_voice),
        Criterion(
            "share over how often other labels occur", numbers["share"] / max(numbers["room"], 1e-9), "<=", LIMITS.room
        ),
    )
    if numbers["errors"] < LIMITS.errors or not all(each.holds for each in why):
        return
    indices = ", ".join(str(each.index) for each in found.examples[:SHOWN])
    explanation = (
        f"About {numbers['share']:.1%} of the labels ({numbers['low']:.1%} to {numbers['high']:.1%}) are others than "
        "all patterns around them have. Where classes overlap neighbours disagree among each other; here they agree, "
        "and the label alone stands out. The network learns such labels by heart, late in the training."
    )
    evidence = {
        "share of wrong labels": numbers["share"],
        "from": numbers["low"],
        "to": numbers["high"],
        "examples": indices,
    }
    todo = Remedy("clean_labels", f"look at these labels first: {indices}")
    other = Remedy("change_loss", "a loss that forgives some: F.cross_entropy(..., label_smoothing=0.1); stop early")
    traits = frozenset({Trait.WRONG_LABELS})
    yield Finding(
        "target_mismatch", None, "warning", step, evidence, explanation, (todo, other), traits=traits, decided_by=why
    )


def _brings(subject: Subject, found: Experiment) -> Iterator[Finding]:
    return judged(found, subject.diagnosis.history[0].step)


def _proves(found: Experiment, finding: Finding) -> bool:
    """A training that stays at a guess, and labels of which the inputs' neighbours say nothing either."""
    return finding.problem == "not_learning" and found.numbers.get("errors", LIMITS.errors) < LIMITS.errors


@tried("wrong_labels", order=22, brings=_brings, proves=_proves)
def _in_checkup(subject: Subject) -> Experiment:
    return _asked(subject)


_asked = asks(QUESTION, "wrong_labels")(lambda subject: _judged(read_once(subject)))
