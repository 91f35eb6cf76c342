"""Words and series: recurrent kernels, language models, forecasts."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...drawn import LIKELY, WORDS, text
from ..kind import Plan, healthy
from .modules import Listed, Supervised, accuracy, adam, digits_plan, in_order, r_squared, shuffled

MASK = WORDS


def _next(logits: Tensor, words: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), words.flatten(), ignore_index=-100)


def _right(logits: Tensor, words: Tensor, first: int = 2) -> float:
    """The share of right words, of that which can be foretold."""
    return float((logits.argmax(-1) == words)[:, first:].float().mean()) / (LIKELY + (1 - LIKELY) / WORDS)


class Recurrent(nn.Module):
    """A language model; ``tied``: its head is its embedding; ``first``: the axis of the batch."""

    def __init__(self, tied: bool = False, width: int = 48, kernel: Any = nn.LSTM) -> None:
        super().__init__()
        self.embed, self.kernel = nn.Embedding(WORDS, width), kernel(width, width, batch_first=True)
        self.head = nn.Linear(width, WORDS)
        if tied:
            nn.init.normal_(self.embed.weight, std=width**-0.5)
            self.head.weight = self.embed.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.kernel(self.embed(words))[0])


def _language_model(module: Supervised, epochs: int, **options: Any) -> Plan:
    words, held = text(3000, 17), text(300, 17)
    return Plan(
        module,
        shuffled(words[:, :-1], words[:, 1:]),
        lambda: _right(module(held[:, :-1]), held[:, 1:]),
        in_order(held[:, :-1], held[:, 1:]),
        epochs,
        options=options,
    )


@healthy("LSTM with Adam and clip .25", "share of the words that can be foretold", 0.9)
def clipped_lstm(seed: int) -> Plan:
    """Most steps are clipped; Adam does not mind."""
    return _language_model(Supervised(Recurrent(), _next, adam(1e-2)), 10, gradient_clip_val=0.25)


@healthy("head tied to the embedding", "share of the words that can be foretold", 0.9)
def tied_head(seed: int) -> Plan:
    return _language_model(Supervised(Recurrent(tied=True, kernel=nn.GRU), _next, adam(5e-3)), 10)


class Stateful(Supervised):
    """Long texts in pieces, in order; the state goes on from piece to piece without a gradient."""

    def __init__(self) -> None:
        super().__init__(Recurrent(kernel=nn.GRU), _next, adam(5e-3))
        self.state: Tensor | None = None

    def on_train_epoch_start(self) -> None:
        self.state = None

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        words, following = batch
        hidden, state = self.net.kernel(self.net.embed(words), self.state)
        self.state = state.detach()
        loss = _next(self.net.head(hidden), following)
        self.log("train_loss", loss)
        return loss


@healthy("stateful recurrent network", "share of the words that can be foretold", 0.9)
def stateful(seed: int) -> Plan:
    words, held, module = text(32, 1601), text(100, 33), Stateful()
    pieces = [(words[:, k : k + 16], words[:, k + 1 : k + 17]) for k in range(0, 1600, 16)]
    return Plan(
        module,
        Listed(pieces),
        lambda: _right(module(held[:, :-1]), held[:, 1:]),
        in_order(held[:, :-1], held[:, 1:]),
        epochs=4,
    )


class TimeFirst(nn.Module):
    """torch's own order of axes, time before batch; the patterns are turned before and back after."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.head = nn.GRU(8, 48), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.kernel(x.view(-1, 8, 8).transpose(0, 1))[0][-1])


@healthy("time-first recurrent network", "accuracy", 0.92)
def time_first(seed: int) -> Plan:
    return digits_plan(Supervised(TimeFirst(), F.cross_entropy, adam(3e-3)), 15)


class Encoder(nn.Module):
    """A transformer; ``prefix`` words see each other, those behind only what was before them; None: all see all."""

    def __init__(self, length: int, prefix: int | None = None, width: int = 32) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(WORDS + 1, width), nn.Parameter(0.1 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(width, 4, 64, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, WORDS)
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
        hidden[:, : prefix or 0] = False
        self.register_buffer("hidden", None if prefix is None else hidden)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(words) + self.place, mask=self.hidden))


def _masked(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Words of which every sixth is hidden, and those as targets."""
    words = text(count, 16)
    hidden = torch.rand(words.shape) < 1 / 6
    return words.masked_fill(hidden, MASK), words.masked_fill(~hidden, -100), hidden


@healthy("masked language model", "share of the words that can be foretold", 0.65)
def masked(seed: int) -> Plan:
    """Only a sixth of the positions has a target."""
    (x, y, _), (x_val, y_val, hidden) = _masked(5000), _masked(500)
    module = Supervised(Encoder(16), _next, adam(5e-3))
    hidden[:, :2] = False
    score = lambda: float((module(x_val).argmax(-1) == y_val)[hidden].float().mean()) / LIKELY  # noqa: E731
    return Plan(module, shuffled(x, y), score, in_order(x_val, y_val), epochs=10)


@healthy("prefix language model", "share of the words that can be foretold", 0.85)
def prefix(seed: int) -> Plan:
    """The first words see each other; only those behind are targets."""
    start = 6

    def draw(count: int) -> tuple[Tensor, Tensor]:
        words = text(count, 17)
        targets = words[:, 1:].clone()
        targets[:, : start - 1] = -100
        return words[:, :-1], targets

    module, (x_val, y_val) = Supervised(Encoder(16, start), _next, adam(3e-3)), draw(300)
    return Plan(
        module, shuffled(*draw(3000)), lambda: _right(module(x_val), y_val, start), in_order(x_val, y_val), epochs=10
    )


class Tagger(nn.Module):
    """Reads from both ends."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(4, 16), nn.Linear(64, 2)
        self.kernel = nn.GRU(16, 32, batch_first=True, bidirectional=True)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.kernel(self.embed(words))[0])


@healthy("tags of words that see all", "accuracy", 0.95)
def tags(seed: int) -> Plan:
    """Whether a word is the one before or after it, which an encoder may look at."""

    def draw(count: int) -> tuple[Tensor, Tensor]:
        words = torch.randint(4, (count, 16))
        same = words[:, 1:] == words[:, :-1]
        return words, (F.pad(same, (1, 0)) | F.pad(same, (0, 1))).long()

    module, (x_val, y_val) = Supervised(Tagger(), _next, adam(5e-3)), draw(300)
    return Plan(module, shuffled(*draw(3000)), lambda: accuracy(module, x_val, y_val), in_order(x_val, y_val), 8)


@healthy("forecast of six steps ahead", "R2", 0.8)
def far_forecast(seed: int) -> Plan:
    """The target is the series itself, six later, on purpose."""
    time = torch.arange(40.0)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        phase, pace = 2 * math.pi * torch.rand(count, 1), 0.3 + 0.3 * torch.rand(count, 1)
        series = torch.sin(pace * time + phase) + 0.1 * torch.randn(count, 40)
        return series[:, :-6, None], series[:, 6:, None]

    class Forecast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel, self.head = nn.GRU(1, 32, batch_first=True), nn.Linear(32, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.kernel(x)[0])

    module, (x_val, y_val) = Supervised(Forecast(), F.mse_loss, adam(5e-3)), draw(200)
    score = lambda: r_squared(module(x_val)[:, 15:], y_val[:, 15:])  # noqa: E731
    return Plan(module, shuffled(*draw(2000)), score, in_order(x_val, y_val), epochs=8)
