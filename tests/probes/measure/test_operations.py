"""Inputs, outputs, updates and drifts of every weighted operation, against NumPy on the tensors themselves."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks.probes import probe

torch.manual_seed(0)


class Applied(nn.Module):
    """One operation with a weight w and a bias b, as a user would write it."""

    def __init__(self, function, weight, bias=None):
        super().__init__()
        self.w = nn.Parameter(torch.randn(weight, dtype=torch.float64))
        self.b = None if bias is None else nn.Parameter(torch.randn(bias, dtype=torch.float64))
        self.function = function

    def forward(self, x):
        return self.function(x, self.w, self.b)


def rows_of(w):
    return w.reshape(len(w), -1)


def last(w):
    return np.moveaxis(w, -1, 0).reshape(w.shape[-1], -1)


# operation, function, shape of x, of w, of b, axis of the features of x, of the units of y, w as [units, fan_in]
CASES = {
    "linear": ("linear", lambda x, w, b: F.linear(x, w, b), (40, 5), (7, 5), 7, -1, -1, rows_of),
    "linear in time": ("linear", lambda x, w, b: F.linear(x, w), (4, 9, 5), (7, 5), None, -1, -1, rows_of),
    "conv 1x1": ("conv2d", lambda x, w, b: F.conv2d(x, w, b), (6, 5, 4, 4), (7, 5, 1, 1), 7, -3, -3, rows_of),
    "conv 1x1, groups": (
        "conv2d", lambda x, w, b: F.conv2d(x, w, b, groups=3), (6, 6, 4, 4), (9, 2, 1, 1), 9, -3, -3, rows_of),
    "conv1d of what is constant in time": (
        "conv1d", lambda x, w, b: F.conv1d(x.expand(-1, -1, 8), w, b), (6, 5, 1), (7, 5, 3), 7, -2, -2, rows_of),
    "conv3d, groups": (
        "conv3d", lambda x, w, b: F.conv3d(x, w, b, groups=2), (6, 4, 2, 2, 2), (6, 2, 1, 1, 1), 6, -4, -4, rows_of),
    "transposed, kernel = stride": (
        "conv_transpose2d", lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2),
        (6, 5, 4, 4), (5, 7, 2, 2), 7, -3, -3, lambda w: rows_of(w.transpose(1, 0, 2, 3))),
    "transposed, groups": (
        "conv_transpose1d", lambda x, w, b: F.conv_transpose1d(x, w, b, stride=3, groups=2),
        (6, 4, 5), (4, 3, 3), 6, -2, -2,
        lambda w: rows_of(w.reshape(2, 2, 3, 3).transpose(0, 2, 1, 3).reshape(6, 2, 3))),
    "x @ w": ("matmul", lambda x, w, b: x @ w, (40, 5), (5, 7), None, -1, -1, last),
    "x @ w.T": ("matmul", lambda x, w, b: x @ w.T, (40, 5), (7, 5), None, -1, -1, rows_of),
    "w @ x": ("matmul", lambda x, w, b: w @ x, (5, 40), (7, 5), None, -2, -2, rows_of),
    "w @ x for every image": ("matmul", lambda x, w, b: torch.matmul(w, x), (3, 5, 40), (7, 5), None, -2, -2, rows_of),
    "mm": ("matmul", lambda x, w, b: torch.mm(x, w), (40, 5), (5, 7), None, -1, -1, last),
    "addmm": ("matmul", lambda x, w, b: torch.addmm(b, x, w), (40, 5), (5, 7), 7, -1, -1, last),
    "x @ vector": ("matmul", lambda x, w, b: x @ w, (40, 5), (5,), None, -1, 0, lambda w: w.reshape(1, -1)),
    "einsum, inputs first": (
        "einsum", lambda x, w, b: torch.einsum("bti,io->bto", x, w), (4, 9, 5), (5, 7), None, -1, -1, last),
    "einsum, units first": (
        "einsum", lambda x, w, b: torch.einsum("oi,bi->ob", w, x), (40, 5), (7, 5), None, -1, -2, rows_of),
    "einsum with dots": (
        "einsum", lambda x, w, b: torch.einsum("b...i,oi->...bo", x, w), (4, 9, 5), (7, 5), None, -1, -1, rows_of),
}  # fmt: skip


def over_patterns(tensor, axis):
    array = tensor.detach().double().numpy()
    return array.reshape(-1, 1) if axis == 0 else np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])


@pytest.mark.parametrize("case", CASES)
def test_measures_of(case):
    operation, function, x_shape, w_shape, b_shape, in_axis, out_axis, as_rows = CASES[case]
    model = Applied(function, w_shape, b_shape)
    x = torch.randn(x_shape, dtype=torch.float64) + 0.7
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    target = torch.randn_like(model(x))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with probe(model, optimizer, max_patterns=None) as p:
        y = model(x)
        (y - target).square().sum().backward()
        optimizer.step()
    snapshot = p.snapshot()
    assert dict(snapshot.not_seen) == {}
    (record,) = snapshot.weighted
    assert (record.name, record.operation, record.weight) == (operation, operation, "w")

    a, inputs = over_patterns(y, out_axis), over_patterns(x, in_axis)
    delta = 2 * over_patterns(y - target, out_axis)
    assert (record.patterns, record.units, record.elements) == (*a.shape, a.size)
    assert record.mean == pytest.approx(a.mean(), rel=1e-9)
    assert record.std == pytest.approx(np.sqrt(a.var(0).mean()), rel=1e-9)
    assert record.input_mean == pytest.approx(inputs.mean(), rel=1e-9)
    assert record.input_std == pytest.approx(np.sqrt(inputs.var(0).mean()), rel=1e-9)
    energy = np.square(inputs.mean(0)).sum() / np.square(inputs).sum(1).mean()
    assert record.mean_energy == pytest.approx(energy, rel=1e-9)
    assert record.error_signal == pytest.approx(np.sqrt(np.square(delta).mean()), rel=1e-9)

    weight = next(parameter for parameter in snapshot.parameters if parameter.name == "w")
    old, new = before["w"].numpy(), model.w.detach().numpy()
    rows = as_rows(new - old)
    assert weight.layer == record.name
    assert record.fan_in == weight.fan_in == rows.shape[1]
    assert weight.weight == pytest.approx(np.sqrt(np.square(old).mean()), rel=1e-9)
    assert weight.update_ratio == pytest.approx(np.linalg.norm(new - old) / np.linalg.norm(old), rel=1e-9)
    assert weight.gradient == pytest.approx(np.sqrt(np.square(new - old).mean()) / 1e-3, rel=1e-6)
    coherence = np.abs(rows.sum(1)) / np.abs(rows).sum(1)
    assert weight.update_coherence == pytest.approx(coherence.mean(), rel=1e-9)
    assert not weight.symmetric
    with torch.no_grad():
        moved = over_patterns(model(x), out_axis).mean(0) - a.mean(0)
    assert weight.mean_drift == pytest.approx(np.sqrt(np.mean((moved / a.std(0)) ** 2)), rel=1e-6)


@pytest.mark.parametrize("make", [
    lambda: nn.Conv2d(4, 6, 3, padding=1), lambda: nn.Conv2d(4, 6, 3, padding=1, stride=2),
    lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1),
])  # fmt: skip
def test_at_the_borders_of_images_drift_is_right_to_a_quarter(make):
    model, x = make().double(), torch.randn(8, 4, 20, 20, dtype=torch.float64) + 1
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with probe(model, optimizer, max_patterns=None) as p:
        y = model(x)
        (y - 1).square().mean().backward()
        optimizer.step()
    moved = (model(x).mean((0, 2, 3)) - y.mean((0, 2, 3))) / y.std((0, 2, 3))
    drift = next(r for r in p.snapshot().parameters if r.name == "weight").mean_drift
    assert drift == pytest.approx(moved.square().mean().sqrt().item(), rel=0.25)


def test_bmm_with_a_parameter_per_head():
    model = Applied(lambda x, w, b: torch.bmm(x, w), (3, 5, 7))
    x = torch.randn(3, 40, 5, dtype=torch.float64)
    with probe(model) as p:
        model(x).sum().backward()
    (record,) = p.snapshot().weighted
    assert (record.operation, record.units, record.fan_in, record.patterns) == ("matmul", 7, 5, 120)


def test_heads_of_an_einsum_keep_their_rows_apart():
    model = Applied(lambda x, w, b: torch.einsum("bte,ehd->bthd", x, w), (5, 3, 7))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(4, 9, 5, dtype=torch.float64)
    old = model.w.detach().clone()
    with probe(model, optimizer) as p:
        model(x).pow(3).sum().backward()
        optimizer.step()
    dw = (model.w.detach() - old).numpy()
    (parameter,), (record,) = p.snapshot().parameters, p.snapshot().weighted
    assert parameter.update_coherence == pytest.approx((np.abs(dw.sum(0)) / np.abs(dw).sum(0)).mean(), rel=1e-9)
    assert record.fan_in == 5


def test_embedding_and_bilinear_have_no_input_to_speak_of():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.pair = nn.Embedding(10, 6), nn.Bilinear(6, 6, 4)

        def forward(self, i, j):
            return self.pair(self.table(i), self.table(j))

    model = Both().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    i, j = torch.randint(10, (2, 30))
    with probe(model, optimizer) as p:
        model(i, j).square().sum().backward()
        optimizer.step()
    snapshot = p.snapshot()
    assert [r.name for r in snapshot.weighted] == ["table", "table_2", "pair"]
    table, _, pair = snapshot.weighted
    assert (table.operation, table.weight, table.fan_in) == ("embedding", "table.weight", 0)
    assert (pair.operation, pair.fan_in, pair.units) == ("bilinear", 36, 4)
    assert np.isnan(table.input_mean)
    assert np.isnan(pair.input_mean)
    assert table.std > 0
    weights = {r.name: r for r in snapshot.parameters}
    assert weights["table.weight"].layer == "table"
    assert np.isnan(weights["pair.weight"].mean_drift)
    assert np.isnan(weights["table.weight"].update_coherence)
    assert weights["pair.weight"].update_coherence > 0


def test_a_tied_table_still_has_its_rows():
    from tests.probes.networks import Tied

    model = Tied()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with probe(model, optimizer) as p:
        F.cross_entropy(model(torch.randint(12, (20,))), torch.randint(12, (20,))).backward()
        optimizer.step()
    snapshot = p.snapshot()
    tied = next(r for r in snapshot.parameters if r.name == "embedding.weight")
    assert tied.layer == "embedding"
    assert 0 < tied.update_coherence < 1
    assert tied.mean_drift > 0
    assert [(r.name, r.weight) for r in snapshot.weighted] == [
        ("embedding", "embedding.weight"),
        ("inner", "inner.weight"),
        ("linear", "embedding.weight"),
    ]
