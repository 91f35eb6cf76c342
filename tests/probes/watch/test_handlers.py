"""What an activation record says, against plain hooks; which activations are gates."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks.activations import by_function
from lightning_tricks.probes import probe
from tests.probes import networks

torch.manual_seed(0)
MODULES = [nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.2), nn.PReLU(), nn.PReLU(6), nn.ELU(0.7), nn.SELU(), nn.CELU(1.5),
           nn.Tanh(), nn.Sigmoid(), nn.Hardtanh(-0.5, 0.8), nn.Hardsigmoid(), nn.Hardswish(), nn.GELU(),
           nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.Softplus(2.0), nn.Softsign(), nn.LogSigmoid(), nn.Tanhshrink(),
           nn.Softshrink(0.3), nn.Hardshrink(0.4), nn.Threshold(0.2, -1.0), nn.RReLU(0.1, 0.3)]  # fmt: skip
HARD_ZERO = (nn.ReLU, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Softshrink, nn.Hardshrink, nn.Threshold)


@pytest.mark.parametrize("module", MODULES, ids=str)
@pytest.mark.parametrize("shape", [(50, 5), (9, 5, 4, 4), (9, 5, 11)], ids=["features", "images", "sequences"])
def test_measures_against_plain_hooks(module, shape):
    first = {2: nn.Linear(5, 6), 4: nn.Conv2d(5, 6, 2), 3: nn.Conv1d(5, 6, 3)}[len(shape)]
    net = nn.Sequential(first, module).double().eval()
    kept = {}
    x = torch.randn(shape, dtype=torch.float64) * 2
    with probe(net, max_patterns=None) as p:
        handle = module.register_forward_hook(lambda m, args, out: kept.update(a=args[0], x=out))
        net(x).square().sum().backward()
    handle.remove()
    a, out = kept["a"].detach(), kept["x"].detach()
    leaf = a.clone().requires_grad_()
    (slope,) = torch.autograd.grad(module(leaf).sum(), leaf)
    (delta,) = torch.autograd.grad(module(leaf).square().sum(), leaf)

    def units(tensor):
        return np.moveaxis(tensor.numpy(), 1, -1).reshape(-1, 6)

    (record,) = p.snapshot().activations
    assert dict(p.snapshot().not_seen) == {}
    assert (record.name, record.units, record.patterns) == ("1", 6, len(units(a)))
    r = [np.corrcoef(u, v)[0, 1] ** 2 for u, v in zip(units(a).T, units(out).T, strict=True) if v.std() > 0]
    assert record.linearity == pytest.approx(np.mean(r), rel=1e-9)
    assert record.linear_share == pytest.approx(np.mean(np.array(r) > 0.99))
    assert record.mean == pytest.approx(a.mean().item(), rel=1e-9)
    assert record.std == pytest.approx(np.sqrt(units(a).var(0).mean()), rel=1e-9)
    assert record.transmission == pytest.approx(slope.square().mean().item(), rel=1e-7)
    assert record.error_signal == pytest.approx(delta.square().mean().sqrt().item(), rel=1e-9)
    energy = np.square(units(out).mean(0)).sum() / np.square(units(out)).sum(1).mean()
    assert record.mean_energy == pytest.approx(energy, rel=1e-9)
    if isinstance(module, HARD_ZERO):
        active = (units(slope) != 0).mean(0)
        assert record.activity == pytest.approx(active.mean(), rel=1e-9)
        assert record.dead_share == pytest.approx((active < 0.01).mean())
    else:
        assert math.isnan(record.activity)
    counts = np.histogram(a.numpy(), [-np.inf, *np.linspace(-4, 4, 33), np.inf])[0]
    assert sum(record.histogram) == pytest.approx(1)
    if a.numel() <= 2048:
        assert record.histogram == pytest.approx(counts / counts.sum())


def test_saturation_of_tanh_and_sigmoid_is_where_the_slope_is_under_a_twentieth():
    net = nn.Sequential(nn.Linear(3, 40), nn.Tanh(), nn.Linear(40, 40), nn.Sigmoid()).double()
    with torch.no_grad():
        net[0].weight.mul_(5), net[2].weight.mul_(20)
    x = torch.randn(200, 3, dtype=torch.float64)
    with probe(net) as p:
        net(x).sum().backward()
    tanh, sigmoid = p.snapshot().activations
    a, h = net[0](x), torch.tanh(net[0](x))
    assert tanh.saturation == pytest.approx(((1 - torch.tanh(a) ** 2) < 0.05).double().mean().item(), abs=1e-9)
    s = torch.sigmoid(net[2](h))
    assert sigmoid.saturation == pytest.approx((s * (1 - s) < 0.05 * 0.25).double().mean().item(), abs=1e-9)


def test_every_name_under_which_torch_offers_an_activation_is_seen():
    x = torch.randn(20, 4)
    for function, entry in by_function.items():
        arguments = (torch.full((1,), 0.2),) if entry.name == "prelu" else ()
        arguments = (0.0, 0.0) if entry.name == "threshold" else arguments
        net = nn.Sequential(nn.Linear(4, 4))
        with probe(net) as p:
            function(net(x) * 1.0, *arguments)
        records = p.snapshot().activations
        assert [record.function for record in records] == [entry.name], function


class Cell(nn.Module):
    """One use of activations; ``f`` gets two linear maps of the input and this module's parameter s."""

    def __init__(self, f, in_place=False):
        super().__init__()
        self.one, self.two, self.s = nn.Linear(6, 6), nn.Linear(6, 6), nn.Parameter(torch.ones(6))
        self.f = f

    def forward(self, x):
        return self.f(self.one(x), self.two(x), self.s)


