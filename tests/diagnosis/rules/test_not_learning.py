"""The loss stays at that of a guess, and nothing else was found."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable

import pytest

import lightning_tricks as lt
from lightning_tricks.diagnosis.rules.not_learning import find_not_learning
from lightning_tricks.probes import Snapshot, ValidationRecord
from tests.diagnosis.history.test_learning import LN10, history
from tests.diagnosis.sick import SICK

NOISE = (0.02, -0.02)


def standing(level: float = LN10, looks: int = 120, rates: Iterable[float] = (), **changes: object) -> list[Snapshot]:
    """Over 10 steps a look, at a noisy level, with these learning rates."""
    losses = [level + noise for noise in itertools.islice(itertools.cycle(NOISE), looks)]
    rate = itertools.chain(rates, itertools.repeat(0.1))
    return [dataclasses.replace(s, learning_rate=next(rate), **changes) for s in history(losses)]  # type: ignore[arg-type]


def test_it_is_found_after_a_thousand_steps_or_three_passes() -> None:
    (finding,) = find_not_learning(standing())
    assert (finding.severity, finding.layer) == ("warning", None)
    assert not find_not_learning(standing(looks=100))
    passes = [dataclasses.replace(s, epoch=s.step / 43) for s in standing(looks=16)]
    assert find_not_learning(passes)
    assert not find_not_learning([dataclasses.replace(s, epoch=s.step / 60) for s in passes])


def test_until_then_it_is_unknown() -> None:
    diagnosis = lt.diagnose(SICK["wrong labels"].history()[:25])
    diagnosis = dataclasses.replace(diagnosis, findings=[], history=standing_like(diagnosis.history))
    assert diagnosis.state == "unknown"
    assert "not yet better than a guess after" in diagnosis.verdict


def standing_like(seen: list[Snapshot]) -> list[Snapshot]:
    """Whole snapshots, without passes over the data."""
    return [dataclasses.replace(s, epoch=math.nan, step=10 * s.step) for s in seen]


def test_a_training_that_found_nothing_else_is_not_learning() -> None:
    diagnosis = lt.diagnose(SICK["wrong labels"].history())
    assert (diagnosis.state, diagnosis.healthy) == ("not_learning", False)
    assert diagnosis.verdict == "Not learning: the loss stays at that of a guess."
    other = lt.Finding("dead_units", "net.1", "warning", 100)
    folded = dataclasses.replace(diagnosis, findings=[*diagnosis.findings, other])
    assert folded.state == "sick"


@pytest.mark.parametrize(
    "healthy",
    [
        standing(0.97 * LN10),  # better than a guess
        standing(rates=[k / 120 for k in range(120)]),  # a warm-up that goes on
        standing(rates=[0.4] * 110),  # ... or has come to its end just now
        standing(rates=[1.0] * 100),  # a schedule that is over: the rate is a tenth of its highest
        [dataclasses.replace(s, loss=s.loss + 0.2 * (i % 2)) for i, s in enumerate(standing(looks=120)[:20])],
    ],
)
def test_it_is_silent(healthy: list[Snapshot]) -> None:
    assert not [finding for finding in find_not_learning(healthy) if finding.rank]


def test_a_loss_that_falls_within_its_later_half_is_on_its_way() -> None:
    falling = [dataclasses.replace(s, loss=s.loss - 1e-4 * s.step) for s in standing(1.06 * LN10)]
    assert find_not_learning(standing(1.06 * LN10))
    assert not find_not_learning(falling)


def test_what_is_surely_a_little_better_is_information() -> None:
    """Data of a R2 of .01 leave no more."""
    (finding,) = find_not_learning(standing(0.985 * LN10))
    assert finding.severity == "info"
    assert "a little better" in finding.explanation


def test_a_level_that_is_not_known_well_enough_is_information() -> None:
    """It may be under that of a guess by the hundredth that there is to learn."""
    noisy = [dataclasses.replace(s, loss=s.loss + (0.07, -0.07)[i % 2]) for i, s in enumerate(standing())]
    (finding,) = find_not_learning(noisy)
    assert finding.severity == "info"


def test_any_other_finding_takes_it_over() -> None:
    from lightning_tricks.diagnosis.attribution import fold

    cause = lt.Finding("dead_units", "net.1", "warning", 700)
    (found,) = find_not_learning(standing())
    (top,) = fold([found, cause], Snapshot())
    assert top.problem == "dead_units"
    assert [each.problem for each in top.consequences] == ["not_learning"]
    assert {each.problem for each in fold([found, dataclasses.replace(cause, severity="info")], Snapshot())} == {
        "dead_units",
        "not_learning",
    }


def validated(validation: list[float], level: float = 0.94, **changes: object) -> list[Snapshot]:
    """Twelve passes; the training's loss and these of the validation, over a guess's."""
    history = standing(level * LN10, looks=12 * len(validation), **changes)
    by_look = [loss for loss in validation for _ in range(12)]
    return [
        dataclasses.replace(snapshot, validation_loss=loss * LN10, epoch=look / len(validation))
        for look, (snapshot, loss) in enumerate(zip(history, by_look, strict=True))
    ]


def test_what_is_learned_by_heart_and_never_holds_on_validation() -> None:
    (finding,) = find_not_learning(validated([1.01, 1.03, 1.05, 1.06]))
    assert (finding.severity, finding.evidence["lowest validation loss"]) == ("warning", pytest.approx(1.01 * LN10))
    diagnosis = lt.diagnose(validated([1.01, 1.03, 1.05, 1.06]))
    assert diagnosis.verdict == "Not learning: what is learned is of no use on validation."


def test_on_few_patterns_a_validation_comes_under_a_guess_by_chance() -> None:
    """By 9 / 2n at most: .0125 of 2.303 on 360 of ten classes."""
    for patterns, named in ((36, True), (360, True), (3600, False)):
        record = ValidationRecord(looks=3, class_counts=(patterns // 10,) * 10)
        history = [dataclasses.replace(s, validation=record) for s in validated([0.998, 1.03, 1.05, 1.06])]
        assert bool(find_not_learning(history)) == named


@pytest.mark.parametrize(
    "history",
    [
        validated([0.995, 1.03, 1.05, 1.06]),  # a little was to be learned
        validated([1.2, 1.1, 1.05, 1.01]),  # on its way
        validated([1.01, 1.05]),
        [dataclasses.replace(snapshot, epoch=0.5) for snapshot in validated([1.01, 1.03, 1.05, 1.06])],
    ],
    ids=["a little", "on its way", "too few", "too early"],
)
def test_validations_that_may_still_come_to_something(history: list[Snapshot]) -> None:
    assert find_not_learning(history) == []
