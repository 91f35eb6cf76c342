"""The registry: derivatives against autograd, flat sides against their definition, every module and alias."""

import ast
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lightning_tricks as lt
from lightning_tricks.activations import (
    Activation,
    activation_of,
    by_function,
    by_name,
    entries,
    properties_of,
    register,
    registry,
)

NAMES = [entry.name for entry in entries()]
# Other parameters than the defaults, for every entry that has any.
PARAMETERS = {
    "leaky_relu": {"negative_slope": 0.2},
    "prelu": {"weight": torch.tensor([0.3], dtype=torch.float64)},
    "rrelu": {"lower": 0.2, "upper": 0.3},
    "elu": {"alpha": 0.7},
    "celu": {"alpha": 1.4},
    "hardtanh": {"min_val": -0.5, "max_val": 2.0},
    "gelu": {"approximate": "tanh"},
    "softplus": {"beta": 2.0, "threshold": 10.0},
    "softshrink": {"lambd": 0.3},
    "hardshrink": {"lambd": 0.8},
    "threshold": {"threshold": 0.4, "value": -1.0},
}
DEFAULTS_THAT_ARE_NEEDED = {"prelu": {"weight": torch.tensor([0.25], dtype=torch.float64)}}


def bounds(name):
    bound = [by_name(name).bind(**DEFAULTS_THAT_ARE_NEEDED.get(name, {}))]
    return [*bound, by_name(name).bind(**PARAMETERS[name])] if name in PARAMETERS else bound


def test_every_parameter_is_tried():
    assert set(PARAMETERS) == {entry.name for entry in entries() if entry.parameters}


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_are_those_of_autograd(name):
    """Away from kinks, where the derivative is a convention."""
    a = torch.linspace(-30.0, 30.0, 4001, dtype=torch.float64) + 1e-4
    for bound in bounds(name):
        leaf = a.clone().requires_grad_()
        output = bound.activation.function(leaf, **dict(bound.parameters))
        (expected,) = torch.autograd.grad(output.sum(), leaf)
        assert torch.allclose(bound.derivative(a), expected, atol=1e-9), bound
        assert torch.allclose(bound.derivative(a, bound(a)), expected, atol=1e-9), bound


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_derivatives_keep_dtype_and_graph_free(name, dtype):
    parameters = {key: value.to(dtype) for key, value in DEFAULTS_THAT_ARE_NEEDED.get(name, {}).items()}
    bound = by_name(name).bind(**parameters)
    a = torch.linspace(-4, 4, 9, dtype=dtype)
    slope = bound.derivative(a)
    assert slope.dtype == dtype
    assert not slope.requires_grad
    assert bool(slope.isfinite().all())


@pytest.mark.parametrize("name", NAMES)
def test_flat_sides_are_where_the_slope_is_under_a_twentieth_of_the_largest(name):
    for bound in bounds(name):
        low, high = bound.flat_sides
        if any(isinstance(value, torch.Tensor) for _, value in bound.parameters):
            assert (low, high) == (-math.inf, math.inf)
            continue
        a = torch.linspace(-60, 60, 120_001, dtype=torch.float64) + 3e-5
        slope = bound.derivative(a).abs()
        beside_zero = bound.derivative(torch.tensor([-1e-12, 1e-12], dtype=torch.float64)).abs()  # SELU's largest
        flat = slope < 0.05 * max(slope.max(), beside_zero.max())
        left, right = a < low, a > high
        assert bool(flat[left | right].all()), bound
        between = a[~(left | right)]
        assert not bool(flat[~(left | right)][0])
        assert not bool(flat[~(left | right)][-1])
        assert float(between[0]) == pytest.approx(max(low, -60), abs=2e-3)
        assert float(between[-1]) == pytest.approx(min(high, 60), abs=2e-3)


