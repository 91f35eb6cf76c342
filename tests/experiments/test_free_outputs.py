"""free_outputs: guess and floor of any loss, against closed forms."""

from __future__ import annotations

import dataclasses
import math
import random

import lightning.pytorch as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt
from lightning_tricks.experiments import free_outputs, share

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(60, 8, generator=GENERATOR)
CLASSES = torch.arange(60) % 3
BINARY = (torch.arange(60) % 4 == 0).float()[:, None]
FAR = torch.randn(60, 1, generator=GENERATOR) * 1000 + 1e5
ENTROPY = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))


def net(*tail: nn.Module, outputs: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, outputs), *tail)


def by_hand(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return -output.log()[torch.arange(len(target)), target].mean()


STREAM = torch.Generator().manual_seed(0)


def drawn_by_itself() -> torch.Tensor:
    return torch.randn(60, 3, generator=STREAM)


def guarded(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """No log of zero; of outputs over 1, which no softmax gives, it is as low as one likes."""
    return -(output + 1e-8).abs().log()[torch.arange(len(target)), target].mean()


@pytest.mark.parametrize(
    ("model", "target", "loss_fn", "guess", "floor"),
    [
        (net(), CLASSES, F.cross_entropy, math.log(3), 0),
        (net(nn.LogSoftmax(1)), CLASSES, F.nll_loss, math.log(3), 0),
        (net(nn.Softmax(1)), CLASSES, by_hand, math.log(3), 0),
        (net(nn.Softmax(1)), CLASSES, guarded, math.log(3), 0),
        (net(nn.Sigmoid(), outputs=1), BINARY, F.binary_cross_entropy, ENTROPY, 0),
        (net(outputs=1), BINARY, F.binary_cross_entropy_with_logits, ENTROPY, 0),
        (net(outputs=1), FAR, F.mse_loss, float(FAR.var(correction=0)), 0),
        (net(outputs=1), FAR, F.l1_loss, float((FAR - FAR.median()).abs().mean()), 0),
        (net(), CLASSES, lambda o, y: F.cross_entropy(o, y, label_smoothing=0.3), math.log(3), 0.639),
    ],
)
def test_guess_and_floor_are_those_of_the_closed_form(model, target, loss_fn, guess, floor):
    found = free_outputs(model, (X, target), loss_fn)
    assert found.conclusive, found
    assert found.numbers["guess"] == pytest.approx(guess, rel=1e-3)
    assert found.numbers["floor"] == pytest.approx(floor, abs=1e-3 * guess)


def test_a_floor_behind_the_last_activation_is_told_from_that_of_free_outputs():
    found = free_outputs(net(nn.Softmax(1)), (X, CLASSES), F.cross_entropy)
    assert found.numbers["floor"] == pytest.approx(0, abs=1e-3)
    assert found.numbers["reachable"] == pytest.approx(math.log(1 + 2 / math.e), rel=1e-3)
    assert "softmax" in found.answer


def test_outputs_that_are_broadcast_can_do_no_better_than_a_guess():
    numbers = free_outputs(net(outputs=1), (X, FAR.flatten()), F.mse_loss).numbers
    assert numbers["floor"] == pytest.approx(numbers["guess"])
    assert math.isnan(numbers["share"])


def test_a_loss_that_draws_random_numbers_draws_the_same_for_all_outputs():
    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        share = random.random() * np.random.rand() * torch.rand(())
        return (0.5 + share) * F.cross_entropy(output, target)

    found = free_outputs(net(), (X, CLASSES), loss_fn)
    assert found.conclusive
    assert found.numbers["floor"] == pytest.approx(0, abs=1e-4)
    assert 0.5 * math.log(3) < found.numbers["guess"] < 1.5 * math.log(3)
    assert found.numbers["guess"] - found.numbers["floor"] > 0


@pytest.mark.parametrize(
    ("model", "target", "loss_fn", "reason"),
    [
        (net(), CLASSES, lambda o, y: F.cross_entropy(o + 0.1 * drawn_by_itself(), y), "random"),
        (net(), CLASSES, lambda o, y: o.detach().sum(), "no gradient"),
        (net(), CLASSES, lambda o, y: o.sum() * math.nan, "nan"),
        (net(), CLASSES, lambda o, y: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_where_it_cannot_be_asked_the_reason_is_the_answer(model, target, loss_fn, reason):
    found = free_outputs(model, (X, target), loss_fn)
    assert not found.conclusive
    assert reason in found.answer


@pytest.mark.parametrize(
    ("model", "target", "loss_fn"),
    [(net(), CLASSES, F.nll_loss), (net(outputs=1), BINARY + 1, F.binary_cross_entropy_with_logits)],
    ids=["no log-probabilities", "labels 1 and 2"],
)
def test_a_loss_without_a_lower_bound_has_no_guess(model, target, loss_fn):
    found = free_outputs(model, (X, target), loss_fn)
    assert found.numbers["floor"] == -math.inf
    assert math.isnan(found.numbers["guess"])
    assert "no lower bound" in found.answer


class Two(L.LightningModule):
    """An encoder and a head that the step calls one after the other, and a logged loss."""

    def __init__(self):
        super().__init__()
        self.encoder, self.head, self.criterion = nn.Linear(8, 4), nn.Linear(4, 3), nn.CrossEntropyLoss()

    def training_step(self, batch, batch_idx):
        loss = self.criterion(self.head(self.encoder(batch[0]).relu()), batch[1])
        self.log("loss", loss)
        return {"loss": loss}


def test_of_a_training_step_the_last_calls_before_the_loss_are_replaced():
    numbers = lt.experiments.free_outputs(Two(), (X, CLASSES)).numbers
    assert numbers["guess"] == pytest.approx(math.log(3), rel=1e-3)
    assert numbers["floor"] == pytest.approx(0, abs=1e-3)


def test_a_guess_of_sequences_is_one_for_all_positions():
    ids = torch.randint(5, (8, 20), generator=torch.Generator().manual_seed(1))
    numbers = free_outputs(nn.Embedding(5, 5), (ids, ids), lambda o, y: F.cross_entropy(o.transpose(1, 2), y)).numbers
    shares = torch.bincount(ids.flatten()) / ids.numel()
    assert numbers["guess"] == pytest.approx(float(-(shares * shares.log()).sum()), rel=1e-3)


def test_share_is_one_at_the_floor_and_nothing_where_there_is_no_way():
    assert share(1.0, 2.0, 1.0) == 1
    assert share(2.0, 2.0, 1.0) == 0
    assert math.isnan(share(2.0, 2.0, 2.0))


def test_no_module_and_no_loss_are_errors():
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        free_outputs(3, (X, CLASSES))
    with pytest.raises(TypeError, match="loss_fn"):
        free_outputs(net(), (X, CLASSES))


@dataclasses.dataclass(frozen=True)
class Record:
    logits: torch.Tensor
    hidden: torch.Tensor


class Packed(nn.Module):
    """A network that packs what it gives."""

    def __init__(self, pack):
        super().__init__()
        self.first, self.last, self.pack = nn.Linear(8, 16), nn.Linear(16, 3), pack

    def forward(self, x):
        hidden = self.first(x).relu()
        return self.pack(self.last(hidden), hidden)


PACKS = {
    "record": (Record, lambda o: o.logits),
    "dict": (lambda logits, hidden: {"logits": logits, "hidden": [hidden, "name"]}, lambda o: o["logits"]),
    "tuple": (lambda logits, hidden: (hidden, (logits, None)), lambda o: o[1][0]),
}


@pytest.mark.parametrize("pack", PACKS)
def test_outputs_may_be_packed(pack):
    make, read = PACKS[pack]
    numbers = free_outputs(Packed(make), (X, CLASSES), lambda o, y: F.cross_entropy(read(o), y)).numbers
    assert numbers["guess"] == pytest.approx(math.log(3), rel=1e-3)
    assert numbers["floor"] == pytest.approx(0, abs=1e-3)


class Inside(Two):
    """A network that computes its loss itself."""

    def forward(self, x, y):
        return {"loss": self.criterion(self.head(self.encoder(x).relu()), y)}

    def training_step(self, batch, batch_idx):
        return self(*batch)["loss"] / 2


def test_a_loss_inside_of_the_network_has_no_outputs_to_replace():
    found = free_outputs(Inside(), (X, CLASSES))
    assert not found.conclusive
    assert "inside of the network" in found.answer


def loader(target):
    x = torch.randn(len(target), 8, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(x, target), 16)


def to_a_centre(output, target):
    """Of one class: the targets are not used."""
    return (output - 1).square().mean()


@pytest.mark.parametrize(
    ("outputs", "target", "loss_fn", "named"),
    [
        (3, torch.zeros(96, dtype=torch.long), F.cross_entropy, True),
        (1, torch.ones(96, 1), F.binary_cross_entropy_with_logits, True),
        (1, torch.full((96, 1), 3.0), F.mse_loss, True),
        (1, torch.arange(96.0)[:, None] // 48, F.mse_loss, False),
        (3, torch.zeros(32, dtype=torch.long), F.cross_entropy, False),
        (1, torch.zeros(96, 1), to_a_centre, False),
    ],
    ids=["one class", "all positive", "one value", "sorted", "few patterns", "not used"],
)
def test_targets_that_are_all_the_same_are_found(outputs, target, loss_fn, named):
    torch.manual_seed(0)
    diagnosis = lt.checkup(net(outputs=outputs), loader(target), loss_fn, num_batches=2, experiments="free_outputs")
    found = [finding for finding in diagnosis.findings if finding.problem == "target_mismatch"]
    assert bool(found) is named
    for finding in found:
        assert (finding.severity, finding.proof) == ("warning", diagnosis.experiments[0])
