"""Steps that are taken otherwise than by one optimiser after one backward pass."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...data import load
from ..kind import Plan, healthy
from .modules import (
    Listed,
    Supervised,
    accuracy,
    adam,
    convnet,
    digits,
    digits_plan,
    in_order,
    mlp,
    r_squared,
    shuffled,
)


@healthy("LBFGS with a closure", "R2", 0.35)
def lbfgs(seed: int) -> Plan:
    """All patterns at once; one step evaluates them twenty times."""
    data = load("diabetes")
    loss = lambda output, y: F.mse_loss(output, y) + penalty(module)  # noqa: E731
    module = Supervised(mlp(10, 8, 1, activation=nn.Tanh), loss, lambda p: torch.optim.LBFGS(list(p), 0.5))
    return Plan(
        module,
        Listed([(data.x, data.y)] * 10),
        lambda: r_squared(module(data.x_val), data.y_val),
        in_order(data.x_val, data.y_val),
        epochs=4,
        look=5,
    )


def penalty(module: nn.Module) -> Tensor:
    """A fiftieth of the sum of squares of all weights."""
    return 0.02 * torch.stack([p.square().sum() for p in module.parameters()]).sum()


class StepInBackward(Supervised):
    """Each parameter has an optimiser of its own, which steps as soon as its gradient is there, and clears it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net, F.cross_entropy)
        self.automatic_optimization = False
        self.own = {p: torch.optim.Adam([p], 2e-3) for p in net.parameters()}
        for p in net.parameters():
            p.register_post_accumulate_grad_hook(self._step)

    def _step(self, p: Tensor) -> None:
        self.own[p].step()  # type: ignore[index]
        self.own[p].zero_grad()  # type: ignore[index]

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        x, y = batch
        loss = self.loss(self(x), y)
        self.manual_backward(loss)
        self.log("train_loss", loss)

    def configure_optimizers(self) -> Any:
        return None


@healthy("optimizer that steps in backward", "accuracy", 0.94)
def step_in_backward(seed: int) -> Plan:
    return digits_plan(StepInBackward(mlp(64, 64, 10)))


class TwoOptimizers(Supervised):
    """An autoencoder by one optimiser, a classifier on its code by another, by hand."""

    def __init__(self) -> None:
        super().__init__(mlp(64, 64, 16), F.cross_entropy)
        self.automatic_optimization = False
        self.decoder, self.head = mlp(16, 64, 64), mlp(16, 32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x))

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        x, y = batch
        of_code, of_head = self.optimizers()
        code = self.net(x)
        of_code.zero_grad()
        self.manual_backward(F.mse_loss(self.decoder(code), x))
        of_code.step()
        loss = F.cross_entropy(self.head(code.detach()), y)
        of_head.zero_grad()
        self.manual_backward(loss)
        of_head.step()
        self.log("train_loss", loss)

    def configure_optimizers(self) -> Any:
        coder = [*self.net.parameters(), *self.decoder.parameters()]
        return torch.optim.Adam(coder, 2e-3), torch.optim.SGD(self.head.parameters(), 0.05, momentum=0.9)


@healthy("two optimizers by hand", "accuracy", 0.9)
def two_optimizers(seed: int) -> Plan:
    return digits_plan(TwoOptimizers())


class Checkpointed(nn.Module):
    """Activations are computed anew in the backward pass, by the reentrant way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(64, 64), nn.Linear(64, 10)
        self.blocks = nn.ModuleList(nn.Sequential(nn.ReLU(), nn.Linear(64, 64)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + checkpoint(block, x, use_reentrant=True)
        return self.head(x)


@healthy("reentrant checkpointing", "accuracy", 0.94)
def checkpointing(seed: int) -> Plan:
    return digits_plan(Supervised(Checkpointed(), F.cross_entropy, adam(1e-3)), epochs=12)


@healthy("half precision", "accuracy", 0.94)
def half_precision(seed: int) -> Plan:
    """Numbers of eight bits of mantissa in the forward and the backward pass."""
    return digits_plan(
        Supervised(mlp(64, 128, 128, 10), F.cross_entropy, adam(1e-3)), options={"precision": "bf16-mixed"}
    )


@healthy("dropout .8 on a wide network", "accuracy", 0.94)
def much_dropout(seed: int) -> Plan:
    wide, narrow = nn.Sequential(nn.Linear(64, 1024), nn.ReLU()), nn.Sequential(nn.Linear(1024, 256), nn.ReLU())
    net = nn.Sequential(wide, nn.Dropout(0.8), narrow, nn.Dropout(0.5), nn.Linear(256, 10))
    return digits_plan(Supervised(net, F.cross_entropy, adam(1e-3)), epochs=12)


@healthy("sparse rectifiers", "accuracy", 0.94)
def sparse_rectifiers(seed: int) -> Plan:
    """Biases well under nothing: most units are silent most of the time."""
    net = mlp(64, 256, 256, 10)
    with torch.no_grad():
        for k in (0, 2):
            net[k].weight.normal_(std=(2 / net[k].in_features) ** 0.5)
            net[k].bias.fill_(-1.0)
    return digits_plan(Supervised(net, F.cross_entropy, adam(1e-3)))


class TopUnits(nn.Module):
    """Only the most active units of a layer pass (Makhzani and Frey 2014)."""

    def forward(self, x: Tensor) -> Tensor:
        least = x.topk(16, 1).values[:, -1:]
        return x * (x >= least)


@healthy("most active units only", "accuracy", 0.93)
def top_units(seed: int) -> Plan:
    return digits_plan(
        Supervised(nn.Sequential(nn.Linear(64, 256), TopUnits(), nn.Linear(256, 10)), F.cross_entropy, adam(1e-3))
    )


@healthy("pruned network", "accuracy", 0.93)
def pruned(seed: int) -> Plan:
    """Nine of ten weights are nothing and stay so (Frankle and Carbin 2019)."""
    from torch.nn.utils import prune

    net = mlp(64, 256, 256, 10)
    for layer in (net[0], net[2]):
        prune.random_unstructured(layer, "weight", amount=0.9)
    return digits_plan(Supervised(net, F.cross_entropy, adam(3e-3)))


@healthy("raw pixels behind a batch norm", "accuracy", 0.94)
def raw_pixels(seed: int) -> Plan:
    """Inputs of any scale, as the first layer standardizes them."""
    data, module = digits(), Supervised(nn.Sequential(nn.BatchNorm1d(64), mlp(64, 64, 10)), F.cross_entropy, adam(2e-3))
    x, x_val = (100 + 40 * each for each in (data.x, data.x_val))
    return Plan(
        module,
        shuffled(x, data.y),
        lambda: accuracy(module, x_val, data.y_val),
        in_order(x_val, data.y_val),
        epochs=20,
    )


@healthy("small convolutional network", "accuracy", 0.95)
def plain(seed: int) -> Plan:
    """Nothing is odd about it."""
    return digits_plan(Supervised(convnet(width=8), F.cross_entropy, adam(2e-3)), epochs=12)
