"""Which outputs depend on other patterns, on their own input, on later positions, and by which call."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.experiments.preflight.dependence import dependence
from lightning_tricks.experiments.preflight.patterns import Collation, NotAskedError
from lightning_tricks.model.isolated import isolated
from lightning_tricks.probes.records.preflight import Place, PreflightRecord
from lightning_tricks.probes.watch.outermost import Wanted

N, T, H = 6, 5, 8


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Calls(nn.Module):
    """A network whose forward is a function of itself and its input."""

    def __init__(self, forward: Callable[..., Any], **children: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, *args: Any) -> Any:
        return self.function(self, *args)


def ask(module: nn.Module, *args: Any, targets: tuple[Wanted, ...] = (), batch: Any = None) -> PreflightRecord:
    collation = Collation.of((args, torch.zeros(N)) if batch is None else batch)
    with isolated(module, layer_by_layer=True):
        return dependence(module, args, {}, collation, targets, module, "net").record


def place(record: PreflightRecord) -> Place:
    assert record.place is not None
    return record.place


def series() -> Tensor:
    return torch.randn(N, T, H)


def test_a_mean_within_each_pattern_is_no_mixing() -> None:
    net = Calls(lambda net, x: net.layer(x - x.mean(1, keepdim=True)).mean(1), layer=nn.Linear(H, 2))
    assert ask(net, series()).place is None


@pytest.mark.parametrize("size", [1e-3, 1e-7])
def test_patterns_that_a_loader_put_together_are_followed_however_little_they_mix(size: float) -> None:
    net, x = Calls(lambda net, x: x + size * x.mean(0)), torch.randn(N, H)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), N)
    assert ask(net, x).place is None
    with isolated(net):
        record = dependence(net, (x,), {}, Collation.of((x,), loader), (), net, "net").record
    assert record.collated
    assert (record.place is not None) == (size > 1e-4)


def test_patterns_that_are_told_apart_stay_so() -> None:
    record = ask(nn.Sequential(nn.Linear(H, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(N, H))
    assert record.again == record.mixing == 0.0
    assert record.own > 1.0
    assert record.place is None
    assert math.isnan(record.later)


MIXING: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], str, dict[str, Any]]] = {
    "attention": (
        lambda: Calls(lambda net, x: net.layer(x)[:, 1], layer=nn.TransformerEncoderLayer(H, 2, 16, dropout=0.0)),
        series,
        "net.layer.self_attn",
        {"kind": "attention", "batch_first": False, "inside": "nn.TransformerEncoderLayer"},
    ),
    "recurrence": (
        lambda: Calls(lambda net, x: net.lstm(x)[0][:, -1], lstm=nn.LSTM(H, 4)),
        series,
        "net.lstm",
        {"kind": "recurrence", "batch_first": False, "module": "nn.LSTM"},
    ),
    "view": (
        lambda: Calls(lambda net, x: net.lstm(x.transpose(0, 1))[0].reshape(len(x), -1), lstm=nn.LSTM(H, 4)),
        series,
        "net.reshape",
        {"kind": "view", "input_axis": 1, "output_axis": 0},
    ),
    "softmax module": (
        lambda: nn.Sequential(nn.Linear(H, 3), nn.Softmax(0)),
        lambda: torch.randn(N, H),
        "net.1",
        {"kind": "softmax", "dim": 0, "module": "nn.Softmax"},
    ),
    "softmax of the old rule": (
        lambda: Calls(lambda net, x: x.softmax(dim=-2)),
        lambda: torch.randn(N, H),
        "net",
        {"kind": "softmax", "dim": 0},
    ),
    "cumulation": (
        lambda: Calls(lambda net, x: x.cumsum(0)),
        lambda: torch.randn(N, H),
        "net",
        {"kind": "cumulation", "dim": 0},
    ),
    "normalize": (
        lambda: Calls(lambda net, x: F.normalize(x, dim=0)),
        lambda: torch.randn(N, H),
        "net",
        {"kind": "softmax", "dim": 0},
    ),
    "mean": (
        lambda: Calls(lambda net, x: x - x.mean(0)),
        lambda: torch.randn(N, H),
        "net",
        {"kind": "reduction", "function": "mean", "dim": 0},
    ),
    "mean that passes a layer": (
        lambda: Calls(lambda net, x: x * net.gate(x.mean(dim=(0, 2))).sigmoid()[:, None], gate=nn.Linear(T, T)),
        lambda: torch.randn(N, T, H).mean(2, keepdim=True).expand(N, T, T).clone(),
        "net.mean",
        {"kind": "reduction", "function": "mean", "dim": 0},
    ),
    "mean of everything": (
        lambda: Calls(lambda net, x: net.layer(x) - net.layer(x).mean(), layer=nn.Linear(H, 4)),
        lambda: torch.randn(N, H),
        "net.mean",
        {"kind": "reduction", "function": "mean", "dim": 0},
    ),
    "as many units as patterns": (
        lambda: Calls(lambda net, x: net.layer(x) - net.layer(x).sum(0, keepdim=True) / N, layer=nn.Linear(H, N)),
        lambda: torch.randn(N, H),
        "net.sum",
        {"kind": "reduction", "function": "sum", "dim": 0},
    ),
    "product with the others": (
        lambda: Calls(lambda net, x: (x @ x.T) @ x),
        lambda: torch.randn(N, H),
        "net",
        {"kind": "other", "function": "matmul"},
    ),
    "attention over a set": (
        lambda: Calls(lambda net, x: F.scaled_dot_product_attention(x[None], x[None], x[None])[0]),
        lambda: torch.randn(N, H),
        "net",
        {"kind": "attention", "batch_first": None},
    ),
}


@pytest.mark.parametrize("name", MIXING)
def test_patterns_that_mix_are_found_with_the_call(name: str) -> None:
    make, data, layer, facts = MIXING[name]
    record = ask(make(), data())
    assert record.mixing > 0.05
    assert place(record).layer == layer
    for key, value in facts.items():
        assert getattr(place(record), key) == value, key


def test_a_recurrence_over_the_batch_shows_at_the_last_pattern_only() -> None:
    """Read the wrong way, the first pattern comes before all others."""
    record = ask(Calls(lambda net, x: net.gru(x)[0][:, -1], gru=nn.GRU(H, 4)), series())
    assert record.mixing > 0.05


def test_an_output_that_knows_no_pattern_leads_to_the_call_that_mixes() -> None:
    """A class token in front of every pattern, and attention that runs over the patterns: all of them are alike."""
    token, layer = torch.randn(1, 1, H), nn.TransformerEncoderLayer(H, 2, 16, dropout=0.0)
    record = ask(Calls(lambda net, x: net.layer(torch.cat([token.expand(N, 1, H), x], 1))[:, 0], layer=layer), series())
    assert record.mixing == record.own == 0.0
    assert place(record).kind == "attention"


RIGHT: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "attention": (
        lambda: Calls(lambda net, x: net.layer(x)[:, 0], layer=nn.TransformerEncoderLayer(H, 2, 16, batch_first=True)),
        series,
    ),
    "a class token": (
        lambda: Calls(lambda net, x: net.a(x, x, x)[0].mean(1), a=nn.MultiheadAttention(H, 2, batch_first=True)),
        series,
    ),
    "time first": (lambda: Calls(lambda net, x: net.gru(x)[0][-1], gru=nn.GRU(H, 4)), lambda: torch.randn(T, N, H)),
    "time first inside": (
        lambda: Calls(lambda net, x: net.gru(x.transpose(0, 1))[0].transpose(0, 1), gru=nn.GRU(H, 4)),
        series,
    ),
    "batch norm without running statistics": (
        lambda: nn.Sequential(nn.Linear(H, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2)),
        lambda: torch.randn(N, H),
    ),
    "as many units as patterns": (
        lambda: nn.Sequential(nn.Linear(N, N), nn.ReLU(), nn.Linear(N, N)),
        lambda: torch.randn(N, N),
    ),
    "images": (lambda: nn.Conv2d(3, N, 3, padding=1), lambda: torch.randn(N, 3, N, N)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_networks_do_not_mix(name: str) -> None:
    make, data = RIGHT[name]
    record = ask(make(), data())
    assert record.mixing <= 1e-5
    assert record.own > 0.5


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.state = nn.GRU(H, 4, batch_first=True), None

    def forward(self, x: Tensor) -> Any:
        output, self.state = self.gru(x, self.state)
        return output


REFUSED: dict[str, tuple[nn.Module, tuple[Any, ...], Any, str]] = {
    "state": (Stateful(), (torch.randn(N, T, H),), None, "the same arguments give different outputs"),
    "noise": (
        Calls(lambda net, x: x + torch.randn(x.shape, generator=net.generator)),
        (torch.randn(N, H),),
        None,
        "different outputs",
    ),
    "as many steps as patterns": (nn.GRU(H, 4), (torch.randn(N, N, H),), None, "two axes"),
    "all alike": (nn.Linear(H, 2), (torch.ones(N, H),), None, "all alike"),
    "one pattern": (nn.Linear(H, 2), (torch.ones(1, H),), torch.ones(1, H), "one pattern"),
    "no pattern": (nn.GRU(H, 2), (torch.randn(3, 4, H),), None, "cannot be told"),
    "an object": (Calls(lambda net, x, y: x), (torch.randn(N, H), object()), None, "called with a object"),
    "a loss": (Calls(lambda net, x: x.sum()), (torch.randn(N, H),), None, "no output"),
}
REFUSED["noise"][0].generator = torch.Generator().manual_seed(0)  # type: ignore[assignment]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_asked_says_why(name: str) -> None:
    module, args, batch, reason = REFUSED[name]
    with pytest.raises(NotAskedError, match=reason):
        ask(module, *args, batch=batch if batch is not None else (torch.zeros(N), torch.zeros(N, 2)))


def test_arguments_stay_as_they_were() -> None:
    x = torch.randn(N, H)
    before = x.clone()
    ask(Calls(lambda net, x: x.add_(1.0)), x)
    assert torch.equal(x, before)


def test_one_number_a_pattern() -> None:
    record = ask(Calls(lambda net, x: x.sum(1)), torch.randn(N, H))
    assert record.mixing == 0.0
    assert record.own > 0.5


def test_a_step_may_make_batches_of_its_own() -> None:
    """As from what it remembers: the loader's batch is of another size."""
    record = ask(nn.Linear(H, 2), torch.randn(3 * N + 1, H), batch=torch.zeros(1, H))
    assert record.patterns == 3 * N + 1


def test_arguments_may_be_packed() -> None:
    record = ask(Calls(lambda net, batch: {"y": batch["x"][0] * 2.0}), {"x": (torch.randn(N, H), None), "k": 3})
    assert record.mixing == 0.0
    assert record.own > 0.5
