"""Trainings by reward on a game: their losses are no measure of how well they go."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kind import Plan, healthy
from .catch import ACTIONS, OBSERVED, ROWS, Catch, mean_return
from .modules import Drawn, mlp

MEASURE, NEEDED = "mean return", 0.8


class ByReward(L.LightningModule):
    """A policy network; batches say only that there is one more step."""

    def __init__(self, net: nn.Module, boards: int, lr: float) -> None:
        super().__init__()
        self.net, self.game, self.lr = net, Catch(boards), lr

    def logits(self, seen: Tensor) -> Tensor:
        return self.net(seen)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], self.lr)

    def plan(self, steps: int, **options: Any) -> Plan:
        score = lambda: mean_return(lambda seen: self.logits(seen).argmax(1))  # noqa: E731
        return Plan(self, Drawn(lambda: torch.zeros(1), steps), score, options=options)


class DQN(ByReward):
    """Deep Q-learning with a replay memory and a target network that is renewed now and then (Mnih et al. 2015)."""

    def __init__(self) -> None:
        super().__init__(mlp(OBSERVED, 64, 64, ACTIONS), 32, 1e-3)
        self.target = copy.deepcopy(self.net).requires_grad_(False)
        self.memory: list[tuple[Tensor, ...]] = []

    @torch.no_grad()
    def play(self) -> None:
        """One move on every board, a share of them at random."""
        chance = max(0.1, 1 - self.global_step / 300)
        seen = self.game.observe()
        drawn = torch.randint(ACTIONS, (len(seen),))
        action = torch.where(torch.rand(len(seen)) < chance, drawn, self.net(seen).argmax(1))
        reward, done = self.game.step(action)
        self.memory = [*self.memory[-300:], (seen, action, reward, done, self.game.observe())]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.global_step % 50 == 0:
            self.target.load_state_dict(self.net.state_dict())
        self.play()
        moves = [self.memory[int(k)] for k in torch.randint(len(self.memory), (4,))]
        seen, action, reward, done, then = (torch.cat(parts) for parts in zip(*moves, strict=True))
        value = self.net(seen).gather(1, action[:, None])[:, 0]
        with torch.no_grad():
            goal = reward + 0.95 * self.target(then).amax(1) * ~done
        loss = F.smooth_l1_loss(value, goal)
        self.log("train_loss", loss)
        return loss


@healthy("DQN with a target network", MEASURE, NEEDED)
def dqn(seed: int) -> Plan:
    return DQN().plan(800)


def _to_come(rewards: list[Tensor], done: list[Tensor]) -> Tensor:
    """The reward of each move and of those after it, ``[moves, boards]``."""
    total, found = torch.zeros_like(rewards[-1]), []
    for reward, down in zip(reversed(rewards), reversed(done), strict=True):
        total = reward + total * ~down
        found.append(total)
    return torch.stack(found[::-1])


class Reinforce(ByReward):
    """Log probabilities times returns (Williams 1992); the mean return is the baseline."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.game.restart()
        logs, rewards, done = [], [], []
        for _ in range(ROWS - 1):
            policy = torch.distributions.Categorical(logits=self.net(self.game.observe()))
            action = policy.sample()
            logs.append(policy.log_prob(action))
            reward, down = self.game.step(action)
            rewards.append(reward)
            done.append(down)
        gain = _to_come(rewards, done)
        loss = -(torch.stack(logs) * (gain - gain.mean())).mean()
        self.log("train_loss", loss)
        return loss


@healthy("REINFORCE", MEASURE, NEEDED)
def reinforce(seed: int) -> Plan:
    return Reinforce(mlp(OBSERVED, 64, ACTIONS), 64, 3e-3).plan(400)


class WeightedTargets(ByReward):
    """The same as a cross-entropy whose targets are one-hot rows times returns, so not within 0 and 1."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.game.restart()
        seen, actions, rewards, done = [], [], [], []
        with torch.no_grad():
            for _ in range(ROWS - 1):
                seen.append(self.game.observe())
                actions.append(torch.multinomial(self.net(seen[-1]).softmax(1), 1)[:, 0])
                reward, down = self.game.step(actions[-1])
                rewards.append(reward)
                done.append(down)
        gain = _to_come(rewards, done).flatten()
        targets = F.one_hot(torch.cat(actions), ACTIONS) * gain[:, None]
        loss = F.cross_entropy(self.net(torch.cat(seen)), targets)
        self.log("train_loss", loss)
        return loss


@healthy("REINFORCE by weighted targets", MEASURE, NEEDED)
def weighted_targets(seed: int) -> Plan:
    return WeightedTargets(mlp(OBSERVED, 64, ACTIONS), 64, 3e-3).plan(500)


class TwoHeads(nn.Module):
    """A policy and a value on one body."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(mlp(OBSERVED, 64, 64), nn.Tanh())
        self.policy, self.value = nn.Linear(64, ACTIONS), nn.Linear(64, 1)

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(seen)
        return self.policy(features), self.value(features)[:, 0]


class ActorCritic(ByReward):
    """Policy gradient with a learned value, and a bonus for entropy (Mnih et al. 2016)."""

    def __init__(self, boards: int = 64, lr: float = 2e-3) -> None:
        super().__init__(TwoHeads(), boards, lr)

    def logits(self, seen: Tensor) -> Tensor:
        return self.net(seen)[0]

    @torch.no_grad()
    def play(self) -> tuple[Tensor, ...]:
        """What was seen, done, its log probability, and the return, of a few moves on all boards."""
        rows = []
        for _ in range(ROWS - 1):
            seen = self.game.observe()
            policy = torch.distributions.Categorical(logits=self.logits(seen))
            action = policy.sample()
            reward, done = self.game.step(action)
            rows.append((seen, action, policy.log_prob(action), reward, done))
        seen, action, log, rewards, done = zip(*rows, strict=True)
        rewards[-1].add_(0.95 * self.net(self.game.observe())[1] * ~done[-1])
        return torch.cat(seen), torch.cat(action), torch.cat(log), _to_come(rewards, done).flatten()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        seen, action, _, gain = self.play()
        logits, value = self.net(seen)
        policy = torch.distributions.Categorical(logits=logits)
        actor = -(policy.log_prob(action) * (gain - value.detach())).mean()
        loss = actor + 0.5 * F.mse_loss(value, gain) - 0.01 * policy.entropy().mean()
        self.log("train_loss", loss)
        return loss


@healthy("actor-critic", MEASURE, NEEDED)
def actor_critic(seed: int) -> Plan:
    return ActorCritic().plan(400)


class PPO(ActorCritic):
    """Several passes over the same moves, with a clipped ratio (Schulman et al. 2017); the loader plays."""

    def moves(self) -> Iterator[tuple[Tensor, ...]]:
        while True:
            played = self.play()
            for _ in range(4):
                for part in torch.randperm(len(played[0])).split(96):
                    yield tuple(column[part] for column in played)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        seen, action, before, gain = batch
        logits, value = self.net(seen)
        policy = torch.distributions.Categorical(logits=logits)
        ratio = torch.exp(policy.log_prob(action) - before)
        advantage = gain - value.detach()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        actor = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
        loss = actor + 0.5 * F.mse_loss(value, gain) - 0.01 * policy.entropy().mean()
        self.log("train_loss", loss)
        return loss


@healthy("PPO", MEASURE, NEEDED)
def ppo(seed: int) -> Plan:
    module = PPO(lr=1e-3)
    moves = module.moves()
    plan = module.plan(0, gradient_clip_val=0.5)
    plan.train = Drawn(lambda: next(moves), 800)
    return plan
