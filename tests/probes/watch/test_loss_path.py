"""Shapes and identities on the way to the loss: what is broadcast without being asked for, softmaxes, cosines."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.probes import Snapshot, probe

N = 8
Loss = Callable[[Tensor, Tensor], Tensor]


def look(loss: Loss, outputs: int = 1, model: nn.Module | None = None) -> Snapshot:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs)) if model is None else model
    with probe(model) as p:
        loss(model(torch.randn(N, 4)), torch.randn(N)).backward()
    assert not [reason for reason in p.snapshot().not_seen.values() if "could not be" in reason]
    return p.snapshot()


BROADCAST: dict[str, Loss] = {
    "squared difference": lambda o, y: ((o - y) ** 2).mean(),
    "the other way round": lambda o, y: (y - o).pow(2).sum(),
    "torch.sub": lambda o, y: torch.sub(o, y).abs().mean(),
    "log probability times return": lambda o, y: -(F.logsigmoid(o) * y).mean(),
    "returns of another shape": lambda o, y: -(F.logsigmoid(o).squeeze(1) * COLUMN).mean(),
    "a quotient": lambda o, y: (o / (2 + y.abs())).mean(),
    "a power": lambda o, y: (y.abs() ** o).mean(),
    "the smaller": lambda o, y: torch.minimum(o, y).mean(),
    "chosen": lambda o, y: torch.where(y > 0, o, y).mean(),
    "one of two terms": lambda o, y: 0.5 * (o - y).square().mean() + 0.1 * o.square().mean(),
    "a gathered value": lambda o, y: (o.gather(1, torch.zeros(N, 1, dtype=torch.long)) - y).square().mean(),
}
COLUMN = torch.randn(N, 1)


@pytest.mark.parametrize("name", BROADCAST)
def test_outputs_against_all_targets_are_seen(name: str) -> None:
    snapshot = look(BROADCAST[name])
    (record,) = snapshot.broadcasts
    assert {record.output_shape, record.target_shape} == {(N, 1), (N,)}
    assert record.layer == "2"
    assert Snapshot.from_dict(snapshot.to_dict()).broadcasts == (record,)
    assert snapshot.merge(snapshot).broadcasts == (record,)


class Bins(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 1)
        self.register_buffer("bins", torch.linspace(-1, 1, N))
        self.scale = nn.Parameter(torch.ones(N))

    def forward(self, x: Tensor) -> Tensor:
        return (self.scale * (self.net(x) - self.bins)).square().mean(1, keepdim=True)


SILENT: dict[str, Loss] = {
    "equal shapes": lambda o, y: ((o - y[:, None]) ** 2).mean(),
    "squeezed": lambda o, y: ((o[:, 0] - y) ** 2).mean(),
    "all pairs, asked for": lambda o, y: (o[:, 0][:, None] - y).square().mean(),
    "all pairs of both": lambda o, y: (o[:, 0][:, None] - y[None]).square().mean(),
    "a kernel of outputs": lambda o, y: torch.exp(-((o - o[:, 0]) ** 2)).mean(),
    "pairwise ranking": lambda o, y: F.softplus(-(o - o.T) * (y[:, None] - y).sign()).mean(),
    "quantiles": lambda o, y: ((y[:, None] - o) * torch.tensor([0.1])).abs().mean(),
    "a number for all": lambda o, y: (o - y.mean()).square().mean(),
    "a metric": lambda o, y: o.mean() * (1.0 + 0.0 * (o - y).abs().mean().item()),
    "without gradients": lambda o, y: o.mean() + (o.detach() - y).square().mean(),
    "a histogram": lambda o, y: (torch.exp(-((o - y) ** 2)).mean(0) - 0.1).square().mean(),
    "a scale for all": lambda o, y: (o * torch.ones(1)).square().mean(),
}


@pytest.mark.parametrize("name", SILENT)
def test_what_is_meant_so_is_not(name: str) -> None:
    assert not look(SILENT[name]).broadcasts


def test_buffers_and_weights_are_no_targets() -> None:
    assert not look(lambda o, y: o.square().mean(), model=Bins()).broadcasts


def test_one_pattern_cannot_be_told() -> None:
    model = nn.Linear(4, 1)
    with probe(model) as p:
        (model(torch.randn(1, 4)) - torch.randn(1)).square().mean().backward()
    assert not p.snapshot().broadcasts


SOFTMAXES: dict[str, tuple[Callable[[Tensor], Tensor], str, int]] = {
    "functional": (lambda o: F.softmax(o, dim=1), "softmax", 1),
    "torch, keyword": (lambda o: torch.softmax(o, dim=0), "softmax", 0),
    "a tensor's, from behind": (lambda o: o.softmax(-1), "softmax", 1),
    "logarithm": (lambda o: o.log_softmax(1), "log_softmax", 1),
    "by the old rule": (lambda o: F.softmax(o), "softmax", 1),
}


@pytest.mark.filterwarnings("ignore:Implicit dimension")
@pytest.mark.parametrize("name", SOFTMAXES)
def test_softmaxes_tell_their_axis(name: str) -> None:
    call, function, axis = SOFTMAXES[name]
    snapshot = look(lambda o, y: call(o).square().mean(), outputs=3)
    (record,) = snapshot.softmaxes
    assert (record.name, record.function, record.axis) == (function, function, axis)
    assert (record.shape, record.length) == ((N, 3), (N, 3)[axis])
    assert record.scores == ("2" if axis == 1 else None)
    assert record.after == snapshot.weighted[-1].order
    assert Snapshot.from_dict(snapshot.to_dict()).softmaxes == (record,)


def test_of_two_batches_the_longer_axis_counts() -> None:
    model = nn.Linear(4, 3)
    with probe(model) as p:
        for patterns in (1, 6, 2):
            p.new_batch()
            model(torch.randn(patterns, 4)).softmax(0).square().sum().backward()
    assert [record.length for record in p.snapshot().softmaxes] == [6]


class Cosine(nn.Module):
    def __init__(self, product: str) -> None:
        super().__init__()
        self.body, self.head, self.product = nn.Linear(4, 5), nn.Parameter(torch.randn(3, 5)), product
        self.scale = nn.Parameter(torch.tensor(16.0))

    def forward(self, x: Tensor) -> Tensor:
        patterns, weights = F.normalize(self.body(x)), F.normalize(self.head)
        return {
            "matmul": lambda: patterns @ weights.T,
            "linear": lambda: F.linear(patterns, weights),
            "scaled": lambda: 16 * (patterns @ weights.mT),
            "scaled before": lambda: (2.0 * patterns) @ weights.t(),
            "divided": lambda: patterns @ weights.T / 0.07,
            "learned": lambda: self.scale * (patterns @ weights.T),
            "patterns only": lambda: patterns @ self.head.T,
            "among patterns": lambda: patterns @ patterns.T,
        }[self.product]()


@pytest.mark.parametrize(
    ("product", "bound"),
    [("matmul", 1), ("linear", 1), ("scaled", 16), ("scaled before", 2), ("divided", 1 / 0.07), ("learned", math.nan),
     ("patterns only", math.nan), ("among patterns", math.nan)],
)  # fmt: skip
def test_cosines_have_a_bound(product: str, bound: float) -> None:
    snapshot = look(lambda o, y: F.cross_entropy(o, torch.arange(N) % 3), model=Cosine(product))
    assert snapshot.losses[0].bound == pytest.approx(bound, nan_ok=True)
    assert not math.isfinite(bound) or snapshot.losses[0].input_max <= bound
