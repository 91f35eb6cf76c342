"""Losses of pairs: which of two is better."""

from __future__ import annotations

import copy
from typing import Any

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kind import Plan, healthy
from .modules import digits, in_order, mlp, shuffled

WORDS, LENGTH = 12, 8


class BradleyTerry(L.LightningModule):
    """A reward of which only differences are seen: -log sigmoid of that of the better less that of the worse."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def _loss(self, batch: Any) -> Tensor:
        better, worse = batch
        return -F.logsigmoid(self.net(better) - self.net(worse)).mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self._loss(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self._loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 1e-3)


def _pairs(x: Tensor, y: Tensor, count: int) -> tuple[Tensor, Tensor]:
    one, other = torch.randint(len(x), (2, count))
    one, other = (k[y[one] != y[other]] for k in (one, other))
    first = (y[one] > y[other])[:, None]
    return torch.where(first, x[one], x[other]), torch.where(first, x[other], x[one])


@healthy("Bradley-Terry reward", "share of pairs in order", 0.87)
def bradley_terry(seed: int) -> Plan:
    """A reward model learns from pairs of digits that the greater is the better."""
    data = digits()
    module = BradleyTerry(mlp(64, 64, 1))
    better, worse = _pairs(data.x_val, data.y_val, 1000)
    return Plan(
        module,
        shuffled(*_pairs(data.x, data.y, 5000)),
        lambda: float((module.net(better) > module.net(worse)).float().mean()),
        in_order(better, worse),
        epochs=8,
    )


class WordModel(nn.Module):
    """Logits of the next word from all words before it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.gru, self.head = (
            nn.Embedding(WORDS, 24),
            nn.GRU(24, 32, batch_first=True),
            nn.Linear(32, WORDS),
        )

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.gru(self.embed(words))[0])

    def log_probability(self, words: Tensor) -> Tensor:
        """Of each sequence, given its first word."""
        each = F.log_softmax(self(words[:, :-1]), -1).gather(-1, words[:, 1:, None])
        return each[..., 0].sum(1)


class DPO(L.LightningModule):
    """Direct preference optimisation (Rafailov et al. 2023) against the frozen model that it began as."""

    def __init__(self, policy: WordModel, beta: float = 0.1) -> None:
        super().__init__()
        self.policy, self.beta = policy, beta
        self.reference = copy.deepcopy(policy).requires_grad_(False).eval()

    def margins(self, batch: Any) -> Tensor:
        better, worse = batch
        gain = [self.policy.log_probability(words) - self.reference.log_probability(words) for words in (better, worse)]
        return self.beta * (gain[0] - gain[1])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        margins = self.margins(batch)
        loss = -F.logsigmoid(margins).mean()
        self.log_dict({"train_loss": loss, "reward_accuracy": (margins > 0).float().mean()})
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", -F.logsigmoid(self.margins(batch)).mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.policy.parameters(), 5e-4)


@healthy("direct preference optimisation", "share of pairs in order", 0.85)
def dpo(seed: int) -> Plan:
    """Those of two sequences are better that have more even words; the loss begins at log 2 and falls little."""

    def draw(count: int) -> tuple[Tensor, Tensor]:
        one, other = torch.randint(WORDS, (2, count, LENGTH))
        more = (one % 2 == 0).sum(1) - (other % 2 == 0).sum(1)
        one, other, more = one[more != 0], other[more != 0], more[more != 0]
        first = (more > 0)[:, None]
        return torch.where(first, one, other), torch.where(first, other, one)

    policy, words = WordModel(), torch.randint(WORDS, (64, LENGTH))
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    for _ in range(30):  # it is a language model before
        optimizer.zero_grad()
        (-policy.log_probability(words).mean()).backward()
        optimizer.step()
    optimizer.zero_grad()
    module, pairs = DPO(policy), draw(1000)
    return Plan(
        module, shuffled(*draw(6000)), lambda: float((module.margins(pairs) > 0).float().mean()), in_order(*pairs), 5
    )
