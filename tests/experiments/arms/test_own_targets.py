"""A loss whose targets the network makes itself is no measure of how far a training comes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lightning_tricks as lt
from lightning_tricks.experiments.arms.own_targets import refuse_own_targets
from lightning_tricks.experiments.arms.prepared import prepared
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.training import Training
from lightning_tricks.experiments.training.deadline import Deadline
from tests.experiments.arms.planted import X, Y, loader

pytestmark = [pytest.mark.usefixtures("usual_trials"), pytest.mark.filterwarnings("ignore")]
BATCH = (X[:32], Y[:32])


class Views(L.LightningModule):
    """Two noisy views of a pattern, and a loss of both."""

    def __init__(self, loss: Callable[[Views, Tensor, Tensor, Tensor], Tensor], *, copied: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(12, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 6))
        self.predictor = nn.Linear(6, 6)
        self.fixed = copy.deepcopy(self.net).requires_grad_(False)
        self.loss, self.copied = loss, copied

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(self, batch[0], batch[0] + 0.1, batch[1])

    def on_before_zero_grad(self, optimizer: Any) -> None:
        if self.copied:
            for slow, fast in zip(self.fixed.parameters(), self.net.parameters(), strict=True):
                slow.data.lerp_(fast.data, 0.05)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam([*self.net.parameters(), *self.predictor.parameters()], 0.01)


def detached(self: Views, x: Tensor, other: Tensor, y: Tensor) -> Tensor:
    return -F.cosine_similarity(self.predictor(self.net(x)), self.net(other).detach()).mean()


def without_gradient(self: Views, x: Tensor, other: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        goal = F.normalize(self.net(other), dim=1)
    return (self.predictor(self.net(x)) - goal).square().mean()


def own_labels(self: Views, x: Tensor, other: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(self.net(x), self.net(other).argmax(1))


def taught(self: Views, x: Tensor, other: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        goal = self.fixed(other).softmax(1)
    return F.cross_entropy(self.net(x), goal)


def in_the_type_of_the_output(self: Views, x: Tensor, other: Tensor, y: Tensor) -> Tensor:
    output = self.net(x)
    return F.mse_loss(output, F.one_hot(y, 6).type_as(output.detach()))


def masked(self: Views, x: Tensor, other: Tensor, y: Tensor) -> Tensor:
    output = self.net(x)
    most = output.topk(5, 1).indices
    return F.cross_entropy(output * (output > -100.0), y) + 0 * output.gather(1, most).mean()


def supervised(self: Views, x: Tensor, other: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(self.net(x), y)


@pytest.mark.parametrize("loss", [detached, without_gradient, own_labels])
def test_targets_of_its_own_are_refused(loss: Any) -> None:
    with pytest.raises(NotAskedError, match="outputs of the network itself"):
        refuse_own_targets(Training.of(Views(loss)), BATCH)


@pytest.mark.parametrize("loss", [taught, in_the_type_of_the_output, masked, supervised])
def test_others_are_not(loss: Any) -> None:
    training = Training.of(Views(loss))
    refuse_own_targets(training, BATCH)
    assert not any(module._forward_hooks for module in training.module.modules())


@pytest.mark.parametrize(
    ("loss", "copied", "refused"), [(taught, True, True), (taught, False, False), (supervised, True, False)]
)
def test_targets_of_a_copy_are_refused_where_it_moves(loss: Any, copied: bool, refused: bool) -> None:
    """A teacher that stays is as good as labels; an average of the weights that the loss does not ask is no target."""
    trials = prepared(Training.of(Views(loss, copied=copied)), loader(), False, Deadline(60))
    if not refused:
        trials.begin(40)
        return
    with pytest.raises(NotAskedError, match=r"depends on fixed\.0\.weight"):
        trials.begin(40)


def test_a_treatment_says_that_it_is_not_judged() -> None:
    module = Views(detached)
    before = copy.deepcopy(module.state_dict())
    treatment = lt.treat(module, None, loader(), max_seconds=60)
    assert "not judged: its targets are outputs of the network itself" in treatment.note
    assert not treatment.remedies
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