def lstm_cell(a, b, s):
    i, f, g = torch.sigmoid(a), torch.sigmoid(b), torch.tanh(a + b)
    c = f * b + i * g
    return torch.sigmoid(a - b) * torch.tanh(c)


def gru_cell(a, b, s):
    z, n = torch.sigmoid(a), torch.tanh(b)
    return z * a + (1 - z) * n


def squeeze_excite(a, b, s):
    h = F.relu(a)
    return h * torch.sigmoid(b)


GATES = {
    "squeeze and excite": (squeeze_excite, {"relu": False, "sigmoid": True}),
    "sigmoid first": (lambda a, b, s: torch.sigmoid(a) * b, {"sigmoid": True}),
    "in place": (lambda a, b, s: (b * 1.0).mul_(torch.sigmoid(a)), {"sigmoid": True}),
    "overwritten": (lambda a, b, s: F.silu(a).mul_(b), {"silu": True}),
    "lstm cell": (lstm_cell, {"sigmoid": True, "sigmoid_2": True, "tanh": True, "sigmoid_3": True, "tanh_2": True}),
    "gru cell": (gru_cell, {"sigmoid": True, "tanh": True}),
    "gates of one call": (
        lambda a, b, s: (lambda i, o: i * o * a[:, :3])(*torch.sigmoid(torch.cat([a, b], 1)[:, :6]).chunk(2, 1)),
        {"sigmoid": True}),
    "gelu_new": (
        lambda a, b, s: 0.5 * a * (1.0 + torch.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a.pow(3)))),
        {"tanh": True}),
    "gated linear unit": (lambda a, b, s: a.view(-1, 1, 6) * torch.sigmoid(b).unsqueeze(1), {"sigmoid": True}),
    "swiglu": (lambda a, b, s: F.silu(a) * b, {"silu": True}),
    "h-swish by hand": (lambda a, b, s: a * F.relu6(a + 3) / 6, {"relu6": True}),
    "dropout": (lambda a, b, s: F.dropout(torch.tanh(a), 0.5), {"tanh": False}),
    "learned scale": (lambda a, b, s: torch.tanh(a) * s, {"tanh": False}),
    "learned scale, viewed": (lambda a, b, s: s.view(1, 6) * torch.tanh(a) + s[None] * torch.sigmoid(b),
                              {"tanh": False, "sigmoid": False}),
    "mask": (lambda a, b, s: torch.sigmoid(a) * (torch.arange(6) > 2), {"sigmoid": False}),
    "float mask": (lambda a, b, s: torch.sigmoid(a) * torch.ones(6), {"sigmoid": False}),
    "number": (lambda a, b, s: 2.0 * torch.sigmoid(a) * torch.tensor(3.0), {"sigmoid": False}),
    "number, then gate": (lambda a, b, s: 2.0 * torch.sigmoid(a) * torch.tensor(3.0) * b, {"sigmoid": True}),
    "layers": (lambda a, b, s: torch.sigmoid(torch.tanh(a) @ torch.ones(6, 6)), {"tanh": False, "sigmoid": False}),
    "added": (lambda a, b, s: torch.tanh(a) + b, {"tanh": False}),
    "of a parameter": (lambda a, b, s: a * F.softplus(s), {"softplus": True}),
}  # fmt: skip


