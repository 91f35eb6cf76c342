"""Trainings by reward with continuous actions, and a reward for what is new."""

from __future__ import annotations

import copy
from typing import Any

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from torch import Tensor

from ..kind import Plan, healthy
from .modules import Drawn, Supervised, adam, digits, in_order, mlp, shuffled
from .near_chance import area


class Points:
    """Points in the plane are to be moved to the middle; a move costs as much as it leaves to go."""

    def __init__(self, count: int) -> None:
        self.at, self.age = torch.rand(count, 2) * 2 - 1, torch.randint(10, (count,))

    def step(self, action: Tensor) -> Tensor:
        self.at = (self.at + 0.3 * action).clamp(-1.5, 1.5)
        reward, self.age = -self.at.norm(dim=1), self.age + 1
        return reward

    def restart(self) -> None:
        """Those that have moved ten times begin anew."""
        old = self.age >= 10
        self.at = torch.where(old[:, None], torch.rand_like(self.at) * 2 - 1, self.at)
        self.age = torch.where(old, 0, self.age)


class SAC(L.LightningModule):
    """Soft actor-critic with twin critics, slow copies of them and a learned temperature (Haarnoja et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.actor, self.game = mlp(2, 64, 64, 4), Points(32)
        self.critics = torch.nn.ModuleList(mlp(4, 64, 64, 1) for _ in range(2))
        self.slow = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_alpha = torch.zeros((), requires_grad=True)  # in an optimiser and in no module, as people write it
        self.memory: list[tuple[Tensor, ...]] = []

    def draw(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Actions and their log densities."""
        mean, log_std = self.actor(at).chunk(2, 1)
        policy = torch.distributions.Normal(mean, log_std.clamp(-5, 1).exp())
        raw = policy.rsample()
        density = policy.log_prob(raw) - 2 * (0.6931 - raw - F.softplus(-2 * raw))
        return torch.tanh(raw), density.sum(1)

    @torch.no_grad()
    def play(self) -> None:
        at = self.game.at
        action, _ = self.draw(at)
        reward = self.game.step(action)
        self.memory = [*self.memory[-300:], (at, action, reward, self.game.at)]
        self.game.restart()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.play()
        moves = [self.memory[int(k)] for k in torch.randint(len(self.memory), (4,))]
        at, action, reward, then = (torch.cat(parts) for parts in zip(*moves, strict=True))
        of_critics, of_actor, of_alpha = self.optimizers()
        alpha = self.log_alpha.exp().detach()
        with torch.no_grad():
            following, density = self.draw(then)
            values = torch.cat([critic(torch.cat([then, following], 1)) for critic in self.slow], 1)
            goal = reward + 0.9 * (values.amin(1) - alpha * density)
        pairs = torch.cat([at, action], 1)
        loss = sum(F.mse_loss(critic(pairs)[:, 0], goal) for critic in self.critics)
        self._step(of_critics, loss)
        action, density = self.draw(at)
        values = torch.cat([critic(torch.cat([at, action], 1)) for critic in self.critics], 1)
        self._step(of_actor, (alpha * density - values.amin(1)).mean())
        self._step(of_alpha, -(self.log_alpha * (density.detach() - 2.0)).mean())
        with torch.no_grad():
            for slow, fast in zip(self.slow.parameters(), self.critics.parameters(), strict=True):
                slow.lerp_(fast, 0.02)
        self.log("critic_loss", loss)

    def _step(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def configure_optimizers(self) -> Any:
        return (
            torch.optim.Adam(self.critics.parameters(), 2e-3),
            torch.optim.Adam(self.actor.parameters(), 1e-3),
            torch.optim.Adam([self.log_alpha], 1e-2),
        )

    def share_near(self) -> float:
        """Of points that end within .15 of the middle."""
        game = Points(500)
        for _ in range(10):
            game.step(torch.tanh(self.actor(game.at)[:, :2]))
        return float((game.at.norm(dim=1) < 0.15).float().mean())


@healthy("SAC with temperature", "share of points in the middle", 0.9)
def sac(seed: int) -> Plan:
    module = SAC()
    return Plan(module, Drawn(lambda: torch.zeros(1), 500), module.share_near)


class Novelty(Supervised):
    """Random network distillation (Burda et al. 2019): the error in foretelling a random network is the novelty."""

    def __init__(self) -> None:
        super().__init__(mlp(64, 128, 128, 32), self._error, adam(1e-3))
        self.target = mlp(64, 64, 32).requires_grad_(False)

    def _error(self, output: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            goal = self.target(x)
        return F.mse_loss(output, goal)

    def novelty(self, x: Tensor) -> Tensor:
        return (self.net(x) - self.target(x)).square().mean(1)


@healthy("random network distillation", "area under the curve for new classes", 0.85)
def novelty(seed: int) -> Plan:
    data, module = digits(), Novelty()
    known, held = data.x[data.y < 5], data.x_val
    return Plan(
        module,
        shuffled(known, known),
        lambda: area(module.novelty(held), (data.y_val >= 5).float()),
        in_order(held[data.y_val < 5], held[data.y_val < 5]),
        epochs=40,
    )
