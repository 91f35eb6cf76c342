"""What a probe makes of small, broken, frozen, unseen and unusual things."""

import json
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks.probes import probe
from tests.versions import TORCH

from . import networks


def snapshot_of(model, *inputs, loss=lambda y: y.square().sum(), **options):
    with probe(model, **options) as p:
        y = model(*inputs)
        if loss is not None:
            loss(y).backward()
    snapshot = p.snapshot()
    assert not [reason for reason in snapshot.not_seen.values() if "could not be read" in reason]
    json.dumps(snapshot.to_dict(), allow_nan=False)
    return snapshot


@pytest.mark.parametrize("size", [0, 1, 2])
@pytest.mark.parametrize(
    ("make", "shape"), [(networks.Functional, (6,)), (networks.transformer, (5, 8)), (networks.Recurrent, (5, 6))]
)
@pytest.mark.parametrize("stepped", [False, True])
def test_small_batches(size, make, shape, stepped):
    model = make()
    if size == 0 and make is networks.Recurrent:
        size = 2  # torch's own kernel refuses an empty batch
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with probe(model, optimizer if stepped else None) as p:
        model(torch.randn(size, *shape)).square().sum().backward()
        optimizer.step()
    snapshot = p.snapshot()
    assert snapshot.weighted[0].patterns >= size
    assert not any(r.nonfinite for r in snapshot.records())
    assert all(not math.isinf(value) for r in snapshot.records() for value in r.measures().values())
    if size == 1 and make is networks.Functional:
        assert math.isnan(snapshot.activations[0].linearity)
        assert all(math.isnan(r.mean_drift) for r in snapshot.parameters)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("maximum", [None, 8])
def test_the_first_faulty_record_is_marked(value, maximum):
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(40, 4)
    clean = snapshot_of(model, x, max_patterns=maximum)
    assert not any(r.nonfinite or getattr(r, "nonfinite_input", False) for r in clean.records())
    x[17, 2] = value
    faulty = snapshot_of(model, x, max_patterns=maximum)
    first = faulty.weighted[0]
    assert first.nonfinite
    assert first.nonfinite_input
    with torch.no_grad():
        model[2].weight[1, 1] = value
    inner = snapshot_of(model, torch.randn(40, 4), max_patterns=maximum)
    assert [r.nonfinite for r in inner.weighted] == [False, True, True]
    assert [r.nonfinite_input for r in inner.weighted] == [False, False, True]
    assert [r.name for r in inner.parameters if r.nonfinite] == ["2.weight"]
    assert next(r for r in inner.parameters if r.name == "0.weight").nonfinite_gradient


def test_nan_in_a_backward_pass_is_not_hidden():
    class Poison(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * math.nan

    layers = nn.Sequential(nn.Linear(3, 3), nn.Tanh()), nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    model = nn.ModuleList(layers)
    model.forward = lambda x: layers[1](Poison.apply(layers[0](x)))
    snapshot = snapshot_of(model, torch.randn(5, 3))
    assert not any(r.nonfinite for r in snapshot.weighted)
    assert [math.isfinite(float(r.signal.square)) for r in snapshot.weighted] == [False, True]
    assert "Poison" in snapshot.not_seen


def test_integers_frozen_layers_and_parameters_without_gradient():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(9, 4, sparse=True)
            self.frozen, self.live = nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 2)
            self.idle, self.counter = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, dtype=torch.int), False)

        def forward(self, i):
            F.relu(i)
            return self.live(torch.tanh(self.frozen(self.table(i))))

    model, i = Odd(), torch.tensor([1, 1, 5])
    snapshot = snapshot_of(model, i)
    assert "no real numbers" in snapshot.not_seen["relu"]
    parameters = {r.name: r for r in snapshot.parameters}
    dense = model.table.weight.grad.to_dense()
    assert parameters["table.weight"].gradient == pytest.approx(dense.square().mean().sqrt().item(), rel=1e-5)
    assert math.isnan(parameters["frozen.weight"].gradient)
    assert math.isnan(parameters["idle"].gradient)
    assert parameters["live.weight"].gradient > 0
    assert {r.name: r.error_signal > 0 for r in snapshot.weighted} == {"table": True, "frozen": True, "live": True}


def test_a_model_without_activations_without_weights_and_without_anything():
    assert snapshot_of(nn.Linear(3, 1), torch.randn(4, 3)).activations == ()
    assert snapshot_of(nn.ReLU(), torch.randn(4, 3), loss=None).weighted == ()
    assert snapshot_of(nn.Identity(), torch.randn(4, 3), loss=None).activations == ()
    with probe(nn.Identity()) as p:
        pass
    assert math.isnan(p.snapshot().loss)


def test_lazy_modules_before_their_first_run():
    model = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        snapshot = snapshot_of(model, torch.randn(5, 3))
    assert [(r.name, r.weight) for r in snapshot.weighted] == [("0", "0.weight"), ("2", "2.weight")]
    assert len(snapshot.parameters) == 4
    never = nn.LazyLinear(4)
    with probe(never) as p:
        pass
    assert p.snapshot().parameters == ()


