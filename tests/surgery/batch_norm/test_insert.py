"""Insertion: a batch norm behind each hidden weighted layer of any forward."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lightning_tricks as lt
from lightning_tricks.init.report import NoEffectWarning, Report
from lightning_tricks.nn import GhostBatchNorm1d, GhostBatchNorm2d, MeanOnlyBatchNorm1d
from lightning_tricks.surgery.batch_norm.convert import convert_batch_norm
from lightning_tricks.surgery.batch_norm.fold import fold_batch_norm
from lightning_tricks.surgery.batch_norm.insert import insert_batch_norm
from lightning_tricks.surgery.batch_norm.normalized import NormalizedLayer
from lightning_tricks.surgery.batch_norm.population import update_population_statistics


class Net(nn.Module):
    """Functional activations, registered out of order, a view made from the layer's own attribute."""

    def __init__(self):
        super().__init__()
        self.fc2 = nn.Linear(16, 3)
        self.fc1 = nn.Linear(4 * 9, 16)
        self.conv = nn.Conv2d(2, 4, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        x = torch.tanh(self.fc1(x.view(-1, self.fc1.in_features)))
        return F.log_softmax(self.fc2(x), 1)


def wrapped(model):
    return [name for name, module in model.named_modules() if isinstance(module, NormalizedLayer)]


@pytest.mark.parametrize("way", ["graph", "run", "example_input_array"])
def test_every_hidden_layer_gets_one_and_the_output_none(way):
    torch.manual_seed(0)
    model, x, report = Net(), torch.randn(8, 2, 8, 8), Report()
    if way == "example_input_array":
        model.example_input_array = x
    assert insert_batch_norm(model, x if way == "run" else None, report=report) is model
    assert wrapped(model) == ["fc1", "conv"]
    assert type(model.conv.batch_norm) is nn.BatchNorm2d
    assert type(model.fc1.batch_norm) is nn.BatchNorm1d
    assert model.conv.layer.bias is None
    assert {e.layer: e.what for e in report.changed} == {
        "fc1": "followed by BatchNorm1d, bias dropped",
        "conv": "followed by BatchNorm2d, bias dropped",
    }
    assert [(e.layer, e.what) for e in report.left] == [("fc2", "an output: no other weighted layer depends on it")]


def test_the_activation_meets_a_normalised_pre_activation():
    model, met = Net(), []
    insert_batch_norm(model)
    model.fc1.register_forward_hook(lambda m, i, o: met.append(o))
    model.train()(torch.randn(64, 2, 8, 8) * 3 + 5)
    torch.testing.assert_close(met[0].mean(0), torch.zeros(16), rtol=0, atol=1e-5)
    torch.testing.assert_close(met[0].var(0, unbiased=False), torch.ones(16), rtol=0, atol=1e-3)


def test_a_dropped_bias_was_redundant():
    model = Net()
    kept = copy.deepcopy(model)
    insert_batch_norm(model)
    for name in ("fc1", "conv"):  # the same with the bias kept
        layer = getattr(kept, name)
        setattr(kept, name, NormalizedLayer(layer, copy.deepcopy(getattr(model, name).batch_norm)))
    x = torch.randn(8, 2, 8, 8)
    torch.testing.assert_close(model(x), kept(x), rtol=1e-4, atol=1e-5)


def test_the_whole_of_algorithm_2():
    torch.manual_seed(0)
    model, data = Net(), torch.randn(64, 2, 8, 8)
    names = list(model.state_dict())
    insert_batch_norm(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        F.nll_loss(model(data), torch.arange(64) % 3).backward()
        optimizer.step()
    update_population_statistics(model, data.split(16))
    expected = model.eval()(data)
    fold_batch_norm(model)
    assert sorted(model.state_dict()) == sorted(names)
    torch.testing.assert_close(model(data), expected, rtol=1e-5, atol=1e-5)


def test_tokens_are_normalised_over_all_positions():
    model = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 2))
    insert_batch_norm(model)
    y = model[0](torch.randn(6, 7, 5) * 2 + 1)  # as many positions as features: no place for a mix-up
    torch.testing.assert_close(y.mean((0, 1)), torch.zeros(7), rtol=0, atol=1e-5)


