"""Losses between two probed steps: thinned, plain in a checkpoint, begun anew; which metric is a validation's."""

import json
import math
import pickle

import pytest
import torch

from lightning_tricks.watch.loss_history import MOST, LossHistory, ValidationLoss, loss_in, loss_key


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 129, 1000])
def test_thinned_evenly(count):
    history = LossHistory()
    for step in range(count):
        history.add(step, torch.tensor(float(step)))
    kept = [float(loss) for loss in history.losses]
    stride = 2 ** max(0, math.ceil(math.log2(count / MOST)))
    assert kept == [float(step) for step in range(0, count, stride)]
    assert len(kept) <= MOST


def test_a_training_begun_anew():
    history = LossHistory()
    for step in (0, 1, 2, 0, 1):
        history.add(step, float(step))
    assert history.losses == [0.0, 1.0]
    history.clear()
    history.add(2, 5.0)
    assert history.losses == [5.0]


def test_out_of_a_checkpoint_it_goes_on():
    whole, first = LossHistory(), LossHistory()
    for step in range(100):
        for history in (whole, first):
            history.add(step, torch.tensor(math.nan if step == 10 else float(step)))
    second = LossHistory()
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    third = pickle.loads(pickle.dumps(first))
    for step in range(100, 150):
        for history in (whole, second, third):
            history.add(step, torch.tensor(float(step)))
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


@pytest.mark.parametrize(("keys", "chosen"), [
    ([], None),
    (["train_loss", "loss", "val_acc", "val/accuracy"], None),
    (["value_loss", "train/interval_loss", "evaluation_lossless"], None),
    (["val_loss_step"], None),
    (["val_loss_epoch", "val_loss_step"], "val_loss_epoch"),
    (["val_aux_loss", "val_loss", "loss"], "val_loss"),
    (["val/box/loss", "val/loss"], "val/loss"),
    (["val_kl_loss", "validation_loss"], "validation_loss"),
    (["Valid/Loss"], "Valid/Loss"),
    (["valLoss"], "valLoss"),
    (["loss/val"], "loss/val"),
    (["val_loss/dataloader_idx_1", "val_loss/dataloader_idx_0"], "val_loss/dataloader_idx_0"),
    (["val_ce_loss", "val_triplet_loss"], "val_ce_loss"),
])  # fmt: skip
def test_the_plainest_name_of_a_validation_loss(keys, chosen):
    assert loss_key(keys) == chosen
    assert loss_key(reversed(keys)) == chosen


def test_mean_of_what_the_steps_returned_where_nothing_is_logged():
    loss = ValidationLoss()
    for outputs in (torch.tensor(1.0), {"loss": torch.tensor(4.0)}, None, {"predictions": torch.ones(3)}):
        loss.add(outputs)
    assert loss.finish({"val_acc": torch.tensor(0.5)}) == 2.5
    assert loss.finish({}) is None  # each validation by itself
    loss.add(torch.tensor(9.0))
    assert loss.finish({"val_loss": torch.tensor(0.25)}) == 0.25
    assert math.isnan(loss.finish({"val_loss": torch.tensor(math.nan)}))