@pytest.mark.parametrize("case", GATES)
def test_gates(case):
    function, expected = GATES[case]
    model = Cell(function)
    with probe(model) as p:
        model(torch.randn(10, 6)).sum().backward()
    assert {r.name: r.gate for r in p.snapshot().activations} == expected


@pytest.mark.parametrize("between", [
    lambda h: F.dropout(h, 0.5), lambda h: h + 1.0, lambda h: h.add_(1.0), lambda h: F.dropout(h, 0.5, inplace=True),
    lambda h: h.t().contiguous().t() * 1.5, lambda h: h, lambda h: h.mul(2.0),
])  # fmt: skip
def test_the_next_layers_input_is_what_it_gets_not_what_the_activation_gave(between):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(5, 6), nn.Linear(6, 3)

        def forward(self, x):
            self.h = between(F.gelu(self.one(x)))
            return self.two(self.h)

    model = Net().double()
    with probe(model) as p:
        model(torch.randn(40, 5, dtype=torch.float64)).sum().backward()
    record, h = p.snapshot().weighted[1], model.h.detach()
    assert record.input_mean == pytest.approx(h.mean().item(), rel=1e-9)
    assert record.input_std == pytest.approx(h.var(0, correction=0).mean().sqrt().item(), rel=1e-9)


def test_follows_only_what_is_linear_in_between():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d, self.e = (nn.Linear(6, 6) for _ in range(5))
            self.norm = nn.BatchNorm1d(6)

        def forward(self, x):
            x = self.b(F.dropout(self.a(x), 0.1).view(-1, 6) + 1)
            x = self.c(torch.relu(self.norm(x)))
            x = self.d(x.mul_(x.detach().sigmoid()))
            return self.e(self.norm(x))

    model = Net()
    with probe(model) as p:
        model(torch.randn(10, 6)).sum().backward()
    assert {r.name: r.follows for r in p.snapshot().weighted} == {"a": None, "b": "a", "c": None, "d": None, "e": "d"}


def test_nothing_follows_a_recurrent_kernel_linearly():
    model = networks.Recurrent()
    with probe(model) as p:
        model(torch.randn(4, 5, 6)).sum().backward()
    assert [(r.name, r.follows) for r in p.snapshot().weighted] == [("lstm", None), ("head", None)]


class SqueezeExcite(nn.Module):
    """The block of Hu et al. 2018: the rectifier of its bottleneck leads to the gate alone."""

    def __init__(self):
        super().__init__()
        self.features, self.squeeze, self.excite = nn.Conv2d(1, 8, 3), nn.Linear(8, 2), nn.Linear(2, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = F.relu(self.features(x))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return self.head((x * gate[:, :, None, None]).mean((2, 3)))


def test_what_only_leads_to_a_gate_is_no_hidden_layer():
    model = SqueezeExcite()
    with probe(model) as p:
        model(torch.randn(6, 1, 8, 8)).sum().backward()
    assert {r.name: r.gate for r in p.snapshot().activations} == {"relu": False, "relu_2": True, "sigmoid": True}


def test_a_layer_that_leads_elsewhere_too_stays_a_layer():
    first, gate, head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)

    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.gate, self.head = first, gate, head

        def forward(self, x):
            x = torch.tanh(self.first(x))
            return self.head(x) * torch.sigmoid(self.gate(x))

    model = Attends()
    with probe(model) as p:
        model(torch.randn(10, 6)).sum().backward()
    assert {r.function: r.gate for r in p.snapshot().activations} == {"tanh": False, "sigmoid": True}


def test_whether_gradients_were_on():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x):
            with torch.no_grad():
                x = self.body(x)
            return self.head(x)

    model = Half()
    with probe(model) as p:
        model(torch.randn(5, 4)).sum().backward()
    assert {r.name: r.with_gradient for r in p.snapshot().weighted} == {"body": False, "head": True}


def test_a_gate_of_one_time_step_is_a_gate_at_all_of_them() -> None:
    """The first step multiplies a state of zeros, which carries no gradient and could as well be a mask."""

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.reset, self.new, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            state = torch.zeros(len(x), 4)
            for _ in range(3):
                state = torch.tanh(self.new(x) + torch.sigmoid(self.reset(x)) * state)
            return self.head(state)

    model = Cell()
    with probe(model) as p:
        model(torch.randn(8, 4)).sum().backward()
    gates = {record.name: record.gate for record in p.snapshot().activations if record.function == "sigmoid"}
    assert gates == {"sigmoid": True, "sigmoid_2": True, "sigmoid_3": True}
