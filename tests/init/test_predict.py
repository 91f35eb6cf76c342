"""Predictions from the weights alone against the measured moments of wide networks."""

import pytest
import torch
from torch import nn

import lightning_tricks.init as lt_init
from lightning_tricks.activations import by_name
from lightning_tricks.nn import MeanOnlyBatchNorm1d, SelfNormalizingMLP, SELUConv2d, Standardize

WIDTH, DEPTH = 2048, 32


@pytest.mark.parametrize(
    ("name", "factor", "published"),
    [("tanh", 5 / 3, 0.424), ("selu", 1.0, 1.0), ("elu", None, 1.0), ("selu", 0.75, 0.0471)],
)
def test_32_layers_of_width_2048(name, factor, published):
    """The second moment at the end: of the theory, within 5 % of a network that ran (of several, for their spread)."""
    factor = lt_init.gain(name) if factor is None else factor
    q = 1.0
    for _ in range(DEPTH):
        q = lt_init.moments(name, 0.0, factor**2 * q).second_moment
    assert q == pytest.approx(published, rel=2e-3)
    generator = torch.Generator().manual_seed(0)
    weight = torch.empty(WIDTH, WIDTH)
    measured = []
    for _ in range(3):
        x = torch.randn(32, WIDTH, generator=generator)
        for _ in range(DEPTH):
            weight.normal_(0, factor / WIDTH**0.5, generator=generator)
            x = by_name(name).bind()(x @ weight.T)
        measured.append(float(x.square().mean()))
    assert sum(measured) / 3 == pytest.approx(q, rel=0.05)


def test_a_prediction_from_actual_weights_follows_each_layer():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(600, 800),
        nn.Tanh(),
        nn.Dropout(0.3),
        nn.Linear(800, 700),
        nn.GELU(),
        nn.LayerNorm(700),
        nn.Linear(700, 900),
    )
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(3).add_(0.002)
                layer.bias.normal_(0.2, 0.5)
    x = 0.3 + 1.5 * torch.randn(2000, 600)
    prediction = lt_init.predict(net, 0.3, 1.5**2)
    assert [row.layer for row in prediction] == [str(i) for i in range(7)]
    for module, row in zip(net, prediction, strict=True):
        x = module(x)
        assert row.mean == pytest.approx(float(x.detach().mean()), abs=0.03)
        assert row.variance == pytest.approx(float(x.detach().var()), rel=0.05)


def test_convolutions_count_without_padding():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(30, 60, 3), nn.ELU(), nn.ConvTranspose2d(60, 50, 4, stride=2, bias=False))
    nn.init.normal_(net[0].bias, 0, 0.5)
    lt_init.lecun_normal_(net[2].weight, fan=lt_init.fans(net[2]))
    x = torch.randn(8, 30, 16, 16)
    for module, row in zip(net, lt_init.predict(net), strict=True):
        x = module(x)
        centre = x[:, :, 4:-4, 4:-4].detach()
        assert row.variance == pytest.approx(float(centre.var()), rel=0.06)
        assert row.mean == pytest.approx(float(centre.mean()), abs=0.05)


def test_the_slope_says_what_a_deviation_becomes():
    """An input with a second moment of 1.02 instead of 1: the output is off by 2 % times all slopes."""
    torch.manual_seed(0)
    layers = []
    for _ in range(6):
        linear = nn.Linear(1500, 1500, bias=False)
        lt_init.variance_scaling_(linear.weight, lt_init.gain("gelu") ** 2)
        layers += [linear, "gelu"]
    low, high = lt_init.predict(layers, 0.0, 1.0), lt_init.predict(layers, 0.0, 1.02)
    product = 1.0
    for row in low:
        if row.slope is not None:
            product *= row.slope
            assert row.verdict == "UNSTABLE"
    assert product > 1.5
    grown = torch.log(torch.tensor(high[-1].second_moment / low[-1].second_moment)) / torch.log(torch.tensor(1.02))
    assert float(grown) == pytest.approx(product, rel=0.05)