def test_flat_sides_by_hand():
    assert by_name("relu").bind().flat_sides == (pytest.approx(0, abs=1e-9), math.inf)
    assert by_name("tanh").bind().flat_sides[1] == pytest.approx(math.atanh(math.sqrt(0.95)), abs=1e-9)
    low, high = by_name("sigmoid").bind().flat_sides
    root = math.log((0.5 + math.sqrt(0.25 - 0.05 / 4)) / (0.5 - math.sqrt(0.25 - 0.05 / 4)))
    assert (low, high) == (pytest.approx(-root), pytest.approx(root))
    assert by_name("elu").bind().flat_sides[0] == pytest.approx(math.log(0.05), abs=1e-9)
    # SELU's largest slope is scale * alpha, just below zero.
    assert by_name("selu").bind().flat_sides[0] == pytest.approx(math.log(0.05), abs=1e-3)
    assert by_name("leaky_relu").bind(0.2).flat_sides == (-math.inf, math.inf)
    assert by_name("leaky_relu").bind(0.01).flat_sides[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_units_can_die_exactly_where_the_registry_says(name):
    """hard_zero: the derivative is zero on an interval, not only in the limit."""
    grid = torch.linspace(-8.0, 8.0, 1601, dtype=torch.float64) + 1e-3
    zero = by_name(name).bind(**DEFAULTS_THAT_ARE_NEEDED.get(name, {})).derivative(grid) == 0
    assert (int(zero.sum()) > 50) == by_name(name).hard_zero


def modules():
    """One module of each class with other parameters than the defaults."""
    special = {"prelu": nn.PReLU(init=0.3).double().eval(), "threshold": nn.Threshold(0.4, -1.0)}
    for entry in entries():
        yield entry.name, special.get(entry.name) or entry.module(**PARAMETERS.get(entry.name, {}))


@pytest.mark.parametrize(("name", "module"), list(modules()))
def test_modules_are_known_with_their_parameters(name, module):
    bound = activation_of(module)
    assert bound.name == name
    a = torch.linspace(-7, 7, 101, dtype=torch.float64)
    assert torch.allclose(bound(a), module.eval()(a))


def test_every_elementwise_module_of_torch_is_known():
    from torch.nn.modules import activation as torchs

    not_elementwise = {"GLU", "MultiheadAttention", "Softmax", "Softmax2d", "LogSoftmax", "Softmin"}
    classes = {name for name in torchs.__all__ if name not in not_elementwise}
    assert classes == {entry.module.__name__ for entry in entries()}


@pytest.mark.parametrize("function", list(by_function))
def test_aliases_compute_the_same(function):
    entry = by_function[function]
    bound = entry.bind(**DEFAULTS_THAT_ARE_NEEDED.get(entry.name, {}))
    a = torch.linspace(-5, 5, 41, dtype=torch.float64)
    parameters = dict(bound.parameters)
    if entry.name == "gelu":  # the only one whose parameter has to be named
        assert torch.allclose(function(a.clone(), **parameters), bound(a))
    else:  # in the order of the call, as a probe sees it
        assert torch.allclose(function(a.clone(), *parameters.values()), bound(a))


def test_binding_takes_what_a_call_gives():
    entry = by_name("hardtanh")
    assert dict(entry.bind(-2.0).parameters) == {"min_val": -2.0, "max_val": 1.0}
    assert dict(entry.bind(max_val=3.0, inplace=True).parameters) == {"min_val": -1.0, "max_val": 3.0}
    assert dict(by_name("elu").bind(0.5, 1.0).parameters) == {"alpha": 0.5}
    with pytest.raises(ValueError, match="unknown activation 'nope'; known are celu"):
        by_name("nope")


def test_subclasses_and_strangers():
    class Mine(nn.SELU):
        pass

    assert activation_of(Mine()).name == "selu"
    assert activation_of(nn.Softmax(1)) is None
    assert activation_of(nn.Sequential(nn.ReLU())) is None


def test_a_call_during_a_probe_is_not_seen():
    """Flat sides are found by calling the function: a TorchFunctionMode that is open must not see that."""
    seen = []

    class Spy(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    bound = by_name("softplus").bind(1.37)  # parameters not asked for before, so nothing is cached
    with Spy():
        bound.flat_sides  # noqa: B018
    assert F.softplus not in seen


GRID = torch.linspace(-30.0, 30.0, 60_001, dtype=torch.float64)


def values(name):
    bound = bounds(name)[0]
    return bound, bound(GRID)


@pytest.mark.parametrize("name", NAMES)
def test_ranges_are_what_the_functions_reach(name):
    """Where a bound is said: it is kept to two digits, and reached. No bound: it grows without, or by a parameter."""
    _, g = values(name)
    low, high = by_name(name).range
    for bound, reached in ((low, float(g.min())), (high, float(g.max()))):
        if math.isfinite(bound):
            assert reached == pytest.approx(bound, abs=0.035 if name == "softsign" else 2e-3)
        elif name != "threshold":
            assert abs(reached) > 0.2


@pytest.mark.parametrize("name", NAMES)
def test_properties_are_those_of_the_function(name):
    bound, g = values(name)
    entry, positive = by_name(name), GRID > 0
    slopes = (g[1:] - g[:-1]) / (GRID[1:] - GRID[:-1])
    squashes = bool((slopes >= 0).all()) and all(math.isfinite(side) for side in (*entry.range, *bound.flat_sides))
    assert entry.two_sided == (squashes and name != "relu6")  # which is meant as a ReLU
    identity = torch.equal(g[positive], GRID[positive])
    zero_at_zero = float(bound(torch.zeros(1, dtype=torch.float64))) == 0.0
    assert entry.rectifier == (identity and zero_at_zero and name != "threshold" and bool((slopes < 1.01).all()))
    scaled = torch.allclose(bound(3.0 * GRID), 3.0 * g, atol=1e-9)
    assert entry.scale_free == (scaled and name != "threshold")
    assert entry.probability == (entry.two_sided and float(g.min()) == pytest.approx(0.0, abs=1e-9))
    assert entry.elementwise


def test_fading_activations_have_small_slopes():
    for entry in entries():
        bound = bounds(entry.name)[0]
        normal = torch.linspace(-2, 2, 401, dtype=torch.float64)
        if entry.fading:
            assert float(bound.derivative(normal).mean()) < 0.61, entry.name


def test_an_unknown_name_has_no_properties():
    for name in (None, "of a user"):
        known = properties_of(name)
        assert not any((known.two_sided, known.rectifier, known.scale_free, known.fading, known.probability))
        assert known.range == (-math.inf, math.inf)
    assert properties_of("tanh") is by_name("tanh")


def test_no_other_list_of_activations_by_name_in_the_package():
    package = Path(lt.__file__).parent
    names = {entry.name for entry in entries()}
    known = names | {entry.module.__name__ for entry in entries() if entry.module is not None}  # nn.Tanh, torch.tanh
    for path in package.rglob("*.py"):
        if path.parent.name == "activations":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            items = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", [])
            listed = [item.value for item in items if isinstance(item, ast.Constant) and item.value in names]
            listed += [item.attr for item in items if isinstance(item, ast.Attribute) and item.attr in known]
            assert len(listed) < 2, f"{path}:{node.lineno}: {listed}: ask the registry"


@pytest.fixture
def erf():
    class Erf(nn.Module):
        def forward(self, x):
            return torch.erf(x)

    known = dict(registry._BY_NAME)
    yield register(Activation("erf", torch.erf, module=Erf, range=(-1.0, 1.0), two_sided=True))
    registry._BY_NAME.clear()
    registry._BY_NAME.update(known)


def test_one_entry_adds_an_activation(erf):
    """Its functions, methods, in-place forms and module are seen; its properties, its module and its gain are known."""
    x = torch.randn(64, 4)
    for call in (torch.erf, torch.erf_, torch.Tensor.erf, torch.Tensor.erf_, torch.special.erf, erf.module()):
        net = nn.Sequential(nn.Linear(4, 4))
        with lt.probe(net) as p:
            call(net(x) * 1.0).sum().backward()
        (record,) = p.snapshot().activations
        assert record.function == "erf"
        assert 0.9 < record.linearity < 1.0
    assert properties_of("erf").two_sided
    assert activation_of(erf.module()).name == "erf"
    assert lt.init.moments("erf").mean == pytest.approx(0.0, abs=1e-12)
    swapped = lt.surgery.swap_activation(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "relu", "erf")
    assert isinstance(swapped[1], erf.module)
    with pytest.raises(ValueError, match="there is an activation 'erf' already"):
        register(erf)


def test_what_mixes_elements_has_no_derivative():
    bound = Activation("softmax", torch.softmax, {"dim": -1}, elementwise=False).bind(-1)
    with pytest.raises(ValueError, match="softmax does not act on every number alone"):
        bound.derivative(torch.zeros(3))
    assert bound.flat_sides == (-math.inf, math.inf)
