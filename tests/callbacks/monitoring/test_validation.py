"""Which metric is the validation loss."""

import math

import pytest
import torch

from lightning_tricks.callbacks.monitoring.validation import ValidationLoss, loss_key


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
def test_the_plainest(keys, chosen):
    assert loss_key(keys) == chosen
    assert loss_key(reversed(keys)) == chosen


def test_mean_of_what_the_steps_returned_where_nothing_is_logged():
    loss = ValidationLoss()
    for outputs in (torch.tensor(1.0), {"loss": torch.tensor(4.0)}, None, {"predictions": torch.ones(3)}):
        loss.add(outputs)
    assert loss.take({"val_acc": torch.tensor(0.5)}) == 2.5
    assert loss.take({}) is None  # each validation by itself
    loss.add(torch.tensor(9.0))
    assert loss.take({"val_loss": torch.tensor(0.25)}) == 0.25
    assert math.isnan(loss.take({"val_loss": torch.tensor(math.nan)}))
