"""A small GAN: two optimisers, by hand. Healthy where what it makes lies where the data lie, and everywhere there."""

from __future__ import annotations

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import data as datasets
from ..case import Case
from ..data import Data
from ..setup import LEARNING_RATES

NOISE = 4
NEAR = 0.5  # in standard deviations of the data


def gan_data(case: Case) -> Data:
    return datasets.load(case.data)


class Gan(L.LightningModule):
    """Non-saturating losses (Goodfellow et al. 2014), a generator and a critic of two hidden layers each."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        torch.manual_seed(case.seed)
        self.automatic_optimization = False
        features = gan_data(case).features
        self.net = _stack(NOISE, features, nn.ReLU)
        self.critic = _stack(features, 1, lambda: nn.LeakyReLU(0.2))
        self.case = case
        self.losses: list[Tensor] = []
        self.validation: list[tuple[int, float, float]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        real = batch[0]
        critic, generator = self.optimizers()
        made = self.net(torch.randn(len(real), NOISE))
        loss = (F.softplus(-self.critic(real)) + F.softplus(self.critic(made.detach()))).mean()
        self._step(critic, loss)
        self._step(generator, F.softplus(-self.critic(made)).mean())
        self.losses.append(loss.detach())

    def _step(self, optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self.case.clip:
            self.clip_gradients(optimizer, self.case.clip, "norm")
        optimizer.step()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        real = batch[0]
        made = self.net(torch.randn(len(real), NOISE, generator=torch.Generator().manual_seed(0)))
        apart = torch.cdist(made, real)
        right = (apart.min(1).values < NEAR).float().mean()
        covered = (apart.min(0).values < NEAR).float().mean()
        self.validation.append((len(self.losses), float(self.losses[-1]), float(torch.minimum(right, covered))))

    def configure_optimizers(self):
        lr = LEARNING_RATES["adam"] * self.case.lr
        betas = (0.5, 0.999)
        return (
            torch.optim.Adam(self.critic.parameters(), lr, betas),
            torch.optim.Adam(self.net.parameters(), lr, betas),
        )


def _stack(inputs: int, outputs: int, activation) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 64), activation(), nn.Linear(64, 64), activation(), nn.Linear(64, outputs))