def test_where_names_layers_outputs_included():
    model, report = Net(), Report()
    insert_batch_norm(model, where="fc*", report=report)
    assert wrapped(model) == ["fc2", "fc1"]
    assert [(e.layer, e.what) for e in report.left] == [("conv", "not asked for")]
    assert wrapped(insert_batch_norm(Net(), where=["conv", "fc2"])) == ["fc2", "conv"]


def test_any_kind_with_its_arguments():
    model = insert_batch_norm(Net(), cls=GhostBatchNorm2d, ghost_size=4, momentum=0.02)
    assert type(model.conv.batch_norm) is GhostBatchNorm2d
    assert type(model.fc1.batch_norm) is GhostBatchNorm1d
    assert (model.fc1.batch_norm.ghost_size, model.fc1.batch_norm.momentum) == (4, 0.02)


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.borrowed, self.idle = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.normed, self.norm, self.last = nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2)
        self.gru, self.attention = nn.GRU(4, 4), nn.MultiheadAttention(4, 2)
        self.before_gru = nn.Linear(4, 4)

    def forward(self, x):
        x = self.shared(self.shared(x).relu()).relu()
        x = F.linear(self.borrowed(x), self.borrowed.weight)
        x = self.norm(self.normed(x))
        x = self.attention(x, x, x)[0]
        return self.last(x) + self.gru(self.before_gru(x))[0][..., :2]


@pytest.mark.parametrize("way", ["graph", "run"])
def test_what_should_not_get_one_is_left_and_named(way):
    model, report = Odd(), Report()
    x = torch.randn(3, 5, 4)
    insert_batch_norm(model, x if way == "run" else None, report=report)
    assert wrapped(model) == ["before_gru"]
    assert {e.layer: e.what for e in report.left} == {
        "shared": "called 2 times in a forward pass, which would share one set of statistics",
        "borrowed": "its weight is used elsewhere as well",
        "idle": "not called as a module",
        "normed": "already followed by LayerNorm",
        "last": "an output: no other weighted layer depends on it",
        "attention.out_proj": "not called as a module",
    }
    model(x).sum().backward()


def test_twice_is_once():
    model = insert_batch_norm(Net())
    with pytest.warns(NoEffectWarning, match=r"fc1.layer: has its batch norm already.*conv.layer: has its"):
        insert_batch_norm(model)
    assert wrapped(model) == ["fc1", "conv"]


def test_mode_dtype_and_hooks():
    model, seen = Net().double().eval(), []
    model.conv.register_forward_hook(lambda m, i, o: seen.append(type(m)))
    insert_batch_norm(model)
    assert not any(module.training for module in model.modules())
    assert model(torch.randn(2, 2, 8, 8).double()).dtype is torch.float64
    assert seen == [nn.Conv2d]


def test_the_optimiser_is_told():
    model = Net()
    groups = [{"params": model.conv.parameters(), "lr": 0.1}, {"params": [*model.fc1.parameters()]}]
    optimizer = torch.optim.Adam([*groups, {"params": model.fc2.parameters()}])
    model(torch.randn(8, 2, 8, 8)).sum().backward()
    optimizer.step()
    insert_batch_norm(model, optimizer=optimizer)
    for group, part in zip(optimizer.param_groups, (model.conv, model.fc1, model.fc2), strict=True):
        assert {id(p) for p in group["params"]} == {id(p) for p in part.parameters()}
    assert {id(p) for p in optimizer.state} <= {id(p) for p in model.parameters()}
    model(torch.randn(8, 2, 8, 8)).sum().backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"cls": nn.LayerNorm}, TypeError, "a batch-norm class is needed"),
        ({"ghost": 1}, TypeError, "layer 'fc1': .*ghost"),
        ({"cls": GhostBatchNorm2d, "ghost_size": 0}, ValueError, "layer 'fc1': ghost_size must be at least 1"),
    ],
)
def test_after_an_error_nothing_has_changed(kwargs, error, message):
    model = Net()
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        insert_batch_norm(model, **kwargs)
    assert not wrapped(model)
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)


def test_lazy_layers_and_forwards_that_branch():
    with pytest.raises(ValueError, match="layer '0' is not initialised yet"):
        insert_batch_norm(nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 3)))

    class Branching(Net):
        def forward(self, x):
            return super().forward(x if x.mean() > 0 else -x)

    with pytest.raises(ValueError, match=r"insert_batch_norm: .* cannot be read .* pass batch="):
        insert_batch_norm(Branching())
    assert wrapped(insert_batch_norm(Branching(), torch.randn(2, 2, 8, 8))) == ["fc1", "conv"]
    with pytest.warns(NoEffectWarning, match="no weighted layer"):
        insert_batch_norm(nn.ReLU())


