"""Losses that are no mean over patterns, have targets of their own, or a scale."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data import load
from ..kind import Plan, healthy
from .modules import Supervised, accuracy, adam, digits, in_order, mlp, r_squared, shuffled


def _on_digits(module: Supervised, epochs: int = 25) -> Plan:
    data = digits()
    return Plan(
        module,
        shuffled(data.x, data.y),
        lambda: accuracy(module, data.x_val, data.y_val),
        in_order(data.x_val, data.y_val),
        epochs,
    )


@healthy("root mean squared error", "R2", 0.35)
def rmse(seed: int) -> Plan:
    """The root is over the batch."""
    data = load("diabetes")
    module = Supervised(
        mlp(10, 32, 1),
        lambda output, y: torch.sqrt(F.mse_loss(output, y)),
        lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.1),
    )
    return Plan(
        module,
        shuffled(data.x, data.y, batch=32),
        lambda: r_squared(module(data.x_val), data.y_val),
        in_order(data.x_val, data.y_val),
        epochs=20,
    )


def dice(output: Tensor, y: Tensor) -> Tensor:
    """One less twice the overlap over the sum, over the whole batch."""
    p = torch.sigmoid(output)
    return 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)


@healthy("Dice loss", "intersection over union", 0.8)
def segmentation(seed: int) -> Plan:
    """Where in a noisy picture is the disc?"""
    grid = torch.stack(torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij"))

    def draw(count: int) -> tuple[Tensor, Tensor]:
        centre, radius = 3 + 10 * torch.rand(count, 2, 1, 1), 1.5 + 2 * torch.rand(count, 1, 1)
        mask = ((grid - centre).square().sum(1) < radius**2).float()[:, None]
        return mask + 0.4 * torch.randn_like(mask), mask

    net = nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 1, 1)
    )
    module, (x_val, y_val) = Supervised(net, dice, adam(3e-3)), draw(200)

    def score() -> float:
        found = module(x_val) > 0
        return float((found & (y_val > 0)).sum() / (found | (y_val > 0)).sum())

    return Plan(module, shuffled(*draw(800), batch=32), score, in_order(x_val, y_val), epochs=8)


class Mixup(Supervised):
    """Convex mixtures of pairs and of their labels (Zhang et al. 2018)."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        share, order = float(torch.distributions.Beta(0.4, 0.4).sample()), torch.randperm(len(x))
        targets = F.one_hot(y, 10).float()
        mixed = share * x + (1 - share) * x[order], share * targets + (1 - share) * targets[order]
        return super().training_step(mixed, batch_idx)


@healthy("mixup", "accuracy", 0.94)
def mixup(seed: int) -> Plan:
    return _on_digits(Mixup(mlp(64, 128, 10), F.cross_entropy, adam(1e-3)))


@healthy("label smoothing", "accuracy", 0.94)
def smoothing(seed: int) -> Plan:
    """.2 of it, so that the loss ends far above nothing."""
    return _on_digits(Supervised(mlp(64, 128, 10), nn.CrossEntropyLoss(label_smoothing=0.2), adam(1e-3)))


class CosineHead(nn.Module):
    """Scaled cosines with a margin for the right class (Wang et al. 2018); none in evaluation."""

    def __init__(self, width: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.body, self.scale = nn.Sequential(mlp(64, width, width), nn.ReLU()), scale
        self.weight = nn.Parameter(torch.randn(outputs, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(self.body(x), dim=1), F.normalize(self.weight, dim=1))


@healthy("cosine head of scale 16", "accuracy", 0.94)
def cosine_16(seed: int) -> Plan:
    return _on_digits(Supervised(CosineHead(64, 10, 16.0), F.cross_entropy, adam(1e-3)))


@healthy("cosine head of scale 64 with margin", "accuracy", 0.94)
def cosine_64(seed: int) -> Plan:
    """CosFace: the first losses are many times that of a guess."""
    loss = lambda output, y: F.cross_entropy(output - 64 * 0.2 * F.one_hot(y, 10), y)  # noqa: E731
    return _on_digits(Supervised(CosineHead(64, 10, 64.0), loss, adam(1e-3)))


class SoftCap(nn.Module):
    """Logits held within a bound by a tanh (Gemma 2)."""

    def __init__(self, cap: float) -> None:
        super().__init__()
        self.cap = cap

    def forward(self, x: Tensor) -> Tensor:
        return self.cap * torch.tanh(x / self.cap)


@healthy("soft cap on logits", "accuracy", 0.94)
def soft_cap(seed: int) -> Plan:
    return _on_digits(Supervised(nn.Sequential(mlp(64, 64, 10), SoftCap(8.0)), F.cross_entropy, adam(2e-3)), epochs=30)


QUANTILES = torch.tensor([0.1, 0.5, 0.9])


def pinball(output: Tensor, y: Tensor) -> Tensor:
    """``[N, 1]`` less ``[N, 3]``: the dimension is there on purpose."""
    error = y.unsqueeze(1) - output
    return torch.maximum(QUANTILES * error, (QUANTILES - 1) * error).mean()


@healthy("quantile regression", "one less the error of the coverage", 0.93)
def quantiles(seed: int) -> Plan:
    """Noise that grows with the input; the outputs are its quantiles."""

    def draw(count: int) -> tuple[Tensor, Tensor]:
        x = torch.rand(count, 2) * 4 - 2
        return x, torch.sin(2 * x[:, 0]) + (0.1 + 0.3 * x[:, 1].abs()) * torch.randn(count)

    module, (x_val, y_val) = Supervised(mlp(2, 32, 32, 3), pinball, adam(3e-3)), draw(4000)

    def score() -> float:
        low, _, high = module(x_val).unbind(1)
        return 1 - abs(float(((y_val > low) & (y_val < high)).float().mean()) - 0.8)

    return Plan(module, shuffled(*draw(6000)), score, in_order(x_val, y_val), epochs=6)


@healthy("ranking of all pairs", "share of pairs in order", 0.7)
def ranking(seed: int) -> Plan:
    """RankNet within a batch: ``[N, 1]`` less ``[1, N]`` is meant so (Burges et al. 2005)."""
    data = load("diabetes")

    def loss(output: Tensor, y: Tensor) -> Tensor:
        gap, order = output - output.T, torch.sign(y - y.T)
        return F.softplus(-order * gap)[order != 0].mean()

    module = Supervised(mlp(10, 32, 1), loss, lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.1))

    def score() -> float:
        gap, order = module(data.x_val) - module(data.x_val).T, data.y_val - data.y_val.T
        return float((gap * order > 0)[order != 0].float().mean())

    return Plan(module, shuffled(data.x, data.y, batch=32), score, in_order(data.x_val, data.y_val), epochs=15)


@healthy("pairwise distances", "correlation of the distances", 0.85)
def distances(seed: int) -> Plan:
    """A map of the digits in the plane that keeps the distances of all pairs of a batch."""
    data = digits()

    def apart(z: Tensor) -> Tensor:
        return (z[:, None] - z[None] + 1e-6).norm(dim=-1)

    module = Supervised(mlp(64, 128, 6), lambda z, x: F.mse_loss(apart(z), apart(x)), adam(2e-3))

    def score() -> float:
        pair = torch.stack([apart(module(data.x_val)).flatten(), apart(data.x_val).flatten()])
        return float(torch.corrcoef(pair)[0, 1])

    return Plan(module, shuffled(data.x, data.x), score, in_order(data.x_val, data.x_val), epochs=15)
