"""initialize: the scheme of each layer, the report, and what is left alone."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import lightning_tricks.init as lt_init
from lightning_tricks.init import Report, initialize
from lightning_tricks.nn import SelfNormalizingMLP


class Functional(nn.Module):
    """Registered out of order, with activations that no module shows."""

    def __init__(self):
        super().__init__()
        self.last, self.second, self.first = nn.Linear(32, 4), nn.Linear(32, 32), nn.Linear(16, 32)
        self.norm = nn.LayerNorm(32)

    def forward(self, x):
        x = self.norm(self.first(x)).tanh()
        return self.last(F.gelu(self.second(x) + x, approximate="tanh"))


class Branching(Functional):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)  # no graph can be read


def changed(model, *args, **kwargs):
    report = Report()
    assert initialize(model, *args, report=report, **kwargs) is model
    return {entry.layer: entry for entry in report.changed}, {entry.layer: entry.what for entry in report.left}


@pytest.mark.parametrize("batch", [None, torch.randn(4, 16)])
def test_each_layer_by_the_activation_that_follows_it(batch):
    done, left = changed(Functional(), batch=batch)
    assert done["first"].what == "truncated normal, one-step gain 1.593 (tanh)"
    assert done["second"].what.startswith("truncated normal, gain 1.46")
    assert done["second"].what.endswith("(gelu)")
    assert done["last"].what == "lecun_normal (linear)"
    assert left == {"norm": "no rule for LayerNorm (weight, bias)"}


def test_a_graph_that_cannot_be_read_is_said_and_a_batch_helps():
    with pytest.warns(UserWarning, match=r"cannot be read .* Pass batch="):
        done, _ = changed(Branching())
    assert done["second"].what == "lecun_normal (linear)"
    done, _ = changed(Branching(), batch=torch.randn(4, 16))
    assert done["second"].what.endswith("(gelu)")


def test_the_report_tells_fan_and_standard_deviation():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(32, 64, 3, groups=2), nn.BatchNorm2d(64), nn.LeakyReLU(0.2), nn.Conv2d(64, 8, 1))
    report = Report()
    initialize(model, report=report)
    first = report.changed[0].values
    assert first["fan"] == 144
    assert first["std asked"] == pytest.approx((2 / (1 + 0.2**2) / 144) ** 0.5)
    assert first["std got"] == pytest.approx(float(model[0].weight.detach().std(unbiased=False)))
    assert first["std got"] == pytest.approx(first["std asked"], rel=0.03)
    assert str(report).splitlines()[0].split() == ["layer", "changed", "fan", "std", "asked", "std", "got"]
    assert not bool(model[0].bias.any())


def test_activations_reach_through_blocks_and_shortcuts():
    done, _ = changed(torchvision.models.resnet18())
    kinds = {entry.what for name, entry in done.items() if name != "fc"}
    assert kinds == {"he_normal (relu)"}
    assert done["fc"].what == "lecun_normal (linear)"


@pytest.mark.parametrize("scheme", ["lecun_normal", "lecun_uniform", "he_normal", "he_uniform", "glorot_normal"])
def test_named_schemes_are_the_functions_of_that_name(scheme):
    model = initialize(nn.Sequential(nn.Linear(20, 30)), scheme, generator=torch.Generator().manual_seed(5))
    alone = getattr(lt_init, f"{scheme}_")(torch.empty(30, 20), generator=torch.Generator().manual_seed(5))
    assert torch.equal(model[0].weight, alone)


def test_orthogonal_schemes():
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(8, 4))
    report = Report()
    with pytest.warns(UserWarning, match=r"1 \(delta_orthogonal does not fit a weight of shape \(4, 8, 3, 3\)\); 3"):
        initialize(model, "delta_orthogonal", report=report)
    assert [entry.layer for entry in report.changed] == ["0"]
    initialize(model, "orthogonal")
    gram = model[3].weight @ model[3].weight.T
    assert torch.allclose(gram, torch.eye(4), atol=1e-5)


def test_recurrent_weights_are_orthogonal_gate_by_gate():
    model = nn.Sequential(nn.LSTM(5, 7))
    done, _ = changed(model, batch=torch.randn(3, 2, 5))
    assert done["0"].what == "orthogonal, weight_hh_l0 o gate"
    for gate in model[0].weight_hh_l0.chunk(4):
        assert torch.allclose(gate @ gate.T, torch.eye(7), atol=1e-5)


def test_depth_works_with_auto_and_dies_with_torchs_default():
    torch.manual_seed(0)
    x = torch.randn(256, 128)
    for activation in (nn.SELU, nn.ELU, nn.ReLU, nn.Tanh):
        layers = [layer for _ in range(24) for layer in (nn.Linear(128, 128), activation())]
        net = nn.Sequential(*layers)
        with torch.no_grad():
            before = float(net(x).var(0).mean())
            after = float(initialize(net)(x).square().mean())
        assert 0.2 < after < 3
        assert before < 1e-2


def test_self_normalizing_mlp_stays_what_it_is():
    net = SelfNormalizingMLP(64, [64] * 3, 10)
    done, _ = changed(net)
    assert {entry.what for entry in done.values()} == {"lecun_normal (selu)", "lecun_normal (linear)"}


def test_frozen_unreached_and_tied_are_left():
    torch.manual_seed(0)
    model = Functional()
    model.extra = nn.Linear(3, 3)
    model.first.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    report = Report()
    with pytest.warns(UserWarning, match=r"left as they were: extra \(it never runs"):
        initialize(model, batch=torch.randn(4, 16), report=report)
    left = {entry.layer: entry.what for entry in report.left}
    assert left["first"] == "weight is frozen (requires_grad=False)"
    for name in ("first.weight", "extra.weight", "extra.bias"):
        assert torch.equal(model.state_dict()[name], before[name])


def test_running_the_batch_leaves_no_trace():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.ReLU(), nn.Linear(8, 1))
    buffers = copy.deepcopy(dict(model.named_buffers()))
    generator, state = torch.Generator().manual_seed(0), torch.get_rng_state()
    initialize(model, batch=torch.randn(4, 8, generator=generator), generator=generator)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, buffers[key]) for key, value in model.named_buffers())
    assert all(module.training and not module._forward_hooks for module in model.modules())


def test_padding_rows_stay_zero():
    table = nn.Embedding(10, 4, padding_idx=3)
    initialize(table, "lecun_normal")
    assert not bool(table.weight[3].any())
    assert bool(table.weight[2].any())


def test_meta_models_can_be_copied_and_pickled_before_they_get_storage():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(300, 200), nn.SELU(), nn.MultiheadAttention(200, 2))
    initialize(model, "he_normal")
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin.to_empty(device="cpu")
        for module in (twin[0], twin[2], twin[2].out_proj):
            module.reset_parameters()
        assert float(twin[0].weight.detach().var()) == pytest.approx(2 / 300, rel=0.05)
        assert float(twin[2].in_proj_weight.detach().var()) == pytest.approx(2 / 200, rel=0.05)
        assert float(twin[2].out_proj.weight.detach().var()) == pytest.approx(2 / 200, rel=0.05)
    assert model[0].weight.is_meta


def test_lsuv_by_name():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)), torch.randn(64, 8)
    done, _ = changed(model, "lsuv", (x, None))
    assert done["2"].what == "lsuv"
    assert float(model(x).detach().std(unbiased=False)) == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="pass batch="):
        initialize(model, "lsuv")


def test_wrong_schemes_and_nothing_to_do():
    with pytest.raises(ValueError, match="unknown scheme 'kaiming'; known are auto, lsuv, lecun_normal"):
        initialize(nn.Linear(2, 2), "kaiming")
    with pytest.warns(lt_init.NoEffectWarning, match="changed nothing in Sequential: it has no layer with weights"):
        initialize(nn.Sequential(nn.ReLU()))
    frozen = nn.Sequential(nn.Linear(2, 2).requires_grad_(False))
    with pytest.warns(lt_init.NoEffectWarning, match="all of 0 is frozen"):
        initialize(frozen)
    lazy = nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(2))
    before = lazy[0].weight.clone()
    with pytest.raises(ValueError, match="layer '1': weight of the lazy LazyLinear"):
        initialize(lazy)
    assert torch.equal(lazy[0].weight, before)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        initialize(nn.Sequential(nn.Linear(2, 2)), batch=torch.ones(3, 3))
