"""reach: what the loss depends on, against networks in which that is known."""

from __future__ import annotations

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lightning_tricks as lt
from lightning_tricks.experiments import reach

BATCH = torch.randn(16, 6, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3


class Net(nn.Module):
    """Two layers whose way to the loss is a function of theirs."""

    def __init__(self, between=lambda x: x, extra=False):
        super().__init__()
        self.first, self.last, self.between = nn.Linear(6, 8), nn.Linear(8, 3), between
        if extra:
            self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.last(self.between(self.first(x)).relu())


class InAList(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.last = [nn.Linear(6, 8)], nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.layers[0](x).relu())


class Wrong(torch.autograd.Function):
    """A square whose derivative somebody has got wrong by a factor of four."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        return 0.5 * ctx.saved_tensors[0] * gradient


def numbers(model, **more):
    found = reach(model, BATCH, F.cross_entropy, **more)
    assert found.conclusive, found
    return found.numbers


def test_all_of_a_plain_network_is_reached_and_its_gradient_is_right():
    found = numbers(Net())
    assert found["parameters"] == found["reached"] == 4
    assert found["detached"] == found["unused"] == found["not_held"] == found["foreign"] == 0
    assert found["measured_over_predicted"] == pytest.approx(1, abs=0.02)


CUTS = {
    "detach": torch.Tensor.detach,
    "made anew": lambda x: torch.tensor(x.tolist()),
    "step": lambda x: (x > 0).float(),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_graph_is_told_from_a_layer_without_use(cut):
    found = reach(Net(CUTS[cut], extra=True), BATCH, F.cross_entropy)
    assert found.numbers["detached"] == 2
    assert found.numbers["unused"] == 2
    assert "the loss depends on it: first.weight, first.bias" in found.answer
    assert "without influence: unused.weight, unused.bias" in found.answer


def test_weights_in_a_list_belong_to_no_module():
    assert numbers(InAList())["foreign"] == 2


def test_what_the_optimiser_does_not_hold():
    net = Net()
    assert numbers(net, optimizer=torch.optim.SGD(net.last.parameters(), 0.1))["not_held"] == 2


def test_a_wrong_backward_is_not_what_the_loss_does():
    assert numbers(Net(Wrong.apply))["measured_over_predicted"] > 1.2


class CutOff(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = Net(torch.Tensor.detach)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def test_in_a_checkup_it_is_the_proof():
    diagnosis = lt.checkup(CutOff(), [BATCH], experiments="reach")
    finding = next(finding for finding in diagnosis.findings if finding.problem == "disconnected_parameters")
    assert finding.proof == diagnosis.experiments[0]
    assert finding.proof.numbers["detached"] == 2


class ByHand(CutOff):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


def test_of_a_training_by_hand_its_own_steps_tell():
    (found,) = lt.checkup(ByHand(), [BATCH], experiments="reach").experiments
    assert (found.numbers["parameters"], found.numbers["reached"]) == (4, 2)
    assert "not judged" in found.answer
