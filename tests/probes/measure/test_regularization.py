"""The noise of a dropout against many draws; decay and the gradient that arrives against the optimiser itself."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_tricks.probes import Snapshot, probe


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def looked_at(network, x):
    with probe(network) as p:
        network(x).square().mean().backward()
    return next(record for record in p.snapshot().weighted if record.dropout)


@pytest.mark.parametrize("net", [
    nn.Sequential(nn.ReLU(), nn.Dropout(0.7), nn.Linear(12, 20)),
    nn.Sequential(nn.Dropout(0.3), nn.Unflatten(1, (3, 4)), nn.Flatten(), nn.Linear(12, 20)),
    nn.Sequential(nn.SELU(), nn.AlphaDropout(0.4), nn.Linear(12, 20)),
    nn.Sequential(nn.Unflatten(1, (4, 3)), nn.Dropout(0.5), nn.Conv1d(4, 20, 3, groups=2)),
    nn.Sequential(nn.Unflatten(1, (4, 3)), nn.Dropout(0.5), nn.ConvTranspose1d(4, 20, 2, stride=2)),
], ids=["relu", "reshaped", "alpha", "grouped", "transposed"])  # fmt: skip
def test_noise_is_the_variance_over_draws(net):
    x = torch.randn(400, 12) + 0.5
    record = looked_at(net, x)
    with torch.no_grad():
        draws = torch.stack([net(x) for _ in range(200)])
    units = draws.flatten(3) if draws.dim() > 3 else draws.unsqueeze(-1)
    whole = units.transpose(2, 3).flatten(0, 2)
    share = draws.var(0).mean() / whole.var(0).mean()
    assert record.dropout_noise == pytest.approx(float(share), rel=0.1)
    names = [name for name, module in net.named_modules() if "Dropout" in type(module).__name__]
    assert ([record.dropped_by], record.dropout) == (names, next(m.p for m in net.modules() if hasattr(m, "p")))


@pytest.mark.parametrize("between", [lambda x: x.mean(1, keepdim=True), F.relu, lambda x: x + torch.ones(12)])
def test_only_what_reaches_the_layer_unchanged_is_its_dropout(between):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.LazyLinear(3)

        def forward(self, x):
            return self.head(between(F.dropout(x, 0.5)))

    net = Net()
    net(torch.randn(8, 12))
    with probe(net) as p:
        net(torch.randn(8, 12)).sum().backward()
    (record,) = p.snapshot().weighted
    assert (record.dropout, record.dropped_by) == (0.0, None)
    assert math.isnan(record.dropout_noise)


def test_without_training_nothing_is_dropped():
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(12, 3)).eval()
    with probe(net) as p:
        net(torch.randn(8, 12)).sum().backward()
    assert p.snapshot().weighted[0].dropout == 0.0


def stepped(make, between=lambda net: None):
    net = nn.Linear(6, 4)
    optimizer = make(net.parameters())
    x, before = torch.randn(32, 6), net.weight.detach().clone()
    with probe(net, optimizer) as p:
        optimizer.zero_grad()
        net(x).square().mean().backward()
        raw = net.weight.grad.clone()
        between(net)
        optimizer.step()
    snapshot = p.snapshot()
    return snapshot, snapshot.parameters[0], before, raw, net


def rms(x):
    return pytest.approx(float(x.square().mean().sqrt()), rel=1e-4)


def test_decay_by_way_of_the_gradient():
    snapshot, record, before, raw, _ = stepped(lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.3))
    assert (snapshot.training.decays, snapshot.training.decoupled) == ((0.3,), (False,))
    assert record.decay == rms(0.3 * before)
    assert record.decay_share == pytest.approx(float(0.3 * before.norm() / raw.norm()), rel=1e-4)


def test_decay_beside_the_gradient():
    snapshot, record, before, _, net = stepped(lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.3))
    assert snapshot.training.decoupled == (True,)
    assert record.decay == rms(0.1 * 0.3 * before)
    whole, decay = (net.weight.detach() - before).square().sum(), (0.03 * before).square().sum()
    assert record.decay_share == pytest.approx(float((decay / (whole - decay)).sqrt()), rel=1e-3)


def test_decay_that_is_not_known():
    class Own(torch.optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {"lr": 0.1, "weight_decay": 0.3})

        def step(self, closure=None):
            pass

    _, record, *_ = stepped(Own)
    assert math.isnan(record.decay)
    assert math.isnan(record.decay_share)
    _, record, *_ = stepped(lambda p: torch.optim.SGD(p, 0.1))
    assert record.decay == record.decay_share == 0.0


def test_a_gradient_clipped_between_backward_and_step():
    clip = lambda net: nn.utils.clip_grad_norm_([net.weight], 1e-3)  # noqa: E731
    snapshot, record, _, raw, net = stepped(lambda p: torch.optim.SGD(p, 0.1), clip)
    assert record.gradient == rms(raw)
    assert record.arrived == pytest.approx(1e-3 / math.sqrt(24), rel=1e-3)
    assert record.arrived_peak == pytest.approx(float(net.weight.grad.abs().max()))
    assert math.isnan(snapshot.parameters[1].arrived)
    again = Snapshot.from_dict(snapshot.to_dict()).parameters[0]
    assert (again.arrived, again.decay, again.decay_share) == (record.arrived, record.decay, record.decay_share)


def test_a_loss_scaler_clips_nothing():
    net, scaler = nn.Linear(6, 4), torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with probe(net, optimizer) as p:
        scaler.scale(net(torch.randn(32, 6)).square().mean()).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
    record = p.snapshot().parameters[0]
    assert record.gradient == rms(net.weight.grad)
    assert math.isnan(record.arrived)


def test_an_optimizer_that_looks_ahead_writes_to_the_gradient_itself():
    _, record, *_ = stepped(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, foreach=True))
    assert math.isnan(record.arrived)
