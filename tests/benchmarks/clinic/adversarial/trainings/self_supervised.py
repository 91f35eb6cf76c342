"""Trainings whose targets are made from the patterns themselves."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data import load
from ..kind import Plan, healthy
from .modules import Supervised, adam, digits, in_order, mlp, nearest_accuracy, r_squared, shuffled


def view(x: Tensor) -> Tensor:
    """Noise, and a fifth of the pixels hidden."""
    return (x + 0.4 * torch.randn_like(x)) * (torch.rand_like(x) > 0.2)


def _plan(module: Supervised, body: nn.Module, epochs: int) -> Plan:
    data = digits()
    return Plan(
        module,
        shuffled(data.x, data.x, batch=128),
        lambda: nearest_accuracy(body, data),
        in_order(data.x_val, data.x_val, batch=128),
        epochs,
    )


class Contrast(Supervised):
    """Two views of a pattern belong together among all of the batch (InfoNCE; Chen et al. 2020)."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(mlp(64, 128, 64), nn.ReLU(), nn.Linear(64, 32)), F.cross_entropy, adam(1e-3))

    def _loss(self, x: Tensor) -> Tensor:
        one, other = (F.normalize(self.net(view(x)), dim=1) for _ in range(2))
        labels, logits = torch.arange(len(x)), one @ other.T / 0.2
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self._loss(batch[0])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self._loss(batch[0]))


@healthy("InfoNCE", "accuracy of nearest neighbours", 0.9)
def contrast(seed: int) -> Plan:
    module = Contrast()
    return _plan(module, module.net[:-2], 40)


class Bootstrap(Contrast):
    """Foretell what a slow copy makes of another view (Grill et al. 2020); without a copy it is SimSiam."""

    def __init__(self, slow: bool) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 64), nn.BatchNorm1d(64)
        )
        self.predictor = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 64))
        self.target = copy.deepcopy(self.net).requires_grad_(False) if slow else None

    def _loss(self, x: Tensor) -> Tensor:
        views, loss = (view(x), view(x)), torch.zeros(())
        for one, other in (views, views[::-1]):
            if self.target is not None:
                with torch.no_grad():
                    goal = self.target(other)
            else:
                goal = self.net(other).detach()
            loss = loss - F.cosine_similarity(self.predictor(self.net(one)), goal, dim=1).mean() / 2
        return loss

    def on_before_zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        if self.target is not None:
            with torch.no_grad():
                for slow, fast in zip(self.target.parameters(), self.net.parameters(), strict=True):
                    slow.lerp_(fast, 0.02)


@healthy("slow copy as target", "accuracy of nearest neighbours", 0.9)
def slow_copy(seed: int) -> Plan:
    module = Bootstrap(slow=True)
    return _plan(module, module.net, 30)


@healthy("stopped gradient as target", "accuracy of nearest neighbours", 0.9)
def stopped_gradient(seed: int) -> Plan:
    module = Bootstrap(slow=False)
    return _plan(module, module.net, 30)


class Variational(nn.Module):
    """A variational autoencoder (Kingma and Welling 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(64, 64, 2 * 8), mlp(8, 64, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, 1)
        return self.decoder(mean + torch.exp(log_variance / 2) * torch.randn_like(mean)), mean, log_variance


def evidence(output: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
    made, mean, log_variance = output
    divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
    return ((made - x).square().sum(1) / 2 + 0.5 * divergence).mean()


@healthy("variational autoencoder", "R2 of the reconstruction", 0.45)
def variational(seed: int) -> Plan:
    data, module = digits(), Supervised(Variational(), evidence, adam(2e-3))
    return Plan(
        module,
        shuffled(data.x, data.x),
        lambda: r_squared(module(data.x_val)[0], data.x_val),
        in_order(data.x_val, data.x_val),
        epochs=25,
    )


class Diffusion(Supervised):
    """Foretells the noise in a noisy pattern (Ho et al. 2020): its loss stays high, as most of the noise is chance."""

    def __init__(self, steps: int = 50) -> None:
        super().__init__(mlp(3, 64, 64, 2, activation=nn.SiLU), F.mse_loss, adam(2e-3))
        self.register_buffer("kept", torch.cumprod(1 - torch.linspace(1e-3, 0.15, steps), 0))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = batch[0]
        time = torch.randint(len(self.kept), (len(x), 1))
        noise, kept = torch.randn_like(x), self.kept[time]
        seen = kept.sqrt() * x + (1 - kept).sqrt() * noise
        loss = F.mse_loss(self.net(torch.cat([seen, time / len(self.kept)], 1)), noise)
        self.log("train_loss", loss)
        return loss

    def sample(self, count: int) -> Tensor:
        x = torch.randn(count, 2)
        before = torch.cat([torch.ones(1), self.kept[:-1]])
        for k in reversed(range(len(self.kept))):
            alpha = self.kept[k] / before[k]
            noise = self.net(torch.cat([x, torch.full((count, 1), k / len(self.kept))], 1))
            x = (x - (1 - alpha) / (1 - self.kept[k]).sqrt() * noise) / alpha.sqrt()
            x = x + (1 - alpha).sqrt() * torch.randn_like(x) * (k > 0)
        return x


@healthy("diffusion", "share of points that are covered", 0.8)
def diffusion(seed: int) -> Plan:
    from .games import right_and_covered

    data, module = load("moons"), Diffusion()
    return Plan(
        module, shuffled(data.x, batch=100), lambda: right_and_covered(module.sample(600), data.x, 0.4), epochs=150
    )


class Codebook(nn.Module):
    """The nearest of some codes; the gradient goes straight through (van den Oord et al. 2017)."""

    def __init__(self, codes: int = 32, width: int = 4) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(64, 64, 8 * width), mlp(8 * width, 64, 64)
        self.codes, self.width = nn.Parameter(torch.randn(codes, width)), width

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x).view(len(x), -1, self.width)
        code = self.codes[torch.cdist(z, self.codes).argmin(-1)]
        apart = (code - z.detach()).square().mean() + (code.detach() - z).square().mean()
        return self.decoder((z + (code - z).detach()).flatten(1)), apart


@healthy("straight-through codes", "R2 of the reconstruction", 0.4)
def straight_through(seed: int) -> Plan:
    data = digits()
    module = Supervised(Codebook(), lambda output, x: F.mse_loss(output[0], x) + output[1], adam(2e-3))
    return Plan(
        module,
        shuffled(data.x, data.x),
        lambda: r_squared(module(data.x_val)[0], data.x_val),
        in_order(data.x_val, data.x_val),
        epochs=25,
    )
