"""swap_activation and self_normalize, on the networks that people have."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from lightning_tricks import surgery
from lightning_tricks.nn import (
    AlphaDropout,
    BatchRenorm1d,
    FeatureAlphaDropout,
    GhostBatchNorm1d,
    MeanOnlyBatchNorm1d,
    ShiftedReLU,
    matched_p,
)
from lightning_tricks.surgery import Report, self_normalize, swap_activation


def mlp(depth: int = 3, dropout: float = 0.18) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(inplace=True), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(64, 10))


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("relu", "gelu", nn.GELU),
        (nn.ReLU, nn.SELU, nn.SELU),
        (["relu", nn.Tanh], lambda: nn.ELU(0.5), nn.ELU),
        ("relu", ShiftedReLU(0.5), ShiftedReLU),
    ],
)
def test_swap_by_name_class_module_and_factory(old, new, kind):
    model, report = mlp(), Report()
    assert swap_activation(model, old, new, report=report) is model
    assert sum(isinstance(module, kind) for module in model) == 3
    assert not any(isinstance(module, nn.ReLU) for module in model)
    assert [entry.layer for entry in report.changed] == ["2", "6", "10"]
    assert model[2] is not model[6]
    if kind is nn.SELU:
        assert model[2].inplace
    model(torch.randn(4, 64)).sum().backward()


def test_the_root_itself():
    assert isinstance(swap_activation(nn.ReLU(), "relu", "selu"), nn.SELU)


def test_unknown_names_and_nothing_to_swap():
    for arguments in (("rleu", "selu"), ("relu", "sleu")):
        with pytest.raises(ValueError, match="unknown activation"):
            swap_activation(mlp(), *arguments)
    with pytest.warns(surgery.NoEffectWarning, match="Sequential has no tanh module to replace"):
        swap_activation(mlp(), "tanh", "selu")


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = mlp(1)
        self.head = nn.Linear(10, 10)

    def forward(self, x):
        return F.relu(self.head(self.inner(x)))


def test_functional_activations_are_said_not_passed_over():
    report = Report()
    with pytest.warns(UserWarning, match="called as functions stay as they are, in the model's forward"):
        swap_activation(Functional(), nn.ReLU, "selu", report=report)
    assert [(entry.layer, entry.what.split(",")[0]) for entry in report.left] == [("", "calls relu as a function")]
    with pytest.warns(UserWarning, match="called as functions"):
        model = self_normalize(Functional())
    assert isinstance(model.inner[2], nn.SELU)


def test_self_normalize_changes_activations_dropout_and_weights():
    torch.manual_seed(0)
    model, report = mlp(), Report()
    assert self_normalize(model, remove_batch_norm=True, report=report) is model
    assert [type(module).__name__ for module in model[:4]] == ["Linear", "Identity", "SELU", "AlphaDropout"]
    assert model[3].p == pytest.approx(matched_p(0.18)) == pytest.approx(0.051, abs=5e-4)
    for layer in (model[0], model[4], model[8], model[12]):
        assert float(layer.weight.detach().var()) == pytest.approx(1 / 64, rel=0.1)
        assert not bool(layer.bias.any())
    what = {entry.layer: entry.what for entry in report.changed}
    assert what["2"] == "ReLU -> SELU"
    assert what["3"] == "Dropout -> AlphaDropout"
    assert what["1"] == "BatchNorm1d -> Identity"
    assert what["0"] == "lecun_normal (selu)"
    assert what["12"] == "lecun_normal (linear)"


def test_the_result_is_self_normalising():
    torch.manual_seed(0)
    layers = [layer for _ in range(24) for layer in (nn.Linear(128, 128), nn.ReLU())]
    net, x = nn.Sequential(*layers), 1.3 * torch.randn(512, 128) + 0.1
    with torch.no_grad():
        assert float(net(x).var(0).mean()) < 1e-6
        y = self_normalize(net)(x)
    assert float(y.var()) == pytest.approx(1.0, abs=0.3)
    assert float(y.mean()) == pytest.approx(0.0, abs=0.1)


def test_dropout_that_does_not_follow_an_activation_stays():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed_dropout = nn.Dropout(0.1)
            self.project, self.softmax, self.attend_dropout = nn.Linear(8, 8), nn.Softmax(-1), nn.Dropout(0.1)
            self.features = nn.Sequential(nn.Conv1d(1, 4, 3), nn.LeakyReLU(), nn.MaxPool1d(2), nn.Dropout1d(0.3))

        def forward(self, x):
            x = self.embed_dropout(x)
            x = self.attend_dropout(self.softmax(self.project(x))) * x
            return self.features(x[:, None])

    torch.manual_seed(0)
    report = Report()
    model = self_normalize(Attends(), report=report)
    assert type(model.embed_dropout) is type(model.attend_dropout) is nn.Dropout
    assert isinstance(model.features[3], FeatureAlphaDropout)
    assert isinstance(model.features[1], nn.SELU)
    left = {entry.layer: entry.what for entry in report.left}
    assert "does not follow an activation" in left["embed_dropout"]
    assert "does not follow an activation" in left["attend_dropout"]
    assert model(torch.randn(4, 8)).shape == (4, 4, 3)


def test_the_weights_can_be_kept():
    torch.manual_seed(0)
    model = mlp()
    weights = copy.deepcopy(model[0].weight)
    self_normalize(model, scheme=None)
    assert torch.equal(model[0].weight, weights)
    assert isinstance(model[1], nn.BatchNorm1d)
    assert isinstance(model[3], AlphaDropout)


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "mobilenet_v2"])
def test_torchvision(name):
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(num_classes=3)
    report = Report()
    old = ("relu", "relu6") if name == "mobilenet_v2" else "relu"
    self_normalize(model, old=old, report=report)
    assert not any(isinstance(module, (nn.ReLU, nn.ReLU6)) for module in model.modules())
    assert not any(isinstance(module, nn.Dropout) for module in model.modules())  # each follows an activation here
    drops = {"alexnet": 2, "resnet18": 0, "mobilenet_v2": 1}[name]
    assert sum(isinstance(module, AlphaDropout) for module in model.modules()) == drops
    with torch.no_grad():
        assert bool(model.eval()(torch.randn(1, 3, 64, 64)).isfinite().all())


def test_errors_leave_the_model_alone():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.LazyLinear(2))
    with pytest.raises(ValueError, match="layer '2': weight of the lazy LazyLinear"):
        self_normalize(model)
    assert isinstance(model[1], nn.ReLU)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        self_normalize(mlp(), batch=torch.randn(2, 3))
    with pytest.raises(ValueError, match="unknown scheme"):
        self_normalize(model, scheme="kaiming")
    assert isinstance(model[1], nn.ReLU)


def test_no_effect():
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Dropout())
    before = copy.deepcopy(model.state_dict())
    with pytest.warns(surgery.NoEffectWarning, match="has no celu or elu"):
        self_normalize(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert isinstance(model[2], nn.Dropout)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, GhostBatchNorm1d, BatchRenorm1d, MeanOnlyBatchNorm1d])
def test_every_kind_of_batch_norm_is_removed(norm):
    model = nn.Sequential(nn.Linear(4, 8), norm(8), nn.ReLU(), nn.Linear(8, 2))
    self_normalize(model, remove_batch_norm=True)
    assert type(model[1]) is nn.Identity


def test_copies_pickles_and_compiles():
    torch.manual_seed(0)
    model = self_normalize(mlp()).eval()
    x = torch.randn(4, 64)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), model(x))
    assert torch.allclose(torch.compile(model, backend="aot_eager", fullgraph=True)(x), model(x), atol=1e-5)


def test_one_report_holds_surgery_and_initialisation():
    torch.manual_seed(0)
    report = surgery.Report()
    surgery.self_normalize(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.LayerNorm(4)), report=report)
    assert [(entry.layer, entry.what) for entry in report.changed] == [
        ("1", "ReLU -> SELU"),
        ("0", "lecun_normal (selu)"),
    ]
    assert [entry.layer for entry in report.left] == ["2"]
    assert "ReLU -> SELU" in str(report)


def test_without_batch_norm_nothing_is_overwritten_that_a_gradient_needs():
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.BatchNorm1d(6), nn.Dropout(0.2, inplace=True), nn.Linear(6, 6),
                          nn.ReLU(inplace=True), nn.BatchNorm1d(6), nn.ReLU(inplace=True))  # fmt: skip
    model(torch.randn(8, 6)).sum().backward()
    self_normalize(model, remove_batch_norm=True)(torch.randn(8, 6)).sum().backward()
    with_batch_norm = self_normalize(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True)))
    assert with_batch_norm[2].inplace
