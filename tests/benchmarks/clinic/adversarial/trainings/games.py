"""Networks that play against each other: a loss at the equilibrium is that of a guess."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data import load
from ..kind import Plan, healthy
from .modules import Drawn, accuracy, digits, mlp, shuffled

NOISE = 16


def _generator() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(NOISE, 32 * 4),
        nn.Unflatten(1, (32, 2, 2)),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, 2, 1),
        nn.Tanh(),
    )


def _discriminator() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 4, 2, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(128, 1),
    )


class DCGAN(L.LightningModule):
    """The steps in the order of the well-known example (Radford et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.discriminator = _generator(), _discriminator()
        self.criterion = nn.BCEWithLogitsLoss()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        real = batch[0]
        of_d, of_g = self.optimizers()
        label = torch.ones(len(real))
        self.discriminator.zero_grad()
        of_real = self.criterion(self.discriminator(real)[:, 0], label)
        self.manual_backward(of_real)
        made = self.generator(torch.randn(len(real), NOISE))
        label.fill_(0.0)
        of_made = self.criterion(self.discriminator(made.detach())[:, 0], label)
        self.manual_backward(of_made)
        of_d.step()
        self.generator.zero_grad()
        label.fill_(1.0)
        loss = self.criterion(self.discriminator(made)[:, 0], label)
        self.manual_backward(loss)
        of_g.step()
        self.log_dict({"d_loss": of_real + of_made, "g_loss": loss})

    def configure_optimizers(self) -> Any:
        return (
            torch.optim.Adam(self.discriminator.parameters(), 1e-3, (0.5, 0.999)),
            torch.optim.Adam(self.generator.parameters(), 2e-3, (0.5, 0.999)),
        )


def right_and_covered(made: Tensor, real: Tensor, near: float) -> float:
    """The lesser of two shares: of made patterns near a real one, and of real ones near a made one."""
    apart = torch.cdist(made, real)
    return float(torch.minimum(*((apart.amin(k) < near).float().mean() for k in (0, 1))))


@healthy("DCGAN", "share of digits that are covered", 0.6)
def dcgan(seed: int) -> Plan:
    """The made digits are among the real ones, and everywhere there: as near as held-out real ones, within a half."""
    data = load("digits")
    mean, std = _statistics()
    images = (data.x * std + mean) / 8 - 1
    real, held = images.view(-1, 1, 8, 8), (data.x_val * std + mean) / 8 - 1
    near = 1.25 * float(torch.cdist(held, images).amin(1).quantile(0.9))
    module = DCGAN()

    def score() -> float:
        return right_and_covered(module.generator(torch.randn(len(images), NOISE)).flatten(1), images, near)

    return Plan(module, shuffled(real), score, epochs=20)


def _statistics() -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the pixels, with which the digits were standardized."""
    import numpy as np
    from sklearn.datasets import load_digits

    x = torch.tensor(load_digits().data, dtype=torch.float32)
    order = np.random.default_rng(0).permutation(len(x))
    kept = x[torch.from_numpy(order)][round(0.25 * len(x)) :]
    return kept.mean(0), kept.std(0).clamp_min(1e-3)


class WassersteinGAN(L.LightningModule):
    """Five critic steps with a gradient penalty for one of the generator (Gulrajani et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        leaky = lambda: nn.LeakyReLU(0.2)  # noqa: E731
        self.generator = mlp(2, 64, 64, 2, activation=leaky)
        self.critic = mlp(2, 64, 64, 1, activation=leaky)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        real = batch[0]
        of_c, of_g = self.optimizers()
        made = self.generator(torch.randn(len(real), 2))
        share = torch.rand(len(real), 1)
        between = (share * real + (1 - share) * made.detach()).requires_grad_(True)
        (slope,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        penalty = 1.0 * (slope.norm(dim=1) - 1).square().mean()
        loss = self.critic(made.detach()).mean() - self.critic(real).mean() + penalty
        of_c.zero_grad()
        self.manual_backward(loss)
        of_c.step()
        if batch_idx % 5 == 4:
            of_g.zero_grad()
            self.manual_backward(-self.critic(made).mean())
            of_g.step()
        self.log("critic_loss", loss)

    def configure_optimizers(self) -> Any:
        return (
            torch.optim.Adam(self.critic.parameters(), 2e-3, (0.0, 0.9)),
            torch.optim.Adam(self.generator.parameters(), 2e-3, (0.0, 0.9)),
        )


@healthy("WGAN with gradient penalty", "share of points that are covered", 0.7)
def wgan(seed: int) -> Plan:
    data, module = load("moons"), WassersteinGAN()
    score = lambda: right_and_covered(module.generator(torch.randn(600, 2)), data.x, 0.4)  # noqa: E731
    return Plan(module, Drawn(lambda: (data.x[torch.randint(len(data.x), (200,))],), 1200), score)


class Reversed(torch.autograd.Function):
    """The identity; its gradient is turned round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return -ctx.scale * grads[0], None


class DomainAdversary(L.LightningModule):
    """Features that tell the classes and not the domain (Ganin et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(mlp(64, 64, 32), nn.ReLU())
        self.head, self.domain = nn.Linear(32, 10), mlp(32, 32, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y, other = batch
        z, z_other = self.body(x), self.body(other)
        domain = self.domain(Reversed.apply(torch.cat([z, z_other]), 0.3))[:, 0]
        labels = torch.cat([torch.ones(len(x)), torch.zeros(len(other))])
        of_domain = F.binary_cross_entropy_with_logits(domain, labels)
        loss = F.cross_entropy(self.head(z), y) + of_domain
        self.log_dict({"train_loss": loss, "domain_loss": of_domain})
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 1e-3)


@healthy("domain adversary", "accuracy on the other domain", 0.85)
def domain_adversary(seed: int) -> Plan:
    """The other domain is the digits with an offset and noise on all pixels."""
    data = digits()
    shift = 0.5 * torch.randn(64)
    other, other_val = (x + shift + 0.3 * torch.randn_like(x) for x in (data.x, data.x_val))
    module = DomainAdversary()
    train = shuffled(data.x, data.y, other[torch.randperm(len(other))])
    return Plan(
        module, train, lambda: accuracy(nn.Sequential(module.body, module.head), other_val, data.y_val), epochs=25
    )
