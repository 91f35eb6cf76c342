"""Weights that are frozen, that begin at nothing, or that another network holds."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data import Data
from ..kind import Plan, healthy
from .modules import Supervised, accuracy, adam, convnet, digits, in_order, mlp, shuffled


def _plan(module: Supervised, data: Data, epochs: int = 20) -> Plan:
    return Plan(
        module,
        shuffled(data.x, data.y),
        lambda: accuracy(module, data.x_val, data.y_val),
        in_order(data.x_val, data.y_val),
        epochs,
    )


def _pretrained(net: nn.Module, x: Tensor, y: Tensor, steps: int = 200, loss: Any = F.cross_entropy) -> nn.Module:
    """Trained before, on something else."""
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(steps):
        part = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        loss(net(x[part]), y[part]).backward()
        optimizer.step()
    optimizer.zero_grad()
    return net


def _halves() -> tuple[Data, Data]:
    """The digits under 5, and the others with labels from 0."""
    data = digits()
    low, low_val = data.y < 5, data.y_val < 5
    return (
        Data(data.x[low], data.y[low], data.x_val[low_val], data.y_val[low_val], 5),
        Data(data.x[~low], data.y[~low] - 5, data.x_val[~low_val], data.y_val[~low_val] - 5, 5),
    )


class Distilled(Supervised):
    """Learns from the soft outputs of a teacher (Hinton et al. 2015)."""

    def __init__(self, net: nn.Module, teacher: nn.Module, hidden: bool) -> None:
        super().__init__(net, F.cross_entropy, adam(3e-3))
        if hidden:
            self.teachers = [teacher]  # in a plain list: not in the checkpoint and never trained
        else:
            self.teacher = teacher.requires_grad_(False)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        teacher = self.teachers[0] if hasattr(self, "teachers") else self.teacher
        with torch.no_grad():
            soft = F.softmax(teacher(x) / 4, 1)
        output = self(x)
        loss = 16 * F.kl_div(F.log_softmax(output / 4, 1), soft, reduction="batchmean") + 0.1 * F.cross_entropy(
            output, y
        )
        self.log("train_loss", loss)
        return loss


def _taught(hidden: bool) -> Plan:
    data = digits()
    teacher = _pretrained(mlp(64, 128, 128, 10), data.x, data.y, 300).eval()
    return _plan(Distilled(mlp(64, 64, 10), teacher, hidden), data)


@healthy("teacher in a plain list", "accuracy", 0.94)
def teacher_in_list(seed: int) -> Plan:
    return _taught(hidden=True)


@healthy("distillation", "accuracy", 0.94)
def distillation(seed: int) -> Plan:
    return _taught(hidden=False)


@healthy("head that begins at zero", "accuracy", 0.94)
def zero_head(seed: int) -> Plan:
    """The first output is the same for all, and the body has no gradient at the first step."""
    net = mlp(64, 64, 10)
    nn.init.zeros_(net[-1].weight)
    nn.init.zeros_(net[-1].bias)
    return _plan(Supervised(net, F.cross_entropy, adam(1e-3)), digits())


class ZeroBranches(nn.Module):
    """Residual branches whose last layer, or factor, begins at zero (Zhang et al. 2019; Bachlechner et al. 2021)."""

    def __init__(self, factors: bool, depth: int = 6, width: int = 48) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(64, width), nn.Linear(width, 10)
        self.branches = nn.ModuleList(mlp(width, width, width) for _ in range(depth))
        self.factors = nn.Parameter(torch.zeros(depth)) if factors else torch.ones(depth)
        for branch in () if factors else self.branches:
            nn.init.zeros_(branch[-1].weight)
            nn.init.zeros_(branch[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch, factor in zip(self.branches, self.factors, strict=True):
            x = x + factor * branch(F.relu(x))
        return self.head(F.relu(x))


@healthy("residual branches that begin at zero", "accuracy", 0.94)
def zero_branches(seed: int) -> Plan:
    return _plan(Supervised(ZeroBranches(factors=False), F.cross_entropy, adam(1e-3)), digits())


@healthy("factors of branches that begin at zero", "accuracy", 0.94)
def zero_factors(seed: int) -> Plan:
    return _plan(Supervised(ZeroBranches(factors=True), F.cross_entropy, adam(1e-3)), digits())


class LoRA(nn.Module):
    """A frozen linear layer and a product of small matrices, of which one begins at zero (Hu et al. 2022)."""

    def __init__(self, layer: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, layer.in_features) / layer.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + F.linear(F.linear(x, self.a), self.b)


@healthy("LoRA", "accuracy", 0.9)
def lora(seed: int) -> Plan:
    """A network for the digits under 5 is adapted to the others."""
    before, data = _halves()
    net = _pretrained(mlp(64, 128, 128, 5), before.x, before.y)
    for name in ("0", "2", "4"):
        setattr(net, name, LoRA(getattr(net, name)))
    return _plan(Supervised(net, F.cross_entropy, adam(3e-3)), data, epochs=40)


@healthy("random features", "accuracy", 0.93)
def random_features(seed: int) -> Plan:
    """A wide layer stays as it was drawn; only the head learns (Rahimi and Recht 2007)."""
    net = mlp(64, 512, 10)
    net[0].requires_grad_(False)
    return _plan(Supervised(net, F.cross_entropy, adam(3e-3)), digits())


@healthy("deep random features", "accuracy", 0.9)
def deep_random_features(seed: int) -> Plan:
    """Three frozen random layers under a head."""
    net = mlp(64, 512, 512, 512, 10)
    net[:-1].requires_grad_(False)
    return _plan(Supervised(net, F.cross_entropy, adam(3e-3)), digits())


class FrozenBody(Supervised):
    """A body that was trained before, in evaluation mode, and a new head."""

    def __init__(self, body: nn.Module, head: nn.Module, no_grad: bool) -> None:
        super().__init__(nn.Sequential(body, head), F.cross_entropy, adam(3e-3))
        self.no_grad = no_grad
        if not no_grad:
            body.requires_grad_(False)

    def on_train_epoch_start(self) -> None:
        self.net[0].eval()

    def forward(self, x: Tensor) -> Tensor:
        if not self.no_grad:
            return self.net(x)
        with torch.no_grad():
            features = self.net[0](x)
        return self.net[1](features)

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.net[1].parameters())


def _transferred(no_grad: bool) -> Plan:
    before, data = _halves()
    net = _pretrained(convnet(5, 8), before.x, before.y)
    return _plan(FrozenBody(net[:-1], nn.Linear(256, 5), no_grad), data)


@healthy("frozen backbone", "accuracy", 0.9)
def frozen_backbone(seed: int) -> Plan:
    return _transferred(no_grad=False)


@healthy("features under no_grad", "accuracy", 0.9)
def features_under_no_grad(seed: int) -> Plan:
    """The body asks for gradients, and nobody computes any."""
    return _transferred(no_grad=True)


@healthy("frozen tanh encoder", "accuracy", 0.9)
def frozen_tanh_encoder(seed: int) -> Plan:
    """The encoder of an autoencoder whose code is nearly binary, as for hashing."""
    data = digits()
    coder = nn.Sequential(nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 64))
    _pretrained(coder, data.x, data.x, 300, F.mse_loss)
    with torch.no_grad():
        coder[0].weight.mul_(4)
        coder[0].bias.mul_(4)
    return _plan(FrozenBody(copy.deepcopy(coder[:2]), nn.Linear(48, 10), no_grad=False), data)
