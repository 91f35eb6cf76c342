"""What can be folded is found out; what cannot is left and named."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks.init.report import NoEffectWarning, Report
from lightning_tricks.surgery.batch_norm.fold import fold_batch_norm
from tests.surgery.batch_norm.test_fold import fold, randomize


class Reversed(nn.Module):
    """Registered in the wrong order, functional activation, two branches."""

    def __init__(self):
        super().__init__()
        self.norm2, self.norm1 = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.conv2, self.conv1 = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.norm1(self.conv1(x)))
        return x + self.norm2(self.conv2(x))


@pytest.mark.parametrize("way", ["graph", "run"])
def test_the_order_is_that_of_execution(way):
    x = torch.randn(2, 3, 6, 6)
    _, report, error = fold(randomize(Reversed()), x, batch=x if way == "run" else None)
    assert error <= 1e-5
    assert {entry.layer: entry.what for entry in report.changed} == {
        "norm1": "folded into conv1",
        "norm2": "folded into conv2",
    }


class Wired(nn.Module):
    def __init__(self, wiring):
        super().__init__()
        self.wiring = wiring
        self.conv, self.other = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.norm, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.wiring(self, x)


def stashing(m, x):
    m.features = m.conv(x)
    return m.norm(m.features)


REFUSED = {
    "a shared convolution": (lambda m, x: m.norm(m.conv(x)) + m.second(m.conv(x * 2)), "'conv' is called 2 times"),
    "a shared batch norm": (lambda m, x: m.norm(m.conv(x)) + m.norm(m.other(x)), "called 2 times"),
    "a skip from before batch norm": (lambda m, x: (y := m.conv(x)) + m.norm(y), "output of 'conv' is used 2 times"),
    "an activation between": (lambda m, x: m.norm(F.relu(m.conv(x))).relu(), "no linear or convolution layer"),
    "an in-place activation between": (lambda m, x: m.norm(m.conv(x).relu_()).relu(), "no linear|used 2 times"),
    "the output of batch norm used twice": (
        lambda m, x: (y := m.norm(x.relu())) + m.conv(y),
        "output of 'norm' is used 2 times",
    ),
    "weights used elsewhere": (
        lambda m, x: m.norm(m.conv(x)) + F.conv2d(x, m.conv.weight, padding=1),
        "parameters of 'conv' are used elsewhere",
    ),
}


@pytest.mark.parametrize("way", ["graph", "run"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_would_change_the_output_is_left_and_named(name, way):
    wiring, why = REFUSED[name]
    model = randomize(Wired(wiring))
    x = torch.randn(2, 3, 5, 5)
    before, expected = copy.deepcopy(model.state_dict()), model(x)
    report = Report()
    with pytest.warns(NoEffectWarning, match=why):
        fold_batch_norm(model, x if way == "run" else None, report=report)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(model(x), expected)
    assert "norm" in {entry.layer for entry in report.left}


def test_an_output_that_is_put_aside_counts_as_used():
    model = randomize(Wired(stashing))
    with pytest.warns(NoEffectWarning, match="output of 'conv' is used 2 times"):
        fold_batch_norm(model, torch.randn(2, 3, 5, 5))


def test_asking_for_the_shape_is_no_use():
    def wiring(m, x):
        y = m.conv(x)
        return m.norm(y).view(y.size(0), y.shape[1], -1)

    x = torch.randn(2, 3, 5, 5)
    for batch in (None, x):
        _, report, error = fold(randomize(Wired(wiring)), x, batch=batch)
        assert error <= 1e-5
        assert report.changed[0].layer == "norm"


def test_tied_weights_hooks_and_forwards_of_their_own_are_left():
    tied = Wired(lambda m, x: m.norm(m.conv(x)) + m.second(m.other(x)))
    tied.other = nn.Conv2d(3, 3, 3, padding=1)
    tied.other.weight = tied.conv.weight
    with pytest.warns(NoEffectWarning, match="parameters of 'conv' are used elsewhere"):
        fold_batch_norm(randomize(tied))

    hooked = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    hooked[0].register_forward_hook(lambda *_: None)
    with pytest.warns(NoEffectWarning, match="'0' has forward hooks"):
        fold_batch_norm(randomize(hooked))

    class Standardized(nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)

    class Activated(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x).relu()

    with pytest.warns(NoEffectWarning, match="Standardized with a forward of its own"):
        fold_batch_norm(randomize(nn.Sequential(Standardized(3, 3, 1), nn.BatchNorm2d(3))))
    with pytest.warns(NoEffectWarning, match="Activated has a forward of its own"):
        fold_batch_norm(randomize(nn.Sequential(nn.Conv2d(3, 3, 1), Activated(3))))
    without = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False))
    with pytest.warns(NoEffectWarning, match="no running statistics"):
        fold_batch_norm(without.eval())


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.layer(x if x.sum() > 0 else -x))


@pytest.mark.filterwarnings("ignore:.*looks at the values of its data")
def test_a_forward_that_branches_needs_a_batch():
    model, x = randomize(Branching()), torch.randn(5, 3)
    with pytest.raises(ValueError, match=r"fold_batch_norm: the forward of Branching cannot be read .* pass batch="):
        fold_batch_norm(model)
    assert fold(model, x, batch=x)[2] <= 1e-5
    assert fold(model, x, batch={"x": x}, forward=lambda m, b: m(b["x"]))[2] <= 1e-5
    model.example_input_array = x
    assert fold(model, x)[2] <= 1e-5


class Reading(nn.Module):
    """Looks at something of its own batch norm."""

    def __init__(self, name):
        super().__init__()
        self.layer, self.norm, self.name = nn.Linear(4, 4), nn.BatchNorm1d(4), name

    def forward(self, x):
        value = getattr(self.norm, self.name)
        return self.norm(self.layer(x)) + (value.float().mean() if isinstance(value, torch.Tensor) else value)


@pytest.mark.parametrize("batch", [None, torch.ones(2, 4)], ids=["graph", "run"])
@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var", "num_batches_tracked", "eps"])
def test_a_forward_that_reads_a_batch_norm(name, batch):
    model = randomize(Reading(name)).eval()
    x, report = torch.randn(5, 4), Report()
    expected = model(x)
    if name == "eps":
        fold_batch_norm(model, batch)
    else:
        with pytest.warns(NoEffectWarning, match="the forward reads one of its weights or statistics"):
            fold_batch_norm(model, batch, report=report)
        assert isinstance(model.norm, nn.BatchNorm1d)
    torch.testing.assert_close(model(x), expected)


def test_what_reads_a_folded_batch_norm_later_is_told():
    model = fold_batch_norm(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval())
    assert model[1].num_features == 4
    with pytest.raises(AttributeError, match="was folded into '0' and has no running_var any more"):
        _ = model[1].running_var
    assert not hasattr(copy.deepcopy(model)[1], "weight")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = model[1].nothing


class Deciding(nn.Module):
    """Takes one of two ways; only one of them has the batch norm."""

    def __init__(self, ask):
        super().__init__()
        self.layer, self.norm, self.ask = nn.Linear(4, 4), nn.BatchNorm1d(4), ask

    def forward(self, x):
        way = self.ask(x)
        x = self.layer(x)
        return self.norm(x) if way else x


ASKS = {
    "bool": lambda x: x.sum() < 1e9,
    "item": lambda x: x.sum().item() < 1e9,
    "float": lambda x: float(x.detach().max()) < 1e9,
    "shape": lambda x: x.shape[0] > 0,
}


@pytest.mark.parametrize("name", ASKS)
def test_a_forward_that_looks_at_its_data(name):
    model, x = randomize(Deciding(lambda x: ASKS[name](x))).eval(), torch.randn(3, 4)
    expected = model(x)
    if name == "shape":
        fold_batch_norm(model, x)
    else:
        with pytest.warns(UserWarning, match="looks at the values of its data .* the way that this batch went"):
            fold_batch_norm(model, x)
    torch.testing.assert_close(model(x), expected)
