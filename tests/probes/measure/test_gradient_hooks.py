"""Error signals against retain_grad on the pre-activations, and against twins that overwrite nothing."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks.probes import probe

torch.manual_seed(0)


def rms(x):
    return x.double().square().mean().sqrt().item()


class Step(nn.Module):
    """Pre-activations made in some way, then activated; ``self.a`` is what came in, when nothing is overwritten."""

    def __init__(self, before, activate, weight):
        super().__init__()
        self.first = nn.Linear(5, 6)
        self.w = nn.Parameter(torch.randn(weight) * 0.5)
        self.before, self.activate = before, activate

    def forward(self, x):
        a = self.before(self, x)
        if self.activate is None:
            a.retain_grad()
            self.a = a
            a = torch.relu(a)
        else:
            a = self.activate(a)
        return a.pow(3).sum() + (a.cumsum(-1) - 1).square().sum()


BEFORE = {
    "linear": lambda m, x: m.first(x),
    "flatten": lambda m, x: m.first(x.reshape(6, 2, 5)).flatten(1),
    "transpose": lambda m, x: m.first(x.reshape(6, 2, 5)).transpose(1, 2),
    "slice": lambda m, x: m.first(x)[:, :6],
    "half of it": lambda m, x: torch.cat([m.first(x), m.first(x)], 1)[:, 3:9],
    "einsum": lambda m, x: torch.einsum("bi,io->bo", x, m.w),
    "view of a product": lambda m, x: (x @ m.w).view(12, 6, 1),
    "chunk of a split": lambda m, x: torch.cat([m.first(x), m.first(x)], 1).split(6, 1)[1].clone(),
    "shifted": lambda m, x: m.first(x) + 0.25,
    "residual": lambda m, x: m.first(x) + x.sum(1, keepdim=True),
    "residual in place": lambda m, x: m.first(x).add_(x.sum(1, keepdim=True)),
    "scaled in place": lambda m, x: m.first(x).mul_(3.0),
    "batch norm": lambda m, x: F.batch_norm(m.first(x), None, None, training=True),
    "convolution": lambda m, x: F.conv1d(x[:, None], m.w[:, None, :3], padding=1),
    "the input itself": lambda m, x: x.clone()[:, :5] * 1.0 + m.w.sum(),
}
ACTIVATE = {
    "relu": torch.relu,
    "relu_": torch.relu_,
    "F.relu(inplace)": lambda a: F.relu(a, inplace=True),
    "module in place": nn.ReLU(inplace=True),
    "method": lambda a: a.relu_(),
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("activate", ACTIVATE)
def test_delta_of_an_activation(before, activate):
    torch.manual_seed(1)
    model = Step(BEFORE[before], ACTIVATE[activate], (5, 6)).double()
    x = torch.randn(12, 5, dtype=torch.float64)
    twin = copy.deepcopy(model)
    twin.activate = None
    twin(x).backward()
    with probe(model, max_patterns=None) as p:
        model(x).backward()
    snapshot = p.snapshot()
    assert set(snapshot.not_seen) <= {"first"}
    (record,) = snapshot.activations
    assert record.error_signal == pytest.approx(rms(twin.a.grad), rel=1e-9)
    assert record.mean == pytest.approx(twin.a.mean().item(), rel=1e-9)
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert (mine.grad is None and theirs.grad is None) or torch.allclose(mine.grad, theirs.grad, rtol=1e-12)


@pytest.mark.parametrize("overwrite", [
    lambda y: torch.relu_(y), lambda y: torch.relu_(y.view(-1)).view_as(y), lambda y: torch.relu_(y[:, 2:]).sum() + y,
    lambda y: y.mul_(2.0), lambda y: y.view(-1).add_(1.0).view_as(y), lambda y: y.t().tanh_().t(),
    lambda y: torch.sigmoid_(y.flatten()).view_as(y), lambda y: y.neg(),
])  # fmt: skip
def test_delta_of_a_weighted_output_that_is_overwritten_later_is_right_or_missing(overwrite):
    torch.manual_seed(2)
    layer, x = nn.Linear(5, 6).double(), torch.randn(12, 5, dtype=torch.float64)
    y = layer(x)
    y.retain_grad()
    overwrite(y.clone()).pow(2).sum().backward()  # the clone is overwritten; y stays and tells delta
    model = nn.Sequential(layer)
    with probe(model) as p:
        overwrite(model(x)).pow(2).sum().backward()
    (record,) = p.snapshot().weighted
    assert math.isnan(record.error_signal) or record.error_signal == pytest.approx(rms(y.grad), rel=1e-9)


def test_the_ladder_of_a_linear_chain_is_the_closed_form():
    depth, batch = 12, 16
    chain = nn.Sequential(*(nn.Linear(10, 10) for _ in range(depth))).double()
    x = torch.randn(batch, 10, dtype=torch.float64)
    with probe(chain) as p:
        y = chain(x)
        y.square().sum().backward()
    delta = 2 * y.detach()
    for layer, record in reversed(list(zip(chain, p.snapshot().weighted, strict=True))):
        assert record.error_signal == pytest.approx(rms(delta), rel=1e-10)
        delta = delta @ layer.weight.detach()


@pytest.mark.parametrize("units", [nn.Tanh, nn.Sigmoid, nn.ReLU, nn.SELU, nn.GELU])
def test_the_ladder_of_a_deep_network(units):
    layers = [module for _ in range(6) for module in (nn.Linear(8, 8), units())]
    net, x = nn.Sequential(*layers, nn.Linear(8, 1)).double(), torch.randn(20, 8, dtype=torch.float64)
    with probe(net) as p:
        net(x).square().mean().backward()
    a, pre = x, []
    for module in net:
        a = module(a)
        if isinstance(module, nn.Linear):
            a.retain_grad()
            pre.append(a)
    a.square().mean().backward()
    snapshot = p.snapshot()
    assert [r.error_signal for r in snapshot.weighted] == pytest.approx([rms(a.grad) for a in pre], rel=1e-9)
    assert [r.error_signal for r in snapshot.activations] == pytest.approx([rms(a.grad) for a in pre[:-1]], rel=1e-9)


def test_a_signal_fading_below_float32s_squares_is_still_a_number():
    layers = [module for _ in range(40) for module in (nn.Linear(8, 8), nn.Sigmoid())]
    net = nn.Sequential(*layers, nn.Linear(8, 1))
    x = torch.randn(20, 8)
    with probe(net) as p:
        net(x).mean().backward()
    twin = copy.deepcopy(net).double()
    with probe(twin) as q:
        twin(x.double()).mean().backward()
    first, exact = p.snapshot().weighted[0].error_signal, q.snapshot().weighted[0].error_signal
    assert 0 < exact < 1e-22
    assert first == pytest.approx(exact, rel=1e-3)


def test_two_backward_passes_through_one_graph_add_up():
    net, x = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double(), torch.randn(9, 4).double()
    with probe(net) as p:
        y = net(x)
        y.square().sum().backward(retain_graph=True)
        y.exp().sum().backward()
    with probe(net) as q:
        y = net(x)
        (y.square().sum() + y.exp().sum()).backward()
    one, other = p.snapshot(), q.snapshot()
    assert [r.error_signal for r in one.weighted] == pytest.approx([r.error_signal for r in other.weighted], rel=1e-9)
    assert one.loss == pytest.approx(other.loss)


def test_a_retained_graph_that_nobody_uses_again():
    net, x = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double(), torch.randn(9, 4).double()
    with probe(net) as p:
        y = net(x)
        y.square().sum().backward(retain_graph=True)
    (_, last) = p.snapshot().weighted
    assert last.error_signal == pytest.approx(rms(2 * y), rel=1e-9)


def test_micro_batches_count_as_one_batch():
    net, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).double(), torch.randn(12, 4).double()
    with probe(net) as whole:
        net(x).square().sum().backward()
    net.zero_grad()
    with probe(net) as parts:
        for part in x.split([5, 3, 4]):
            parts.new_batch()
            net(part).square().sum().backward()
    expected, merged = whole.snapshot(), parts.snapshot()
    assert [r.name for r in merged.records()] == [r.name for r in expected.records()]
    for one, other in zip(merged.records(), expected.records(), strict=True):
        assert one.measures() == pytest.approx(other.measures(), rel=1e-9, nan_ok=True)
    assert merged.activations[0].histogram == pytest.approx(expected.activations[0].histogram)


def test_gradients_of_a_penalty_are_no_error_signals():
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    x = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    with probe(net) as p:
        y = net(x)
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        (y.mean() + slope.square().mean()).backward()
    a = net[0](x)
    a.retain_grad()
    y = net[2](net[1](a))
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    a.grad = None
    (y.mean() + slope.square().mean()).backward()
    assert p.snapshot().activations[0].error_signal == pytest.approx(rms(a.grad), rel=1e-9)


def test_what_no_gradient_reaches_has_no_error_signal():
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            torch.relu(self.unused(x))
            return torch.relu(self.used(x))

    model = Detached()
    with probe(model) as p:
        model(torch.randn(8, 4)).sum().backward()
    signals = {r.name: r.error_signal for r in (*p.snapshot().weighted, *p.snapshot().activations)}
    assert math.isnan(signals["unused"])
    assert math.isnan(signals["relu"])
    assert signals["used"] > 0
    assert signals["relu_2"] > 0


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(reentrant):
    from tests.probes.networks import Checkpointed

    model = Checkpointed(reentrant).eval().double()
    x = torch.randn(8, 6, dtype=torch.float64)
    with probe(model) as p:
        model(x).square().sum().backward()
    snapshot = p.snapshot()
    assert [r.name for r in snapshot.weighted] == ["first", "block.0", "block.3", "head"]
    assert [r.name for r in snapshot.activations] == ["block.1", "block.4"]
    plain = [model.first(x)]
    for module in model.block:
        plain.append(module(plain[-1]))
    plain.append(model.head(plain[-1]))
    for a in plain:
        a.retain_grad()
    plain[-1].square().sum().backward()
    assert snapshot.weighted[0].error_signal == pytest.approx(rms(plain[0].grad), rel=1e-9)
    inner = [r.error_signal for r in snapshot.weighted[1:3]]
    if reentrant:
        assert all(map(math.isnan, inner))
        assert "reentrant" in snapshot.not_seen["block.0 (error signal)"]
    else:
        assert inner == pytest.approx([rms(plain[1].grad), rms(plain[4].grad)], rel=1e-9)
        assert not snapshot.not_seen


def test_scale_and_ranks_are_taken_off():
    net, x = nn.Linear(4, 2).double(), torch.randn(9, 4).double()
    p = probe(net)
    p.loss_scale, p.ranks = torch.tensor(1024.0), 2
    with p:
        (net(x).square().sum() * 1024.0).backward()
    y = net(x)
    snapshot = p.snapshot()
    assert snapshot.weighted[0].error_signal == pytest.approx(rms(2 * y) / 2, rel=1e-6)
    assert snapshot.loss == pytest.approx(y.square().sum().item(), rel=1e-6)
    assert snapshot.loss_scale == 1024.0
