"""merge(a, b) equals the sums of both taken together, for every class, however the patterns are split."""

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_tricks.activations import by_name
from lightning_tricks.stats import (
    ActivationSums,
    ArrivedSums,
    JointMoments,
    MomentSums,
    ParameterSums,
    RowVectors,
    Sample,
    SquareSums,
    Sums,
    WeightedSums,
    to_host,
)

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(60, 5, generator=GENERATOR, dtype=torch.float64) * 2 + 0.5


def activation(name, x):
    g = by_name(name).bind()
    return ActivationSums.of(g, Sample(x, 0), Sample(g(x), 0), g(x), g.derivative(x))


def parameter(x):
    return ParameterSums(SquareSums.of(x), x.abs().sum(), SquareSums.of(2 * x), SquareSums.of(x / 3), rows(x))


def rows(x):
    return RowVectors.of(x, x.sum(1), x.abs().amax(1))


BUILDERS = {
    "moments": lambda x: MomentSums.of(x, 0),
    "joint": lambda x: JointMoments.of(x, torch.tanh(x), 0),
    "joint of units by patterns": lambda x: JointMoments.of(x.T.contiguous(), torch.relu(x).T.contiguous(), 1),
    "squares": SquareSums.of,
    "weighted": lambda x: WeightedSums.of(Sample(x, 0), Sample(x @ torch.ones(5, 3).double(), 0), x, x),
    "weighted without input": lambda x: WeightedSums.of(None, Sample(x, 0), x),
    "relu": functools.partial(activation, "relu"),
    "tanh": functools.partial(activation, "tanh"),
    "leaky_relu": functools.partial(activation, "leaky_relu"),
    "rows": rows,
    "rows without drift": lambda x: RowVectors.of(x, None, None),
    "parameter": parameter,
}


def on_host(sums):
    return sums.with_arrays(iter(map(np.asarray, sums.arrays())))


def assert_equal(one: Sums, other: Sums) -> None:
    assert type(one) is type(other)
    for f in dataclasses.fields(one):
        a, b = getattr(one, f.name), getattr(other, f.name)
        if f.name == "below_centred":
            continue  # less the mean of a unit in its own part
        if isinstance(a, Sums):
            assert_equal(a, b)
        elif a is None:
            assert b is None
        else:
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-10, atol=1e-12, err_msg=f.name)


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("cuts", [(7,), (1, 2), (20, 20, 59), (0,), (60,), (0, 30, 60)])
@pytest.mark.parametrize("first_to_host", [False, True])
def test_merged_parts_are_the_whole(name, cuts, first_to_host):
    build = BUILDERS[name]
    parts = [build(part) for part in torch.tensor_split(X, cuts)]
    whole = build(X)
    if first_to_host:
        parts = [on_host(part) for part in parts]
    whole = on_host(whole)
    assert_equal(on_host(functools.reduce(lambda a, b: a.merge(b), parts)), whole)
    assert_equal(on_host(functools.reduce(lambda a, b: b.merge(a), parts)), whole)


def test_arrays_go_out_and_come_back_in_their_places():
    sums = dataclasses.replace(parameter(X), rows=None, arrived=ArrivedSums(SquareSums.of(X), X.abs().amax()))
    numbered = sums.with_arrays(iter(range(len(sums.arrays()))))
    assert numbered.weight.square == 0
    assert numbered.row_differences == 1
    assert numbered.gradient.square == 2
    assert numbered.arrived.peak == len(sums.arrays()) - 1
    assert numbered.weight.count == X.numel()


def test_a_merged_record_on_the_host_still_lists_all_its_arrays():
    sums = parameter(X)
    host = on_host(sums)
    merged = host.merge(host)
    assert len(merged.arrays()) == len(host.arrays())


class Calls(TorchDispatchMode):
    """Counts the operations that torch runs."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_the_copy_to_the_host_takes_no_call_for_each_array():
    arrays = [torch.full((3,), float(index), requires_grad=True) for index in range(50)]
    with Calls() as calls:
        copied = to_host([*arrays, torch.tensor(7.0), torch.arange(4.0).reshape(2, 2)])
    assert calls.count < 25
    assert [array.tolist() for array in copied[:2]] == [[0.0] * 3, [1.0] * 3]
    assert copied[-2].item() == 7.0
    assert copied[-1].tolist() == [[0.0, 1.0], [2.0, 3.0]]


def test_what_one_part_lacks_the_other_gives():
    without = ParameterSums(SquareSums.of(X), None, None, None, None)
    merged = without.merge(parameter(X))
    assert merged.gradient is not None
    assert merged.weight.count == 2 * X.numel()


def test_rows_of_which_some_have_no_drift_are_added_up_all_the_same():
    known, unknown = rows(X), RowVectors.of(X, None, None)
    merged = on_host(unknown.merge(known))
    assert merged.rows == 2 * len(X)
    assert merged.drift_rows == len(X)
    assert merged.mean_drift == pytest.approx(on_host(known).mean_drift, rel=1e-12)


@pytest.mark.parametrize("shape", [(256, 128), (3000, 1), (40, 3, 5, 5), (2048,)])
def test_precise_squares_of_many_values_are_as_in_float64(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for size in (1e-25, 1.0, 1e25):
        rms = (x * size).double().square().mean().sqrt().item()
        assert SquareSums.of(x * size, precise=True).rms == pytest.approx(rms, rel=1e-6)
    assert SquareSums.of(torch.zeros(shape), precise=True).rms == 0.0


@pytest.mark.parametrize("size", [1e-30, 1e-22, 1e-3, 1e15, 1e25])
def test_rms_holds_from_a_vanished_to_an_exploded_signal(size):
    x = torch.randn(64, 7, generator=torch.Generator().manual_seed(0)) * size
    assert SquareSums.of(x, precise=True).rms == pytest.approx(x.double().square().mean().sqrt().item(), rel=1e-6)


def test_nothing_has_no_rms_and_nan_stays():
    assert math.isnan(SquareSums.of(torch.empty(0, 3)).rms)
    assert math.isnan(SquareSums.of(torch.tensor([1.0, math.nan])).rms)
    assert math.isinf(SquareSums.of(torch.tensor([1.0, math.inf])).rms)


def test_shapes_values_and_precisions_come_back():
    arrays = [torch.randn(3, 4), torch.tensor(7.0, dtype=torch.float64), torch.empty(0, 2), torch.ones(2).bfloat16()]
    arrays.append(torch.randn(5, requires_grad=True))
    back = to_host(arrays)
    for one, other in zip(arrays, back, strict=True):
        assert one.shape == other.shape
        np.testing.assert_array_equal(one.detach().double().numpy(), other)


def test_one_without_values_does_not_spoil_the_others():
    with FakeTensorMode() as mode:
        traced = mode.from_tensor(torch.ones(2))
    one, none, other = to_host([torch.arange(3.0), traced, torch.tensor(5.0)])
    assert one.tolist() == [0.0, 1.0, 2.0]
    assert np.isnan(none).all()
    assert none.shape == (2,)
    assert other == 5.0
    assert np.isnan(to_host([torch.ones(2, device="meta")])[0]).all()


def test_nothing_is_nothing():
    assert to_host([]) == []


def test_one_copy(monkeypatch):
    copies = []
    cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda t: copies.append(t.shape) or cpu(t))
    to_host([torch.ones(3), torch.ones(2, 2), torch.ones(())])
    assert copies == [torch.Size([8])]
