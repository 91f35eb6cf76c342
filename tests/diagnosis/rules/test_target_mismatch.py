"""Targets that their loss cannot mean are named with what is to be done to them; unusual ones that it can are not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.diagnosis import diagnose
from lightning_tricks.diagnosis.rules.target_mismatch import find_target_mismatch
from lightning_tricks.probes import Snapshot
from tests.diagnosis.custom import Loss, fit, look, said
from tests.diagnosis.trainings import deep


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def binary(y: Tensor) -> Tensor:
    return (y > 4).float()


def one_hot(y: Tensor) -> Tensor:
    return F.one_hot(y, 10).float()


def several(y: Tensor) -> Tensor:
    """The digit, and the digits that share its remainder by three."""
    return (y[:, None] % 3 == torch.arange(10)[None] % 3).float()


def bce(target: Tensor, output: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(output[:, 0], target)


FAULTS: dict[str, tuple[Loss, str]] = {
    "labels 1 and 2": (lambda o, y: bce(1 + binary(y), o), "target - 1"),
    "labels -1 and 1": (lambda o, y: bce(2 * binary(y) - 1, o), "(target + 1) / 2"),
    "grey values": (lambda o, y: bce(255 * binary(y), o), "target / 255"),
    "labels 0 and 1 for a signed loss": (lambda o, y: F.soft_margin_loss(o[:, 0], binary(y)), "target * 2 - 1"),
    "several classes a row": (lambda o, y: F.cross_entropy(o, several(y)), "binary_cross_entropy_with_logits"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_first_with_its_remedy(name: str) -> None:
    loss, remedy = FAULTS[name]
    history = fit(deep(nn.ReLU, 2), loss, steps=30)
    found = find_target_mismatch(history)
    assert said(found) == [("critical", "4")]
    assert remedy in found[0].remedies[0].text
    stored = [Snapshot.from_dict(snapshot.to_dict()) for snapshot in history]
    assert said(find_target_mismatch(stored)) == said(found)
    assert diagnose(history).findings[0].problem == "target_mismatch"


def mixed(y: Tensor) -> Tensor:
    share = torch.rand(len(y), 1)
    return share * one_hot(y) + (1 - share) * one_hot(y.roll(1))


def returns(output: Tensor, y: Tensor) -> Tensor:
    """REINFORCE through cross_entropy: the action taken, times what came of it."""
    return F.cross_entropy(output, one_hot(y) * (y[:, None] + 1.0))


HEALTHY: dict[str, Loss] = {
    "smoothed": lambda o, y: F.cross_entropy(o, 0.9 * one_hot(y) + 0.01),
    "smoothed by the loss": lambda o, y: F.cross_entropy(o, y, label_smoothing=0.1),
    "mixup": lambda o, y: F.cross_entropy(o, mixed(y)),
    "distilled": lambda o, y: F.cross_entropy(o, (one_hot(y) * 2.0).softmax(1)),
    "one-hot": lambda o, y: F.cross_entropy(o, one_hot(y)),
    "one-hot times return": returns,
    "soft binary": lambda o, y: bce(0.1 + 0.8 * binary(y), o),
    "noisy labels of a GAN": lambda o, y: bce(binary(y) + 0.5 * torch.rand(len(y)) - 0.3, o),
    "all real": lambda o, y: bce(torch.ones(len(y)), o),
    "several labels": lambda o, y: F.binary_cross_entropy_with_logits(o, several(y)),
    "signs under a hinge": lambda o, y: (1 - (2 * binary(y) - 1) * o[:, 0]).relu().mean(),
    "signs": lambda o, y: F.soft_margin_loss(o[:, 0], 2 * binary(y) - 1),
    "values": lambda o, y: F.mse_loss(o[:, 0], y - 4.5),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_unusual_targets_are_silent(name: str) -> None:
    assert not find_target_mismatch(fit(deep(nn.ReLU, 2), HEALTHY[name], steps=30))


TEXT = torch.randint(7, (4000,), generator=torch.Generator().manual_seed(0))


def sequences(count: int, length: int = 24) -> Tensor:
    starts = torch.randint(len(TEXT) - length, (count,))
    return TEXT[starts[:, None] + torch.arange(length)]


class Language(nn.Module):
    """Predicts tokens from tokens; with several heads, tokens farther ahead."""

    def __init__(self, heads: int = 1) -> None:
        super().__init__()
        self.embedding, self.mix = nn.Embedding(8, 16), nn.GRU(16, 16, batch_first=True)
        self.heads = nn.ModuleList(nn.Linear(16, 8) for _ in range(heads))

    def forward(self, tokens: Tensor) -> list[Tensor]:
        hidden = self.mix(self.embedding(tokens))[0]
        return [head(hidden) for head in self.heads]


def flat(logits: Tensor, wanted: Tensor, **options: int) -> Tensor:
    return F.cross_entropy(logits.reshape(-1, 8), wanted.reshape(-1), **options)  # type: ignore[arg-type]


def moved(o: list[Tensor], s: Tensor) -> Tensor:
    """The data are shifted by one already, and the loss shifts once more."""
    return flat(o[0][:, :-1], s[:, 2:])


def ahead(o: list[Tensor], s: Tensor) -> Tensor:
    return torch.stack([flat(logits, s[:, 1 + k : 21 + k]) for k, logits in enumerate(o)]).sum()


SHIFTS = {
    "twice": (1, lambda s: s[:, :-1], moved, 2.0),
    "twice, classes second": (1, lambda s: s[:, :-1], lambda o, s: F.cross_entropy(o[0].mT[..., :-1], s[:, 2:]), None),
    "three": (1, lambda s: s[:, :-3], lambda o, s: flat(o[0], s[:, 3:]), 3.0),
    "next": (1, lambda s: s[:, :-1], lambda o, s: flat(o[0], s[:, 1:]), 1.0),
    "next, cut in the model": (1, lambda s: s, lambda o, s: flat(o[0][:, :-1], s[:, 1:]), 1.0),
    "next, without the first five": (1, lambda s: s, lambda o, s: flat(o[0][:, 5:-1], s[:, 6:]), 1.0),
    "next, cut from behind": (1, lambda s: s, lambda o, s: flat(o[0][..., 5:-1, :], s[:, 6:]), 1.0),
    "next, some ignored": (
        1, lambda s: s[:, :-1], lambda o, s: flat(o[0], s[:, 1:].masked_fill(s[:, 1:] > 4, 7), ignore_index=7), 1.0,
    ),
    "several heads": (3, lambda s: s[:, :-4], ahead, 1.0),
    "a code of the tokens": (1, lambda s: s, lambda o, s: flat(o[0], 6 - s), None),
    "the tokens": (1, lambda s: s, lambda o, s: flat(o[0], s), 0.0),
    "with a period of two": (
        1, lambda s: s[:, :1].expand(-1, 24), lambda o, s: flat(o[0][:, :-2], s[:, :1].expand(-1, 22)), 1.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHIFTS)
def test_tokens_are_to_be_shifted_once(name: str) -> None:
    heads, given, loss, expected = SHIFTS[name]
    model = Language(heads)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step(_: Tensor, __: Tensor, ___: int) -> None:
        tokens = sequences(16)
        optimizer.zero_grad()
        loss(model(given(tokens)), tokens).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    history = look(model, step, [optimizer], steps=8)
    shift = history[-1].losses[0].shift
    assert (shift == expected) if expected is not None else not shift >= 0
    sick = expected is not None and expected >= 2
    assert said(find_target_mismatch(history)) == ([("warning", "heads.0")] if sick else [])
