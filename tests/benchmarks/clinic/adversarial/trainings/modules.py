"""What many of the trainings share: a supervised module, loaders, figures."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ...data import Data, load
from ..kind import Plan

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Loss = Callable[[Tensor, Tensor], Tensor]


def adam(lr: float = 2e-3, **settings: Any) -> Optimizer:
    return lambda parameters: torch.optim.Adam(parameters, lr, **settings)


class Supervised(L.LightningModule):
    """A network, a loss of its output and the target, an optimiser, a schedule of the learning rate by the step."""

    def __init__(
        self,
        net: nn.Module,
        loss: Loss,
        optimizer: Optimizer | None = None,
        schedule: Callable[[int], float] | None = None,
    ) -> None:
        super().__init__()
        self.net, self.loss = net, loss
        self.optimizer, self.schedule = optimizer or adam(), schedule

    def forward(self, x: Any) -> Any:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = self.loss(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", self.loss(self(x), y))

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer([p for p in self.parameters() if p.requires_grad])
        if self.schedule is None:
            return optimizer
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def mlp(*widths: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers with activations between."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def convnet(outputs: int = 10, width: int = 16) -> nn.Sequential:
    """Two convolutions with batch norm for the digits as images, the mean over space, a head."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * width, outputs),
    )


class Drawn:
    """Batches from a function of nothing, so many an epoch."""

    def __init__(self, draw: Callable[[], Any], count: int) -> None:
        self.draw, self.count = draw, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.count):
            yield self.draw()


class Listed:
    """Batches as they are; a Trainer takes a plain list of validation batches for several loaders."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def shuffled(*tensors: Tensor, batch: int = 64) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*tensors), batch, shuffle=True, drop_last=True)


def in_order(*tensors: Tensor, batch: int = 256) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*tensors), batch)


def digits() -> Data:
    return load("digits")


def digits_plan(module: Supervised, epochs: int = 20, batch: int = 64, **settings: Any) -> Plan:
    """The digits, shuffled, judged by the accuracy on the validation part."""
    data = digits()
    return Plan(
        module,
        shuffled(data.x, data.y, batch=batch),
        lambda: accuracy(module, data.x_val, data.y_val),
        in_order(data.x_val, data.y_val),
        epochs,
        **settings,
    )


def accuracy(net: Callable[[Any], Tensor], x: Any, y: Tensor) -> float:
    return float((net(x).argmax(-1) == y).float().mean())


def r_squared(output: Tensor, y: Tensor) -> float:
    return float(1 - ((output - y) ** 2).mean() / y.var(unbiased=False))


def nearest_accuracy(net: Callable[[Tensor], Tensor], data: Data, neighbours: int = 5) -> float:
    """Of the vote of the nearest training patterns by the angle of what the network makes of them."""
    z, z_val = (nn.functional.normalize(net(x), dim=1) for x in (data.x, data.x_val))
    votes = data.y[(z_val @ z.T).topk(neighbours, 1).indices]
    return float((votes.mode(1).values == data.y_val).float().mean())
