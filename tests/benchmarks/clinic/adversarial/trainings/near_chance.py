"""Losses that stay near those of a guess, for long or by nature."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kind import Plan, healthy
from .modules import Supervised, accuracy, adam, digits, in_order, mlp, r_squared, shuffled


def _signs(count: int, bits: int) -> Tensor:
    return torch.randint(0, 2, (count, bits)).float() * 2 - 1


@healthy("parity", "accuracy", 0.95)
def parity(seed: int) -> Plan:
    """The parity of 3 of 30 bits: nothing for many steps, then everything (Barak et al. 2022)."""
    x, x_val = _signs(20000, 30), _signs(2000, 30)
    label = lambda bits: (bits[:, :3].prod(1) > 0).long()  # noqa: E731
    module = Supervised(mlp(30, 128, 2), F.cross_entropy, adam(1e-3))
    return Plan(
        module,
        shuffled(x, label(x), batch=128),
        lambda: accuracy(module, x_val, label(x_val)),
        in_order(x_val, label(x_val), batch=1000),
        epochs=9,
    )


@healthy("R2 of .01", "share of the R2 that the data allow", 0.4)
def tiny_r2(seed: int) -> Plan:
    """Returns of which a hundredth can be foreseen, as of stocks."""
    weights = torch.randn(8) / math.sqrt(8)
    x, x_val = torch.randn(40000, 8), torch.randn(40000, 8)
    known, known_val = x @ weights, x_val @ weights
    noise = math.sqrt(99) * float(known.std())
    y, y_val = ((k + noise * torch.randn(len(k)))[:, None] for k in (known, known_val))
    scale = y.std()
    module = Supervised(
        mlp(8, 16, 1, activation=nn.Tanh), F.mse_loss, lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.1)
    )
    return Plan(
        module,
        shuffled(x, y / scale, batch=256),
        lambda: r_squared(module(x_val), y_val / scale) / 0.01,
        in_order(x_val[:5000], y_val[:5000] / scale, batch=1000),
        epochs=4,
    )


class Clicks(nn.Module):
    """Embeddings of who, what and where, then two layers."""

    def __init__(self, sizes: tuple[int, ...], width: int = 8) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        self.tower = mlp(width * len(sizes), 32, 1)
        nn.init.constant_(self.tower[-1].bias, math.log(0.03 / 0.97))

    def forward(self, x: Tensor) -> Tensor:
        return self.tower(torch.cat([table(column) for table, column in zip(self.tables, x.T, strict=True)], 1))[:, 0]


@healthy("click-through", "area under the curve over that of the truth, both from .5", 0.5)
def click_through(seed: int) -> Plan:
    """3 of 100 click; who will is hardly to be foreseen, so that the loss stays near that of the base rate."""
    sizes = (50, 20, 7)
    effects = [0.4 * torch.randn(size) for size in sizes]

    def draw(count: int) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.stack([torch.randint(size, (count,)) for size in sizes], 1)
        logit = sum(effect[column] for effect, column in zip(effects, x.T, strict=True)) - 3.6
        return x, torch.bernoulli(torch.sigmoid(logit)), logit

    (x, y, _), (x_val, y_val, truth) = draw(60000), draw(30000)
    module = Supervised(
        Clicks(sizes), F.binary_cross_entropy_with_logits, lambda p: torch.optim.AdamW(p, 2e-3, weight_decay=0.01)
    )
    return Plan(
        module,
        shuffled(x, y, batch=256),
        lambda: (area(module(x_val), y_val) - 0.5) / (area(truth, y_val) - 0.5),
        in_order(x_val[:5000], y_val[:5000], batch=1000),
        epochs=3,
    )


def area(scores: Tensor, y: Tensor) -> float:
    """The share of pairs of a positive and a negative that are in order."""
    ranks = scores.argsort().argsort().double() + 1
    positives, n = ranks[y > 0.5], len(y)
    k = len(positives)
    return float((positives.sum() - k * (k + 1) / 2) / (k * (n - k)))


@healthy("half of the labels wrong", "accuracy", 0.75)
def half_wrong_labels(seed: int) -> Plan:
    """Half of the labels are drawn at random: the loss stays high, the classes are learned all the same."""
    data = digits()
    wrong = torch.rand(len(data.y)) < 0.5
    y = torch.where(wrong, torch.randint(10, (len(data.y),)), data.y)
    module = Supervised(mlp(64, 64, 10), F.cross_entropy, lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.1))
    return Plan(
        module,
        shuffled(data.x, y),
        lambda: accuracy(module, data.x_val, data.y_val),
        in_order(data.x_val, data.y_val),
        epochs=12,
    )
