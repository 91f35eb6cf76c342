"""The two ends of the way that a loss has to go, as table, page and notebook tell them."""

import dataclasses
import math

import pytest
import torch

from lightning_tricks.diagnosis import Finding
from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.history.learning import guess_of
from lightning_tricks.report import Diagnosis, table
from lightning_tricks.report.html import html
from lightning_tricks.report.way import Way


def told(history, **numbers):
    return Diagnosis([], history, experiments=[Experiment("free_outputs", "?", "!", numbers)])


def smoothed(history, smoothing, **more):
    return [
        dataclasses.replace(s, losses=tuple(dataclasses.replace(r, smoothing=smoothing, **more) for r in s.losses))
        for s in history
    ]


def test_the_guess_is_that_of_all_targets_and_the_floor_that_of_the_experiment(sigmoids):
    """Of one batch a guess knows the few targets by heart, and two numbers for one thing would be told."""
    diagnosis = told(sigmoids, guess=1.0, floor=0.25)
    way = Way.of(diagnosis)
    assert (way.guess, way.floor) == (guess_of(sigmoids), 0.25)
    share = way.share(sigmoids[-1].loss)
    assert f"a guess has {way.guess:.2f}, the floor is 0.250: " in " ".join(table.text(diagnosis, 200).split())
    assert f"(a guess) has {way.guess:.2f}" in html(diagnosis)
    assert way.loss(share) == pytest.approx(sigmoids[-1].loss)


def test_where_no_guess_is_known_the_experiment_has_one(sigmoids):
    alone = [dataclasses.replace(snapshot, losses=()) for snapshot in sigmoids]
    assert not Way.of(Diagnosis([], alone)).known
    assert Way.of(told(alone, guess=3.0, floor=1.0)) == pytest.approx((3.0, 1.0, math.nan), nan_ok=True)


def test_a_loss_without_a_lower_bound_has_no_way(sigmoids):
    assert not Way.of(told(sigmoids, guess=math.nan, floor=-math.inf)).known


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothing_keeps_a_loss_from_zero(smoothing, sigmoids):
    right = torch.full((1, 4), -40.0).scatter(1, torch.tensor([[2]]), 0.0)
    outputs = (torch.full((4,), smoothing / 4) + (1 - smoothing) * torch.eye(4)[2]).log().clamp(-40)[None]
    least = torch.nn.functional.cross_entropy(
        outputs if smoothing else right, torch.tensor([2]), label_smoothing=smoothing
    )
    assert Way.of(Diagnosis([], smoothed(sigmoids, smoothing))).floor == pytest.approx(float(least), abs=1e-6)


def test_a_floor_that_is_not_known_is_not_told(sigmoids):
    """Of an old record, of smoothing by weights, of another loss; shares go to 0 then."""
    for history in (
        smoothed(sigmoids, math.nan),
        smoothed(sigmoids, 0.1, class_weights=(1.0,) * 4),
        smoothed(sigmoids, 0.0, function="nll_loss"),
    ):
        way = Way.of(Diagnosis([], history))
        assert math.isnan(way.floor)
        assert way.end == 0.0


def test_what_the_outputs_can_reach_is_drawn(sigmoids):
    finding = Finding("output_mismatch", "12", "critical", 0, {"reachable": 0.74})
    other = Finding("saturation", "2", "critical", 0, {"saturation": 0.9})
    page = html(Diagnosis([other, finding], sigmoids))
    assert "the least that these outputs can reach: 0.740" in page
    assert "the floor: 0</li>" in page
    assert "can reach" not in html(Diagnosis([], sigmoids))
