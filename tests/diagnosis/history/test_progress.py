"""Whether a training gets anywhere."""

from __future__ import annotations

import math

import pytest

from lightning_tricks.diagnosis.history.progress import guess_loss, is_stuck, last_at_start, recent_loss
from lightning_tricks.probes import LossRecord, Snapshot


def course(*losses: float, chance: float = math.nan) -> list[Snapshot]:
    record = LossRecord("cross_entropy", function="cross_entropy", chance=chance)
    return [Snapshot(step, loss, losses=(record,)) for step, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("losses", "chance", "stuck"),
    [
        ((2.3, 2.0, 1.5, 1.0, 0.7), math.log(10), False),
        ((2.3, 2.2, 2.3, 2.29, 2.3), math.log(10), True),
        ((2.3, 0.5, 40.0, 60.0, 50.0), math.log(10), True),
        ((40.0, 9.0, 2.3, 2.3, 2.3), math.log(10), True),  # far below its start, and yet no better than a guess
        ((40.0, 9.0, 2.3, 2.3, 2.3), math.nan, False),
        ((2.3, 2.3, 2.3), math.log(10), False),  # too early to tell
        ((2.3, 2.3, math.nan, math.nan, math.nan), math.log(10), True),
    ],
)
def test_stuck(losses: tuple[float, ...], chance: float, stuck: bool) -> None:
    assert is_stuck(course(*losses, chance=chance)) is stuck


def test_level_is_a_median_of_looks_and_of_the_steps_between() -> None:
    assert recent_loss(course(9.0, 1.0, 2.0, 3.0)) == 2.0
    between = Snapshot(3, 1.0, recent_losses=tuple([0.5] * 20))
    assert recent_loss([*course(9.0, 9.0, 9.0), between]) == 0.5
    assert math.isnan(recent_loss([Snapshot()]))
    rarely = [Snapshot(50 * k, loss, recent_losses=(loss,) * 50) for k, loss in enumerate((9.0, 9.0, 0.5))]
    assert recent_loss(rarely) == 0.5  # where many steps lie between, the last of them


def test_a_guess_is_known_for_one_loss_alone() -> None:
    assert guess_loss(course(2.3, chance=2.25)[0]) == 2.25
    assert math.isnan(guess_loss(Snapshot(0, 1.0)))
    two = (LossRecord("a", function="cross_entropy", chance=1.0), LossRecord("b", function="mse_loss"))
    assert math.isnan(guess_loss(Snapshot(0, 1.0, losses=two)))
    squares = LossRecord("mse_loss", function="mse_loss", target_std=3.0)
    assert guess_loss(Snapshot(0, 1.0, losses=(squares,))) == 9.0


@pytest.mark.parametrize(
    ("losses", "step"),
    [
        ([2.0] * 8 + [1.0] * 4, 70),
        ([2.0] * 3 + [1.0] + [2.0] * 8, None),  # one good batch
        ([2.0] * 12, None),
    ],
)
def test_the_last_look_at_which_the_loss_was_that_of_the_start(losses: list[float], step: int | None) -> None:
    history = [Snapshot(10 * index, loss=loss) for index, loss in enumerate(losses)]
    assert last_at_start(history) == step
