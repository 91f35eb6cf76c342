"""The loss against that of a guess."""

from __future__ import annotations

import dataclasses
import math

import pytest

from lightning_tricks.diagnosis.history.learning import Level, guess_of, level
from lightning_tricks.probes import LossRecord, Snapshot

LN10 = math.log(10.0)


def record(value: float = LN10, **changes: object) -> LossRecord:
    known = LossRecord(
        "cross_entropy", "cross_entropy", patterns=32, outputs=10, value=value, chance=LN10,
        target_mean=4.5, target_std=2.9, target_min=0.0, target_max=9.0,
    )  # fmt: skip
    return dataclasses.replace(known, **changes)  # type: ignore[arg-type]


def history(losses: list[float], every: int = 10, **changes: object) -> list[Snapshot]:
    return [Snapshot(i * every, loss, losses=(record(loss, **changes),)) for i, loss in enumerate(losses)]


def test_the_level_is_that_of_the_later_half() -> None:
    now = level(history([9.0] * 10 + [2.0, 4.0] * 5 + [3.0]))
    assert isinstance(now, Level)
    assert now.mean == pytest.approx(3.0)
    assert now.since == 100
    assert now.steps == 201
    assert now.error == pytest.approx(0.953 / math.sqrt(11), rel=0.1)
    assert now.guess == pytest.approx(LN10)


def test_losses_between_the_looks_count() -> None:
    looks = [Snapshot(100 * i, 2.3, losses=(record(),), recent_losses=(2.0,) * 49 + (2.3,)) for i in range(4)]
    now = level(looks)
    assert now is not None
    assert now.mean == pytest.approx((49 * 2.0 + 2.3) / 50, abs=3e-3)


def test_before_a_hundred_steps_nothing_is_said() -> None:
    short, long = level(history([LN10] * 10)), level(history([LN10] * 11))
    assert short is not None
    assert long is not None
    assert (short.at_a_guess, long.at_a_guess) == (False, True)


def test_where_no_guess_is_known_there_is_no_level() -> None:
    assert level([Snapshot(0, 1.0), Snapshot(200, 1.0)]) is None
    constant = {"target_min": 1.0, "target_max": 1.0, "target_std": 0.0}
    assert level(history([LN10] * 20, **constant)) is None
    contrastive = {"outputs": 32, "target_max": 31.0, "chance": LN10}
    assert level(history([LN10] * 20, **contrastive)) is None
    two = [dataclasses.replace(s, losses=(record(), record())) for s in history([LN10] * 20)]
    assert level(two) is None


def test_a_guess_at_rare_labels_knows_how_rare_they_are() -> None:
    rare = {"function": "binary_cross_entropy_with_logits", "outputs": 1, "chance": math.log(2.0),
            "target_min": 0.0, "target_max": 1.0, "target_mean": 0.01}  # fmt: skip
    entropy = -0.01 * math.log(0.01) - 0.99 * math.log(0.99)
    assert guess_of(history([0.06] * 3, **rare)) == pytest.approx(entropy)
    weighted = {**rare, "chance": 0.9}  # what weights of the classes make of it
    assert guess_of(history([0.9] * 3, **weighted)) == pytest.approx(0.9)


@pytest.mark.parametrize(("share", "spread", "unsure"), [(0.97, 0.2, True), (0.97, 0.0, False), (0.7, 0.2, False)])
def test_a_guess_that_is_known_from_a_few_targets_is_uncertain(share: float, spread: float, unsure: bool) -> None:
    """The variance of 64 targets is; an entropy of classes is not."""
    stds = [1.0 + spread * (-1) ** i for i in range(12)]
    regressed = [record(share, function="mse_loss", chance=math.nan, target_std=std) for std in stds]
    guess = sorted(std**2 for std in stds)[5:7]
    looks = [
        Snapshot(20 * i, each.value * sum(guess) / 2, losses=(dataclasses.replace(each, value=math.nan),))
        for i, each in enumerate(regressed)
    ]
    now = level(looks)
    assert now is not None
    assert now.share == pytest.approx(share)
    assert not now.at_a_guess
    assert now.may_be_at_a_guess == unsure


def test_the_guess_of_values_is_of_all_looks_together() -> None:
    """The answer that is right on average is wrong in every batch whose targets lie elsewhere."""
    means = [(-1.0) ** i for i in range(10)]
    looks = [
        Snapshot(i, 2.0, losses=(record(2.0, function="mse_loss", chance=math.nan, target_std=1.0, target_mean=mean),))
        for i, mean in enumerate(means)
    ]
    assert guess_of(looks) == pytest.approx(2.0)
