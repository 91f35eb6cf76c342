"""Sequences whose targets are the next token: exchanged from a position on, outputs before it have to stay."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.experiments.preflight.dependence import dependence
from lightning_tricks.experiments.preflight.patterns import Collation, NotAskedError
from lightning_tricks.experiments.preflight.tokens import next_tokens
from lightning_tricks.model.isolated import isolated
from lightning_tricks.probes.records.preflight import PreflightRecord
from lightning_tricks.probes.watch.outermost import Wanted

N, T, V, H = 6, 12, 10, 8


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Model(nn.Module):
    """Token embeddings, something that mixes positions, and scores; ``first``: which axis is that of the patterns."""

    def __init__(self, mix: nn.Module | Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(V, H), nn.Linear(H, V)
        self.mix = mix

    def forward(self, ids: Tensor) -> Tensor:
        h = self.mix(self.embed(ids))
        return self.head(h[0] if isinstance(h, tuple) else h)  # type: ignore[no-any-return]


class Attention(nn.Module):
    def __init__(self, causal: bool, prefix: int = 0) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(H, 2, 16, dropout=0.0, batch_first=True)
        self.causal, self.prefix = causal, prefix

    def forward(self, h: Tensor) -> Tensor:
        mask = torch.full((h.shape[1],) * 2, -math.inf).triu(1) if self.causal else None
        if mask is not None:
            mask[:, : self.prefix] = 0.0
        return self.layer(h, mask)  # type: ignore[no-any-return]


class Bidirectional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(H, H // 2, batch_first=True, bidirectional=True)

    def forward(self, h: Tensor) -> Tensor:
        return self.gru(h)[0]  # type: ignore[no-any-return]


class Convolution(nn.Module):
    def __init__(self, left: int, right: int) -> None:
        super().__init__()
        self.conv, self.pad = nn.Conv1d(H, H, 3), (left, right)

    def forward(self, h: Tensor) -> Tensor:
        return self.conv(F.pad(h.transpose(1, 2), self.pad)).transpose(1, 2)  # type: ignore[no-any-return]


def whole() -> Tensor:
    return torch.randint(V, (N, T + 1))


def wanted(numbers: Tensor, ignored: int | None = -100) -> Wanted:
    return Wanted(numbers, ignored, V)


def ask(mix: nn.Module, ids: Tensor, target: Wanted) -> PreflightRecord:
    model = Model(mix)
    with isolated(model, layer_by_layer=True):
        return dependence(model, (ids,), {}, Collation.of((ids, ids)), (target,), model, "lm").record


SEES: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "attention without a mask": (lambda: Attention(causal=False), "lm.mix.layer.self_attn", "attention"),
    "a recurrent layer that also reads from the end": (Bidirectional, "lm.mix.gru", "recurrence"),
    "a convolution padded on both sides": (lambda: Convolution(1, 1), "lm.mix.conv", "convolution"),
}


@pytest.mark.parametrize("name", SEES)
def test_what_sees_later_tokens_is_found(name: str) -> None:
    make, layer, kind = SEES[name]
    x = whole()
    record = ask(make(), x[:, :-1], wanted(x[:, 1:].flatten()))
    assert record.next_tokens == 1.0
    assert record.later > 0.01
    assert record.mixing == 0.0
    assert record.later_place is not None
    assert (record.later_place.layer, record.later_place.kind) == (layer, kind)


BLIND: dict[str, Callable[[], nn.Module]] = {
    "attention": lambda: Attention(causal=True),
    "a recurrent layer": lambda: nn.GRU(H, H, batch_first=True),
    "a convolution padded on the left": lambda: Convolution(2, 0),
}


@pytest.mark.parametrize("name", BLIND)
def test_what_does_not_see_them_changes_nothing(name: str) -> None:
    x = whole()
    record = ask(BLIND[name](), x[:, :-1], wanted(x[:, 1:].flatten()))
    assert record.later == record.mixing == 0.0
    assert record.own > 0.05


def test_time_first_is_told_by_the_values() -> None:
    """A batch of the same length in both ways: only along the axis of time are the targets the next token."""
    x = torch.randint(V, (N + 1, N))
    record = ask(nn.GRU(H, H), x[:-1], wanted(x[1:].flatten()))
    assert record.patterns == N
    assert record.later == record.mixing == 0.0


def test_time_first_read_as_batch_first_mixes() -> None:
    x = torch.randint(V, (T + 1, N))
    record = ask(nn.GRU(H, H, batch_first=True), x[:-1], wanted(x[1:].flatten()))
    assert record.mixing > 0.05
    assert record.place is not None
    assert record.place.kind == "recurrence"
    assert math.isnan(record.later)


def test_the_last_output_cut_off() -> None:
    x = whole()
    assert ask(Attention(causal=False), x, wanted(x[:, 1:].flatten())).later > 0.01
    assert ask(Attention(causal=True), x, wanted(x[:, 1:].flatten())).later == 0.0


@pytest.mark.parametrize("patterns", [1, 2])
def test_few_patterns_are_enough(patterns: int) -> None:
    x = torch.randint(V, (patterns, 40))
    assert ask(Attention(causal=False), x[:, :-1], wanted(x[:, 1:])).later > 0.01
    record = ask(Attention(causal=True), x[:, :-1], wanted(x[:, 1:]))
    assert record.later == 0.0
    assert math.isnan(record.mixing)


def test_only_positions_that_a_loss_reads_count() -> None:
    """A prefix may see all of itself; its outputs are not trained."""
    x = whole()
    target = x[:, 1:].clone()
    target[:, :5] = -100
    assert ask(Attention(causal=True, prefix=6), x[:, :-1], wanted(target)).later == 0.0
    assert ask(Attention(causal=True, prefix=6), x[:, :-1], wanted(x[:, 1:])).later == 0.0  # cut behind the prefix
    assert ask(Attention(causal=False), x[:, :-1], wanted(target)).later > 0.01


NO_NEXT_TOKENS: dict[str, Callable[[Tensor], Tensor]] = {
    "denoised": lambda x: x[:, :-1].where(torch.rand(N, T) > 0.1, 0),
    "tagged": lambda x: (x[:, :-1] * 7 + 3) % V,
    "the token before": lambda x: x[:, :-1].roll(1, 1),
    "one class a sequence": lambda x: x[:, 0],
}


@pytest.mark.parametrize("name", NO_NEXT_TOKENS)
def test_other_targets_are_no_next_tokens(name: str) -> None:
    x = whole()
    assert next_tokens((x[:, :-1],), {}, (wanted(NO_NEXT_TOKENS[name](x)),)) is None


def test_padding_is_no_evidence() -> None:
    """Sequences that are padding for the most part agree with themselves one later: a copy is no next token."""
    x = whole()
    x[:, 4:] = 0
    found = next_tokens((x,), {}, (wanted(x),))
    assert found is not None
    assert found.shift == 0


def test_what_a_masked_model_is_asked_for_does_not_stand_at_its_place() -> None:
    x, masked = torch.randint(1, V, (N, T)), torch.rand(N, T) < 0.5
    assert next_tokens((x.masked_fill(masked, 0),), {}, (wanted(x.where(masked, -100)),)) is None


@pytest.mark.parametrize(("causal", "sees"), [(True, False), (False, True)])
def test_targets_that_are_not_shifted_are_told_from_those_of_an_autoencoder(causal: bool, sees: bool) -> None:
    x = whole()[:, :-1]
    record = ask(Attention(causal), x, wanted(x.flatten()))
    assert record.unshifted == 1.0
    assert math.isnan(record.next_tokens)
    assert (record.later > 0.01) == sees


@pytest.mark.parametrize(("diagonal", "sees"), [(0, True), (-1, False), (-T, False)])
def test_whether_an_output_sees_its_own_place(diagonal: int, sees: bool) -> None:
    """Of places up to its own, of those before (as in MADE), of none at all."""
    x = torch.randn(N, T)
    weight = torch.randn(T, T).tril(diagonal)

    record = dependence(lambda x: x @ weight.T, (x,), {}, Collation.of((x, x)), (Wanted(x),)).record
    assert (record.unshifted, record.later) == (1.0, 0.0)
    assert (record.here > 0.01) == sees


class Values(nn.Module):
    """Of values, ``[patterns, positions, channels]``, so many of the next."""

    def __init__(self, channels: int, asked: int, *, both_ways: bool = False) -> None:
        super().__init__()
        self.gru = nn.GRU(channels, H, batch_first=True, bidirectional=both_ways)
        self.head = nn.Linear(H * (1 + both_ways), asked)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x if x.dim() == 3 else x[..., None])[0])  # type: ignore[no-any-return]


@pytest.mark.parametrize("channels", [0, 1, 3])
@pytest.mark.parametrize("one", [False, True])
@pytest.mark.parametrize("both_ways", [False, True])
def test_series_of_values_are_asked_too(channels: int, one: bool, both_ways: bool) -> None:
    """Of series with several channels, all of the next values may be asked for, or those of one channel."""
    x = torch.randn(N, T + 1, channels) if channels else torch.randn(N, T + 1)
    y = x[:, 1:, -1] if one and channels else x[:, 1:]
    model = Values(max(channels, 1), 1 if one else max(channels, 1), both_ways=both_ways)
    with isolated(model, layer_by_layer=True):
        record = dependence(model, (x[:, :-1],), {}, Collation.of((x, y)), (Wanted(y),), model, "net").record
    assert record.next_tokens == 1.0
    assert (record.later > 0.01) == both_ways
    if both_ways:
        assert record.later_place is not None
        assert record.later_place.layer == "net.gru"


def test_values_that_are_given_back_are_asked_only_where_there_is_one() -> None:
    """A network for every position, which brings many numbers through few, is an autoencoder."""
    for channels, found in ((1, True), (3, False)):
        x = torch.randn(N, T, channels)
        assert (next_tokens((x,), {}, (Wanted(x),)) is not None) == found


def test_tokens_of_another_task_are_asked_as_any_input() -> None:
    ids = torch.randint(V, (N, T))
    model, collation = Model(Attention(causal=False)), Collation.of((ids, torch.zeros(N)))
    with isolated(model, layer_by_layer=True):
        record = dependence(model, (ids,), {}, collation, (wanted(torch.zeros(N).long()),), model).record
    assert record.mixing == 0.0
    assert math.isnan(record.later)
    with pytest.raises(NotAskedError, match="cannot be told"):
        dependence(model, (ids,), {}, Collation.of((ids, ids)))
