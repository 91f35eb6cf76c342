"""Gradients and updates of parameters around the optimiser's step."""

import math

import pytest
import torch
from torch import nn

from lightning_tricks.probes import probe
from lightning_tricks.probes.measure.parameters import MAX_ENTRIES


def rms(x):
    return x.double().square().mean().sqrt().item()


def stepped(model, optimizer, x, loss=lambda y: y.square().mean()):
    with probe(model, optimizer) as p:
        loss(model(x)).backward()
        optimizer.step()
    return {r.name: r for r in p.snapshot().parameters}


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Adagrad"])
@pytest.mark.parametrize("options", [{}, {"foreach": True}])
def test_every_parameter_by_hand(name, options):
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 2)).double()
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=1e-2, **options)
    old = {n: p.detach().clone() for n, p in model.named_parameters()}
    records = stepped(model, optimizer, torch.randn(20, 5).double())
    assert list(records) == list(old)
    for key, parameter in model.named_parameters():
        record, change = records[key], parameter.detach() - old[key]
        assert record.shape == tuple(parameter.shape)
        assert record.gradient == pytest.approx(rms(parameter.grad), rel=1e-9)
        assert record.weight == pytest.approx(rms(old[key]), rel=1e-9)
        assert record.update == pytest.approx(rms(change), rel=1e-9, abs=1e-15)
        if record.weight > 0:
            assert record.update_ratio == pytest.approx(rms(change) / rms(old[key]), rel=1e-9)
    assert [r.layer for r in records.values()] == ["0", None, None, None, "3", None]


def test_a_large_weight_is_compared_on_whole_rows_spread_over_it():
    model = nn.Linear(300, 1000)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    old = model.weight.detach().clone()
    record = stepped(model, optimizer, torch.randn(50, 300))["weight"]
    change = model.weight.detach() - old
    assert record.sums.update.count <= MAX_ENTRIES < old.numel()
    assert record.sums.update.count % 300 == 0
    assert record.update == pytest.approx(rms(change), rel=0.05)
    coherence = (change.sum(1).abs() / change.abs().sum(1)).mean().item()
    assert record.update_coherence == pytest.approx(coherence, rel=0.1)
    assert record.gradient == pytest.approx(rms(model.weight.grad), rel=1e-5)


def test_inputs_of_one_sign_push_a_neurons_weights_together():
    torch.manual_seed(0)
    positive, centred = torch.rand(64, 100), torch.randn(64, 100)
    coherence = {}
    for name, x in (("positive", positive), ("centred", centred)):
        model = nn.Linear(100, 30)
        coherence[name] = stepped(model, torch.optim.SGD(model.parameters(), lr=0.1), x)["weight"].update_coherence
    assert coherence["positive"] > 0.6
    assert coherence["centred"] < 3 / math.sqrt(100)


def test_symmetric_weights():
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Linear(3, 1))
    with torch.no_grad():
        nn.init.constant_(model[0].weight, 0.3)
        model[2].weight.copy_(torch.randn(3).expand(3, 3))
    records = stepped(model, torch.optim.SGD(model.parameters(), lr=0.1), torch.randn(5, 4))
    assert {n: r.symmetric for n, r in records.items() if n.endswith("weight")} == {
        "0.weight": True,
        "2.weight": True,
        "4.weight": False,
        "5.weight": False,
    }


def test_what_no_optimizer_steps_has_no_update():
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    records = stepped(model, torch.optim.SGD(model[0].parameters(), lr=0.1), torch.randn(5, 4))
    assert records["0.weight"].update > 0
    assert math.isnan(records["2.weight"].update)
    assert records["2.weight"].gradient > 0
    assert records["2.weight"].weight == pytest.approx(rms(model[2].weight.detach()), rel=1e-5)


def test_a_weight_whose_storage_was_replaced_has_no_update_rather_than_none():
    class Replacing(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data = p.data - 0.1 * p.grad

    model = nn.Linear(4, 3)
    records = stepped(model, Replacing(model.parameters(), lr=0.1), torch.randn(5, 4))
    assert math.isnan(records["weight"].update)
    assert records["bias"].update > 0


def test_a_shared_layer_called_twice_is_one_parameter():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(torch.tanh(self.layer(x)))

    model = Twice().double()
    old = model.layer.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(9, 4).double()
    with probe(model, optimizer) as p:
        model(x).square().mean().backward()
        optimizer.step()
    snapshot = p.snapshot()
    assert [r.name for r in snapshot.weighted] == ["layer", "layer_2"]
    (weight, _) = snapshot.parameters
    dw = model.layer.weight.detach() - old
    assert weight.layer == "layer"
    assert weight.update == pytest.approx(rms(dw), rel=1e-9)
    a = x @ old.T
    shift = (x.mean(0) @ dw.T - 0.1 * model.layer.bias.grad) / a.std(0, correction=0)
    assert weight.mean_drift == pytest.approx(rms(shift), rel=1e-6)


def test_complex_and_half_precision_parameters():
    model = nn.Linear(4, 3, dtype=torch.complex128)
    records = stepped(model, torch.optim.SGD(model.parameters(), lr=0.1), torch.randn(5, 4).cdouble(),
                      loss=lambda y: y.abs().sum())  # fmt: skip
    assert records["weight"].gradient > 0
    half = nn.Linear(4, 3).bfloat16()
    records = stepped(half, torch.optim.SGD(half.parameters(), lr=0.5), torch.randn(5, 4).bfloat16())
    assert records["weight"].gradient == pytest.approx(rms(half.weight.grad), rel=1e-5)
    assert records["weight"].update > 0


def test_a_probe_of_several_optimizers():
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    first, last = (torch.optim.SGD(model[i].parameters(), lr=0.1) for i in (0, 2))
    with probe(model, [first, last]) as p:
        model(torch.randn(5, 4)).square().mean().backward()
        first.step()
        last.step()
    assert all(r.update > 0 for r in p.snapshot().parameters)


def test_who_is_trained():
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1))
    model[0].requires_grad_(False)

    def look(optimizer):
        with probe(model, optimizer) as p:
            model(torch.randn(5, 4)).square().mean().backward()
            if optimizer is not None:
                optimizer.step()
        return {r.name: (r.trainable, r.optimized) for r in p.snapshot().parameters if r.name.endswith("weight")}

    partly = torch.optim.SGD([*model[0].parameters(), *model[2].parameters()], lr=0.1)
    assert look(partly) == {"0.weight": (False, True), "2.weight": (True, True), "4.weight": (True, False)}
    assert look(None) == {"0.weight": (False, True), "2.weight": (True, True), "4.weight": (True, True)}


def test_learning_rate_is_the_largest_before_the_step():
    model = nn.Linear(4, 3)
    groups = [{"params": [model.weight], "lr": torch.tensor(0.25)}, {"params": [model.bias], "lr": 0.125}]
    optimizer = torch.optim.SGD(groups)
    with probe(model, optimizer) as p:
        model(torch.randn(5, 4)).sum().backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"].fill_(0.5)  # as a schedule does
    assert p.snapshot().learning_rate == 0.25
    with probe(model) as p:
        model(torch.randn(5, 4)).sum().backward()
    assert math.isnan(p.snapshot().learning_rate)