def test_after_folding():
    model = nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)
    ).eval()
    model = insert_batch_norm(fold_batch_norm(model))
    assert [type(layer).__name__ for layer in model][::3] == ["NormalizedLayer", "NormalizedLayer"]
    assert model(torch.randn(3, 4)).shape == (3, 2)


@pytest.mark.parametrize("depth", [None, 2], ids=["layer", "encoder"])
def test_in_a_transformer_also_in_eval_mode(depth):
    """torch's fused kernel for inference reads the weights and would pass the batch norm by."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    model = layer if depth is None else nn.TransformerEncoder(layer, depth)
    x, mask = torch.randn(3, 5, 8), torch.zeros(3, 5, dtype=torch.bool)
    mask[0, 3:] = True
    insert_batch_norm(model, x)
    model(x)
    model.eval()
    expected = model(x, src_key_padding_mask=mask).detach()
    with torch.no_grad():
        torch.testing.assert_close(model(x, src_key_padding_mask=mask), expected)


class AskingForItsBias(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(self.a(x.to(self.a.bias.device)))


@pytest.mark.parametrize("batch", [None, torch.ones(2, 4)], ids=["graph", "run"])
def test_a_bias_that_the_forward_asks_for_stays(batch):
    model, report = AskingForItsBias(), Report()
    with pytest.warns(NoEffectWarning, match="its bias, which would be dropped, is asked for elsewhere"):
        insert_batch_norm(model, batch, report=report)
    assert model(torch.ones(2, 4)).shape == (2, 2)


class Elsewhere(nn.Linear):
    """A linear layer that keeps its weight under another name."""

    def __init__(self, inputs, outputs, named, **options):
        super().__init__(inputs, outputs, bias=False, **options)
        self.own = self.weight
        if named:
            self.weight = None
        else:
            del self.weight

    def forward(self, x):
        return F.linear(x, self.own)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("batch", [None, torch.ones(3, 4, dtype=torch.float64)], ids=["graph", "run"])
@pytest.mark.parametrize("affine", [True, False])
def test_a_layer_without_a_weight_of_that_name(named, batch, affine):
    model = nn.Sequential(Elsewhere(4, 6, named), nn.ReLU(), nn.Linear(6, 2)).double()
    model = insert_batch_norm(model, batch, affine=affine)
    assert model[0].batch_norm.running_mean.dtype == torch.float64
    assert model(torch.randn(5, 4, dtype=torch.float64)).shape == (5, 2)


@pytest.mark.parametrize("batch", [None, torch.ones(3, 4, device="meta")], ids=["graph", "run"])
def test_a_batch_norm_lies_where_its_layer_lies(batch):
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 2)).to("meta")
    norm = insert_batch_norm(model, batch)[0].batch_norm
    assert {value.device.type for value in (*norm.parameters(), *norm.buffers())} == {"meta"}


OTHERS = {
    "initialize": lambda model: lt.init.initialize(model, "orthogonal"),
    "lsuv": lambda model: lt.init.lsuv_(model, torch.randn(8, 4)),
    "self_normalize": lt.surgery.self_normalize,
    "predict": lt.init.predict,
}


@pytest.mark.parametrize("name", OTHERS)
def test_who_needs_the_weight_says_which_layer_has_none(name):
    model = nn.Sequential(Elsewhere(4, 6, True), nn.ReLU(), nn.Linear(6, 2))
    with pytest.raises(ValueError, match=r"layer '0' \(Elsewhere\) has no tensor as its weight"):
        OTHERS[name](model)


def test_widening_leaves_such_a_layer():
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), Elsewhere(6, 5, False), nn.ReLU(), nn.Linear(5, 2))
    with pytest.warns(NoEffectWarning, match="it has no tensor as its weight"):
        lt.surgery.widen_for_dropout(model)


def test_an_eps_of_zero():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="layer '0': eps has to be positive"):
        insert_batch_norm(model, eps=0.0)
    with pytest.raises(ValueError, match="layer '0': eps has to be positive"):
        convert_batch_norm(nn.Sequential(MeanOnlyBatchNorm1d(4, eps=0.0)), nn.BatchNorm1d)