def test_the_table():
    torch.manual_seed(0)
    text = str(lt_init.predict(SelfNormalizingMLP(64, [256, 256], 10, dropout=0.05)))
    assert text.splitlines()[0].split() == ["layer", "kind", "mean", "variance", "slope"]
    assert text.count("STABLE") == 2
    assert "UNSTABLE" not in text
    assert "hidden.1.activation" in text
    assert "output" in text
    rows = lt_init.predict([nn.Linear(512, 512), "gelu", nn.Linear(512, 512), torch.relu, nn.BatchNorm1d(512)])
    assert [row.kind for row in rows] == ["Linear", "gelu", "Linear", "relu", "BatchNorm1d"]
    assert [row.verdict for row in rows][1] == "UNSTABLE" if rows[1].slope > 1 else "STABLE"
    assert (rows[-1].mean, rows[-1].variance) == (0.0, 1.0)
    assert len(lt_init.predict(nn.Sequential(SELUConv2d(3, 8, 3), nn.Flatten()))) == 4


def test_what_cannot_be_predicted_is_named():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return x + self.layer(x)

    with pytest.raises(ValueError, match=r"cannot predict layer '1' \(Branch\).*layers in order"):
        lt_init.predict(nn.Sequential(nn.Linear(3, 3), Branch()))
    with pytest.raises(ValueError, match=r"cannot predict layer '0' \(MaxPool1d\)"):
        lt_init.predict([nn.MaxPool1d(2)])
    with pytest.raises(ValueError, match=r"cannot predict layer '1' \(rleu\): unknown activation"):
        lt_init.predict([nn.Linear(3, 3), "rleu"])
    broken = nn.Linear(3, 3)
    broken.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"layer '0' .* not finite"):
        lt_init.predict([broken])


@pytest.mark.parametrize("norm", [MeanOnlyBatchNorm1d, nn.RMSNorm, nn.BatchNorm1d])
def test_normalisations_that_leave_something(norm):
    """Of a mean-only batch norm the scale, of an RMS norm the mean."""
    net = lt_init.initialize(nn.Sequential(nn.Linear(400, 400), norm(400), nn.Linear(400, 400)), "lecun_normal")
    with torch.no_grad():
        net[0].bias.add_(0.5)
        net(x := torch.randn(4000, 400) + 0.5)
        out = net[:2](x)
    predicted = lt_init.predict(net, mean=0.5)[1]
    assert predicted.mean == pytest.approx(float(out.mean()), abs=0.03)
    assert predicted.variance == pytest.approx(float(out.var()), rel=0.03)


def test_the_table_says_what_marginal_and_unstable_are():
    net = nn.Sequential(nn.Linear(64, 64, bias=False), nn.ReLU())
    lines = str(lt_init.predict(net)).splitlines()
    assert lines[2].endswith("MARGINAL")
    assert lines[3].startswith("MARGINAL: a deviation of the second moment stays as it is")
    assert len(lines) == 4


def test_a_module_that_holds_all_weights_in_one_sequential_is_read():
    class Held(nn.Module):
        def __init__(self, *others):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
            self.others = nn.ModuleList(others)
            self.loss = nn.CrossEntropyLoss()

    found = lt_init.predict(Held())
    assert [row.layer for row in found] == ["net.0", "net.1", "net.2"]
    with pytest.raises(ValueError, match=r"cannot predict the model \(Held\).*lightning_tricks.summary"):
        lt_init.predict(Held(nn.Linear(8, 8)))


def test_an_activation_beside_the_sequential_may_run_anywhere():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.act = nn.Sequential(nn.Linear(8, 8)), nn.ReLU()

    with pytest.raises(ValueError, match="cannot predict the model"):
        lt_init.predict(Beside())


def test_what_is_standardised_has_mean_0_and_variance_1_whatever_came_in():
    layers = [nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)]
    raw = nn.Sequential(Standardize.fit(torch.rand(50, 8) * 100), *layers)
    plain = lt_init.predict(nn.Sequential(*layers))
    for found in (lt_init.predict(raw), lt_init.predict(raw, mean=50.0, variance=800.0)):
        assert [(row.mean, row.variance) for row in found][1:] == [(row.mean, row.variance) for row in plain]
