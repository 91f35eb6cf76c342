"""Data that bring one target, or one pattern, for all are named; ones and zeros that a step makes are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt

X = torch.randn(256, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, :1] > 0).float()
Loss = Callable[[nn.Module, Any], Tensor]


class Lit(L.LightningModule):
    def __init__(self, loss: Loss) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.loss = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1)), loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(self.net, batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-2)


def diagnosed(x: Tensor, y: Tensor, loss: Loss = lambda net, batch: F.mse_loss(net(batch[0]), batch[1])) -> Any:
    doctor = lt.TrainingDoctor(report=False, on_problem="log")
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_epochs=3, accelerator="cpu", callbacks=[doctor], enable_model_summary=False, **quiet)
    trainer.fit(Lit(loss), DataLoader(TensorDataset(x, y), 32, shuffle=True))
    return doctor.diagnosis


@pytest.mark.parametrize("binary", [False, True], ids=["values", "yes or no"])
def test_targets_that_are_all_the_same(binary: bool) -> None:
    loss = F.binary_cross_entropy_with_logits if binary else F.mse_loss
    found = diagnosed(X, torch.zeros(256, 1).long(), lambda net, batch: loss(net(batch[0]), batch[1].float()))
    (finding,) = [each for each in found.findings if each.rank]
    assert (finding.problem, finding.evidence["target"], found.state) == ("target_mismatch", 0.0, "sick")
    assert finding.evidence["patterns"] >= 64


def test_one_pattern_for_all() -> None:
    found = diagnosed(X[:1].expand(256, -1), Y[:1].expand(256, -1))
    assert found.findings[0].problem == "unnormalized_input"
    assert found.findings[0].severity == "warning"


def residual(net: nn.Module, batch: Any) -> Tensor:
    """As of a physical law: what is to be zero is made in the step."""
    x = batch[0].requires_grad_()
    slope = torch.autograd.grad(net(x).sum(), x, create_graph=True)[0]
    return F.mse_loss(slope.sum(1, keepdim=True) - 1.0, torch.zeros(len(x), 1))


def to_one(net: nn.Module, batch: Any) -> Tensor:
    """As of a discriminator: the ones are made in the step."""
    return F.binary_cross_entropy_with_logits(net(batch[0]), torch.ones(len(batch[0]), 1))


RIGHT: dict[str, tuple[Tensor, Tensor, Loss]] = {
    "targets that differ": (X, Y, lambda net, batch: F.mse_loss(net(batch[0]), batch[1])),
    "a residual": (X, Y, residual),
    "a discriminator": (X, Y, to_one),
    "a code of ones that is decoded": (torch.ones(256, 6), Y, lambda net, batch: F.mse_loss(net(batch[0]), batch[1])),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_no_fault_of_the_targets(name: str) -> None:
    assert not [each for each in diagnosed(*RIGHT[name]).findings if each.rank and each.problem == "target_mismatch"]
