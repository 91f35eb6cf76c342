"""The losses between two looks: thinned evenly, plain in a checkpoint, begun anew with a training."""

import json
import math
import pickle

import pytest
import torch

from lightning_tricks.callbacks.monitoring.loss_history import MOST, LossCurve, loss_in


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 129, 1000])
def test_thinned_evenly(count):
    curve = LossCurve()
    for step in range(count):
        curve.add(step, torch.tensor(float(step)))
    kept = [float(loss) for loss in curve.losses]
    stride = 2 ** max(0, math.ceil(math.log2(count / MOST)))
    assert kept == [float(step) for step in range(0, count, stride)]
    assert len(kept) <= MOST


def test_a_training_begun_anew():
    curve = LossCurve()
    for step in (0, 1, 2, 0, 1):
        curve.add(step, float(step))
    assert curve.losses == [0.0, 1.0]
    curve.clear()
    curve.add(2, 5.0)
    assert curve.losses == [5.0]


def test_out_of_a_checkpoint_it_goes_on():
    whole, first = LossCurve(), LossCurve()
    for step in range(100):
        for curve in (whole, first):
            curve.add(step, torch.tensor(math.nan if step == 10 else float(step)))
    second = LossCurve()
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    third = pickle.loads(pickle.dumps(first))
    for step in range(100, 150):
        for curve in (whole, second, third):
            curve.add(step, torch.tensor(float(step)))
    assert second.state_dict() == third.state_dict() == whole.state_dict()
    assert math.isnan(second.losses[3]) is False
    assert whole.state_dict()["losses"].count(None) == 0  # step 10 is none of every fourth
    assert first.state_dict()["losses"][5] is None


@pytest.mark.parametrize("outputs", [None, {}, {"loss": None}, {"loss": 1.0}, torch.ones(2), torch.tensor(1), "loss"])
def test_no_loss(outputs):
    assert loss_in(outputs) is None


def test_loss_without_its_graph():
    loss = torch.ones(1, requires_grad=True) * 2
    for outputs in (loss, {"loss": loss, "other": 1}):
        found = loss_in(outputs)
        assert found.shape == ()
        assert found.grad_fn is None
        assert float(found) == 2.0
