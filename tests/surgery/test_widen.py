"""widen_for_dropout: the widths, the dropout, the function that copies keep, what is left alone."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import lightning_tricks as lt
from lightning_tricks.surgery import NoEffectWarning, Report, widen_for_dropout


def mlp(act=nn.ReLU):
    return nn.Sequential(nn.Linear(6, 8), act(), nn.Linear(8, 5), act(), nn.Linear(5, 3))


def cnn():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3), nn.LeakyReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(6 * 4, 8), nn.Tanh(),
        nn.Linear(8, 3),
    )  # fmt: skip


def widths(model):
    return [tuple(m.weight.shape[:2]) for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]


@pytest.mark.parametrize(("p", "first", "second"), [(0.5, 16, 10), (0.2, 10, 6), (0.75, 32, 20), (0.0, 8, 5)])
def test_the_units_that_are_left_are_as_many_as_before(p, first, second):
    model, report = mlp(), Report()
    assert widen_for_dropout(model, p, report=report) is model
    assert widths(model) == [(first, 6), (second, first), (3, second)]
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [p, p]
    assert [entry.layer for entry in report.changed] == ["0", "2"]
    assert [(entry.layer, entry.what.split(":")[0]) for entry in report.left] == [("4", "an output")]
    model(torch.randn(7, 6)).sum().backward()
    copy.deepcopy(model), pickle.dumps(model)
    assert f"out_features={first}" in repr(model)


@pytest.mark.parametrize("p", [0.5, 0.3, 0.8])
@pytest.mark.parametrize(("make", "shape"), [(mlp, (5, 6)), (cnn, (5, 2, 8, 8))])
def test_copied_units_keep_the_function(make, shape, p):
    model, x = make().double(), torch.randn(*shape, dtype=torch.float64)
    for _ in range(3):
        model(x)
    before = model.eval()(x)
    widen_for_dropout(model, p, weights="copied")
    torch.testing.assert_close(model(x), before)
    assert not torch.allclose(model.train()(x), before)
    (model(x).sum()).backward()


def test_convolutions_batch_norms_and_what_is_flattened():
    model = widen_for_dropout(cnn(), 0.5)
    assert widths(model) == [(8, 2), (12, 8), (16, 12 * 4), (3, 16)]
    assert model[1].num_features == 8
    assert model[6].p == 0.5
    assert sum(isinstance(m, nn.Dropout) for m in model.modules()) == 3
    assert float(model[1].running_var.sub(1).abs().sum()) == 0


@pytest.mark.parametrize(
    "norm", [lt.nn.MeanOnlyBatchNorm1d, lt.nn.BatchRenorm1d, lambda n: lt.nn.GhostBatchNorm1d(n, ghost_size=4)]
)
@pytest.mark.parametrize("weights", ["copied", "new"])
def test_any_batch_norm_is_widened(norm, weights):
    model = nn.Sequential(nn.Linear(6, 8), norm(8), nn.ReLU(), nn.Linear(8, 3)).double()
    x = torch.randn(16, 6, dtype=torch.float64)
    for _ in range(3):
        model(x)
    before = model.eval()(x)
    widen_for_dropout(model, 0.5, weights=weights)
    assert all(value.shape in ((16,), ()) for value in model[1].state_dict().values())
    if weights == "copied":
        torch.testing.assert_close(model(x), before)
    model.train()(x).sum().backward()


def test_a_batch_norm_of_what_is_flattened_has_the_features_of_each_unit():
    model = nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.Flatten(), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
    model, x = model.double(), torch.randn(16, 2, 3, dtype=torch.float64)
    for _ in range(3):
        model(x)
    before = model.eval()(x)
    torch.testing.assert_close(widen_for_dropout(model, 0.4, weights="copied")(x), before)
    assert model[2].num_features == 9


def test_new_weights_are_as_torch_begins_them():
    torch.manual_seed(0)
    model = widen_for_dropout(nn.Sequential(nn.Linear(100, 200), nn.ReLU(), nn.Linear(200, 10)), 0.5)
    assert float(model[2].weight.detach().std()) == pytest.approx((3 * 400) ** -0.5, rel=0.05)
    assert len(torch.unique(model[0].weight, dim=0)) == 400


def test_behind_selu_it_is_alpha_dropout():
    model = widen_for_dropout(mlp(nn.SELU), 0.5)
    drops = [m for m in model.modules() if isinstance(m, lt.nn.AlphaDropout)]
    assert [drop.p for drop in drops] == [lt.nn.matched_p(0.5)] * 2


def test_the_optimiser_is_told():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    widen_for_dropout(model, optimizer=optimizer)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}
    before = model[0].weight.clone()
    F.cross_entropy(model(torch.randn(8, 6)), torch.zeros(8).long()).backward()
    optimizer.step()
    assert not torch.equal(model[0].weight, before)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.act, self.second, self.third = nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.third(self.second(self.act(self.first(x))) + x)


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.second(F.relu(self.first(x)))


def tied():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    model[2].weight = model[0].weight
    return model


SHARED = nn.ReLU()


@pytest.mark.parametrize(
    ("model", "changed", "left"),
    [
        (Residual(), ["first"], {"second": "goes elsewhere", "third": "an output"}),
        (tied(), [], {"0": "used elsewhere", "2": "used elsewhere", "4": "an output"}),
        (nn.Sequential(nn.Linear(6, 4), nn.Softmax(1), nn.Linear(4, 2)), [], {"0": "goes elsewhere"}),
        (nn.Sequential(nn.Linear(6, 4), nn.PReLU(4), nn.Linear(4, 2)), [], {"0": "a parameter for each unit"}),
        (nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2)), [], {"0": "no activation"}),
        (
            nn.Sequential(nn.Linear(6, 4), SHARED, nn.Linear(4, 4), SHARED, nn.Linear(4, 2)),
            [],
            {"0": "called several times", "2": "called several times"},
        ),
        (
            nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), nn.ReLU(), nn.Linear(4, 2)),
            [],
            {"0": "computed from others"},
        ),
        (nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 2)), [], {"0": "goes elsewhere"}),
    ],
)
@pytest.mark.filterwarnings("ignore:widen_for_dropout widened nothing")
def test_what_cannot_be_widened_is_left_and_named(model, changed, left):
    report, x = Report(), torch.randn(3, 6)
    before = copy.deepcopy(model.state_dict())
    widen_for_dropout(model, report=report, batch=x, weights="copied")
    assert [entry.layer for entry in report.changed] == changed
    said = {entry.layer: entry.what for entry in report.left}
    for name, part in left.items():
        assert part in said[name], said
    if not changed:
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model(x)


def test_nothing_to_widen_is_warned_about():
    with pytest.warns(NoEffectWarning, match="first: the output of its Linear goes elsewhere, or through a function"):
        widen_for_dropout(Functional())
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        widen_for_dropout(mlp(), 1.0)
    with pytest.raises(ValueError, match="'new' or 'copied'"):
        widen_for_dropout(mlp(), weights="old")


def test_a_network_of_others():
    features = torchvision.models.vgg.make_layers([8, "M", 12, 12, "M"], batch_norm=True)
    model = nn.Sequential(features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 5)).eval()
    x, report = torch.randn(2, 3, 16, 16), Report()
    before = model(x)
    widen_for_dropout(model, 0.5, weights="copied", report=report)
    assert [entry.layer for entry in report.changed] == ["0.0", "0.4", "0.7"]
    torch.testing.assert_close(model(x), before, rtol=1e-3, atol=1e-4)
