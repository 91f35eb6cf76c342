"""Data that a network reads otherwise than they are meant: faulty and healthy pairs of networks and batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from sklearn import datasets
from torch import Generator, Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import lightning_tricks as lt

NAMES = ("padding", "channel_axis", "input_statistics", "token_ids")
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
Made = tuple[nn.Module, list[Any]]


def alarms(made: Made) -> set[str]:
    """The experiments of ``NAMES`` that bring a finding above info in a checkup of a few steps."""
    net, batches = made
    found = lt.checkup(net, batches, F.cross_entropy, num_batches=3, experiments=NAMES, progress=False)
    brought = {each.proof.name for each in found.findings if each.rank and each.proof and each.proof.name in NAMES}
    # What the rules have found already is told by the experiment, and not brought once more.
    return brought | {
        each.name for each in found.experiments if "it fits with" in each.answer and each.numbers["as_set"]
    }


def _batches(x: Any, y: Tensor, size: int = 32) -> list[Any]:
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(y) - size + 1, size)]


# --- sequences ----------------------------------------------------------------------------------------------------


class Reader(nn.Module):
    """Sequences of an alphabet, by attention, recurrence, convolution or a mean, with a mask or without."""

    def __init__(self, kind: str, masked: bool) -> None:
        super().__init__()
        self.kind, self.masked = kind, masked
        self.embedding, self.last = nn.Embedding(50, 16), nn.Linear(16, 2)
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.1, batch_first=True)
        bodies: dict[str, Callable[[], nn.Module]] = {
            "transformer": lambda: nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
            "gru": lambda: nn.GRU(16, 16, batch_first=True),
            "lstm": lambda: nn.LSTM(16, 8, batch_first=True, bidirectional=True),
            "pooling": lambda: nn.Linear(16, 1),
            "convolution": lambda: nn.Conv1d(16, 16, 3, padding=1),
            "mean": nn.Identity,
        }
        self.body = bodies[kind]()

    def forward(self, given: Any) -> Tensor:
        ids = given["ids"] if isinstance(given, dict) else given
        x, real = self.embedding(ids), ids != 0
        if self.kind == "transformer":
            x = self.body(x, src_key_padding_mask=~real if self.masked else None)
            x = (x * real[..., None]).sum(1) / real.sum(1, keepdim=True)
        elif self.kind in ("gru", "lstm"):
            lengths = real.sum(1).cpu()
            x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False) if self.masked else x
            state = self.body(x)[1]
            x = state[0] if self.kind == "gru" else torch.cat([state[0][0], state[0][1]], 1)
        elif self.kind == "pooling":
            score = self.body(x)[..., 0]
            score = score.masked_fill(~real, -1e9) if self.masked else score
            x = (score.softmax(1)[..., None] * x).sum(1)
        else:
            x = self.body(x.transpose(1, 2)).amax(2) if self.kind == "convolution" else x.mean(1)
        out: Tensor = self.last(x)
        return out


def sentences(how: str, seed: int) -> list[Any]:
    """Batches with a mask, with lengths, padded to their longest, or all of one length."""
    generator = Generator().manual_seed(seed)
    lengths = (4 - 5 * torch.rand(160, generator=generator).log()).clamp(max=28).long()
    ids = torch.randint(1, 50, (160, 30), generator=generator) * (torch.arange(30) < lengths[:, None])
    batches = _batches(ids, torch.randint(2, (160,), generator=generator))
    if how == "longest":
        return [(x[:, : int((x != 0).sum(1).max())], y) for x, y in batches]
    if how == "mask":
        return [({"ids": x, "mask": x != 0}, y) for x, y in batches]
    return [({"ids": x, "lengths": (x != 0).sum(1)}, y) for x, y in batches] if how == "lengths" else batches


# --- images -------------------------------------------------------------------------------------------------------


def photographs(seed: int, side: int = 32) -> tuple[Tensor, Tensor]:
    """Pieces of the two photographs of scikit-learn, in [0, 1]."""
    generator = Generator().manual_seed(seed)
    whole = [torch.tensor(each).permute(2, 0, 1) / 255 for each in datasets.load_sample_images().images]
    y = torch.arange(128) % 2
    at = (torch.rand(128, 2, generator=generator) * torch.tensor([426 - side, 639 - side])).long().tolist()
    return torch.stack([whole[c][:, a : a + side, b : b + side] for c, (a, b) in zip(y.tolist(), at, strict=True)]), y


def numerals(seed: int) -> tuple[Tensor, Tensor]:
    x, y = datasets.load_digits(return_X_y=True)
    some = torch.randperm(len(y), generator=Generator().manual_seed(seed))[:128]
    return torch.tensor(x).float().view(-1, 1, 8, 8)[some] / 16, torch.tensor(y)[some] % 2


def shapes(seed: int) -> tuple[Tensor, Tensor]:
    """Discs and squares in colours, on noise."""
    generator = Generator().manual_seed(seed)
    y, at = torch.arange(128) % 2, torch.randint(8, 16, (128, 2), generator=generator)
    rows, columns = (torch.arange(24) - at[:, k, None] for k in (0, 1))
    disc = rows[:, :, None] ** 2 + columns[:, None] ** 2 < 36
    square = (rows.abs()[:, :, None] < 5) & (columns.abs()[:, None] < 5)
    inside = torch.where(y.view(-1, 1, 1) == 0, disc, square)[:, None]
    colour, ground = torch.rand(2, 128, 3, 1, 1, generator=generator)
    return torch.where(inside, colour, ground) + 0.05 * torch.randn(128, 3, 24, 24, generator=generator), y


IMAGES = {"photographs": photographs, "digits": numerals, "shapes": shapes}


def convolutions(x: Tensor) -> nn.Module:
    body = nn.Sequential(
        nn.Conv2d(x.shape[1], 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)
    )
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


def read_as(make: Callable[[int], tuple[Tensor, Tensor]], change: Callable[[Tensor], Tensor], seed: int) -> Made:
    x, y = make(seed)
    x = change(x)
    return convolutions(x), _batches(x, y)


def last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


class Tuned(nn.Module):
    """A new head on layers that were trained, which stay as they are, or adapt."""

    def __init__(self, seed: int, *, frozen: bool = True) -> None:
        super().__init__()
        x, self.frozen = photographs(1000 + seed)[0], frozen
        self.body = nn.Sequential(nn.Conv2d(3, 16, 5, bias=False), nn.BatchNorm2d(16, momentum=None), nn.ReLU())
        self.body((x - MEAN) / STD)
        self.body.requires_grad_(not frozen)
        self.head = nn.Linear(16, 2)
        self.train()

    def train(self, mode: bool = True) -> Tuned:
        super().train(mode)
        self.body.train(mode and not self.frozen)
        return self

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x).mean((2, 3)))
        return out


def tuned(change: Callable[[Tensor], Tensor], seed: int, *, frozen: bool = True) -> Made:
    x, y = photographs(seed)
    return Tuned(seed, frozen=frozen), _batches(change(x), y)


def faulty(seed: int) -> Iterator[tuple[str, str, Callable[[], Made]]]:
    """A name, the experiment that is to find it, and the pair."""
    for how, kind in (
        ("mask", "transformer"),
        ("longest", "transformer"),
        ("lengths", "gru"),
        ("longest", "lstm"),
        ("mask", "pooling"),
    ):
        yield (
            f"padding, {kind}, {how}",
            "padding",
            lambda how=how, kind=kind: (Reader(kind, False), sentences(how, seed)),
        )
    for name, make in IMAGES.items():
        yield f"channels last, {name}", "channel_axis", lambda make=make: read_as(make, last, seed)
    for name in ("photographs", "shapes"):
        make = IMAGES[name]
        cut = lambda x: last(x).view(x.shape)  # noqa: E731
        yield f"view for permute, {name}", "channel_axis", lambda make=make, cut=cut: read_as(make, cut, seed)
    yield "not normalised", "input_statistics", lambda: tuned(lambda x: x, seed)
    yield "normalised twice", "input_statistics", lambda: tuned(lambda x: ((x - MEAN) / STD - MEAN) / STD, seed)


def healthy(seed: int) -> Iterator[tuple[str, Callable[[], Made]]]:
    """Networks that read their batches as they are meant."""
    for kind in ("transformer", "gru", "lstm", "pooling"):
        for how in ("mask", "longest", "lengths", "one length"):
            yield f"{kind}, masked, {how}", lambda how=how, kind=kind: (Reader(kind, True), sentences(how, seed))
    for kind in ("transformer", "gru", "convolution", "mean"):
        yield f"{kind}, one length", lambda kind=kind: (Reader(kind, False), sentences("one length", seed))
    for kind in ("convolution", "mean"):
        yield f"{kind}, longest", lambda kind=kind: (Reader(kind, False), sentences("longest", seed))
    for name, make in IMAGES.items():
        yield name, lambda make=make: read_as(make, lambda x: x, seed)
        yield f"{name}, standardised", lambda make=make: read_as(make, lambda x: (x - x.mean()) / x.std(), seed)
    prepared: dict[str, Callable[[Tensor], Tensor]] = {
        "normalised": lambda x: (x - MEAN) / STD,
        "normalised, dark": lambda x: (0.3 * x - MEAN) / STD,
        "normalised, grey": lambda x: (x.mean(1, keepdim=True) - MEAN) / STD,
        "normalised, pale": lambda x: (0.5 + 0.1 * x - MEAN) / STD,
        "normalised, inverted": lambda x: (1 - x - MEAN) / STD,
        "normalised, blurred": lambda x: (F.avg_pool2d(x, 7, 1, 3) - MEAN) / STD,
    }
    for name, change in prepared.items():
        yield f"trained, {name}", lambda change=change: tuned(change, seed)
    yield "trained, adapts", lambda: tuned(lambda x: x, seed, frozen=False)