def test_meta_tensors_have_no_values():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
        snapshot = snapshot_of(model, torch.randn(4, 3))
    assert snapshot.weighted == snapshot.parameters == ()
    assert "meta device" in snapshot.not_seen["0"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions(dtype):
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(30, 6).to(dtype)
    with probe(model, optimizer) as p:
        y = model(x)
        y.float().square().mean().backward()
        optimizer.step()
    snapshot = p.snapshot()
    assert dict(snapshot.not_seen) == {}
    assert snapshot.weighted[1].mean == pytest.approx(y.double().mean().item(), rel=1e-3, abs=1e-4)
    assert all(r.update > 0 for r in snapshot.parameters)


def test_inference_mode_and_no_grad():
    model = networks.transformer()  # in evaluation mode torch would take its fast path
    for context in (torch.inference_mode(), torch.no_grad()):
        with context, probe(model) as p:
            model(torch.randn(3, 5, 8))
        snapshot = p.snapshot()
        assert len(snapshot.weighted) == 5
        assert all(math.isnan(r.error_signal) for r in snapshot.weighted)
        assert not [reason for reason in snapshot.not_seen.values() if "could not be read" in reason]


def step_with(model, optimizer, scale=1.0):
    optimizer.zero_grad()
    (model(torch.ones(4, 6)).square().mean() * scale).backward()
    optimizer.step()


def two_steps_in_a_block(model, optimizer, known):
    with probe(model, optimizer if known else None):
        step_with(model, optimizer)
        step_with(model, optimizer)


@pytest.mark.parametrize("known", [True, False], ids=["optimizer given", "optimizer not given"])
def test_a_second_step_inside_of_a_block_is_an_error(known):
    model = networks.mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(RuntimeError, match=r"one step only, and SGD\.step\(\) ran a second time"):
        two_steps_in_a_block(model, optimizer, known)
    step_with(model, optimizer)  # nothing is left
    other = torch.optim.Adam(model.parameters())
    with probe(model, [optimizer, other]) as p:  # two optimisers make a step each
        step_with(model, optimizer)
        step_with(model, other)
    assert p.snapshot().training.steps == 2


def test_a_probe_is_entered_once():
    model = networks.mlp()
    with probe(model) as p:
        model(torch.ones(4, 6))
    with pytest.raises(RuntimeError, match="one step only"), p:
        pass
    with probe(model) as p, pytest.raises(RuntimeError, match="one step only"):
        p.open()


@pytest.mark.parametrize("steps", [True, False])
def test_the_scale_of_a_scaler_is_taken_away(steps):
    def look(scaler):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with probe(model, optimizer, scaler=scaler) as p:
            loss = model(torch.ones(4, 6)).square().mean()
            (loss if scaler is None else scaler.scale(loss)).backward()
            if steps:
                optimizer.step() if scaler is None else scaler.step(optimizer)
                scaler is None or scaler.update()
        return p.snapshot()

    plain, scaled = look(None), look(torch.amp.GradScaler("cpu", init_scale=1024.0))
    assert scaled.loss_scale == 1024.0
    assert scaled.loss == pytest.approx(plain.loss)
    assert scaled.activations[0].error_signal == pytest.approx(plain.activations[0].error_signal)
    for one, other in zip(plain.parameters, scaled.parameters, strict=True):
        assert other.gradient == pytest.approx(one.gradient)
        assert other.update == pytest.approx(one.update, nan_ok=True)
    with pytest.raises(TypeError, match=r"scaler must be a torch\.amp\.GradScaler, got float"):
        probe(networks.mlp(), scaler=2.0)


@pytest.mark.skipif(TORCH < (2, 7), reason="torch 2.6 does not export under set_stance('force_eager')")
def test_an_export_amid_a_step_spoils_nothing():
    model, x = networks.mlp(), torch.randn(4, 6)
    with probe(model) as p:
        model(x).square().mean().backward()
        torch.export.export(model, (x,))
    snapshot = p.snapshot()
    assert [record.name for record in snapshot.weighted] == ["0", "3", "5"]
    assert snapshot.loss > 0
    assert any("torch.export" in reason for reason in snapshot.not_seen.values())


def test_the_old_spectral_norm_leaves_the_layer_its_name():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = torch.nn.utils.spectral_norm(nn.Linear(6, 8))
    model = nn.Sequential(layer, nn.ReLU(), nn.Linear(8, 2))
    with probe(model) as p:
        model(torch.randn(4, 6)).sum().backward()
    records = {record.name: record.operation for record in p.snapshot().weighted}
    assert records["0"] == records["2"] == "linear"
    assert set(records) - {"0", "2"} == {"0.matmul", "0.matmul_2", "0.matmul_3"}


class _LowRank(nn.Module):
    """As AdaLoRA: the matrices of the product are computed of parameters first."""

    def __init__(self):
        super().__init__()
        self.a, self.e, self.b = (nn.Parameter(torch.randn(shape)) for shape in ((2, 6), (2, 1), (3, 2)))

    def forward(self, x):
        return torch.relu(x @ (self.a * self.e).T @ self.b.T)


def test_a_product_with_a_matrix_computed_of_parameters_is_a_weighted_operation():
    net = _LowRank()
    with probe(net) as p:
        net(torch.randn(5, 6)).sum().backward()
    records = p.snapshot().weighted
    assert [(r.name, r.units, r.fan_in, r.weight) for r in records] == [("matmul", 2, 6, None), ("matmul_2", 3, 2, "b")]
