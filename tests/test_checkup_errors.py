"""What cannot be checked up says why, and what to do."""

import threading

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lightning_tricks as lt
from tests.callbacks.trainings import (
    Classifier,
    batches,
    mlp,
)
from tests.test_checkup import check, plain


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def locked():
    model = plain()
    model.lock = threading.Lock()
    return model


NO_DATA = torch.utils.data.DataLoader([])


TOO_SMALL = torch.utils.data.DataLoader(range(3), batch_size=8, drop_last=True)


class NoForward(L.LightningModule):
    """Only ``training_step``."""


def with_optimizer(optimizer):
    return plain(), batches(), F.cross_entropy, optimizer


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ((F.relu, batches()), TypeError, "model must be a torch.nn.Module, got function"),
    ((plain(), batches()), TypeError, r"Sequential is no LightningModule: give a loss_fn\(output, target\)"),
    ((plain(), [], F.cross_entropy), ValueError, "data holds no batch: is the dataset empty"),
    ((plain(), TOO_SMALL, F.cross_entropy), ValueError, "or smaller than batch_size with drop_last=True"),
    ((Classifier(), NO_DATA), ValueError, "data holds no batch"),
    ((plain(), iter(batches(2)), F.cross_entropy), ValueError, "data cannot be started again: give a loader"),
    ((plain(), 3, F.cross_entropy), TypeError, "data must be a loader, an iterable of batches or one batch, got int"),
    ((plain(), batches(), F.cross_entropy, None, 0), ValueError, "num_batches must be at least 1, got 0"),
    ((plain(), batches(), F.cross_entropy, torch.optim.SGD(mlp().parameters())), ValueError, "no parameter of this"),
    (with_optimizer(torch.optim.SGD), TypeError, r"optimizer .* the class SGD: call it, .*SGD\(model\.parameters"),
    (with_optimizer("sgd"), TypeError, r"optimizer must be a torch\.optim\.Optimizer such as .* got str 'sgd'"),
    ((plain(), batches(), "ce"), TypeError, r"loss_fn must be a function loss_fn\(output, target\) .* got str 'ce'"),
    ((plain(), batches(), 3.0), TypeError, "loss_fn must be a function .* got float"),
    ((plain(), batches(), nn.MSELoss), TypeError, r"loss_fn .* got the class MSELoss: call it, MSELoss\(\)"),
    ((NoForward(), batches(), F.cross_entropy), TypeError, "NoForward has no forward: leave loss_fn out"),
    ((plain(), torch.ones(3, 6), F.cross_entropy), TypeError, r"a batch must be \(x, y\), got Tensor; for any"),
    ((plain(), [(1, 2, 3)], F.cross_entropy), TypeError, r"a batch must be \(x, y\), got 3 entries; .*LightningModule"),
    ((locked(), batches(), F.cross_entropy), RuntimeError, "Sequential cannot be copied"),
])  # fmt: skip
def test_errors_say_what_to_do(arguments, error, message):
    with pytest.raises(error, match=message):
        lt.checkup(*arguments)


def test_unknown_problems_to_ignore():
    with pytest.raises(ValueError, match="typo"):
        check(plain(), ignore=["typo"])
    with pytest.raises(ValueError, match="typo"):
        lt.diagnose([], ignore=["typo"])


def test_errors_of_the_users_step_come_through():
    class Fails(Classifier):
        def training_step(self, batch, batch_idx):
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        lt.checkup(Fails(), batches())


def test_interrupt_is_an_interrupt():
    class Interrupts(Classifier):
        def training_step(self, batch, batch_idx):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lt.checkup(Interrupts(), batches())
