"""A probe leaves no trace, never raises out of a training, and says what it has not seen."""

import contextlib
import copy
import math
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.nn.modules import module as module_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_tricks.probes import Probe, probe

from . import networks


def traces(model, optimizer):
    tables = [module_hooks._global_forward_hooks, module_hooks._global_forward_pre_hooks,
              module_hooks._global_forward_hooks_always_called, optimizer._optimizer_step_pre_hooks,
              optimizer._optimizer_step_post_hooks]  # fmt: skip
    tables += [table for m in model.modules() for table in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks)]
    tables += [p._backward_hooks for p in model.parameters() if p._backward_hooks]
    import torch._dynamo.decorators
    from torch._dynamo import eval_frame

    stance = eval_frame._stance.stance
    modes = torch.overrides._get_current_function_mode_stack()
    return sum(map(len, tables)), len(modes), stance, list(warnings.filters), model.training, list(model.state_dict())


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["forward", "backward", "step"])
def test_no_trace_is_left(error, where):
    model = nn.Sequential(networks.mlp(), nn.ReLU(inplace=True))
    optimizer = torch.optim.Adam(model.parameters())
    before = traces(model, optimizer)

    def fail(*args):
        if error is not None:
            raise error

    class Failing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            fail()
            return gradient

    p = probe(model, optimizer)
    expected = contextlib.nullcontext() if error is None else pytest.raises(error)
    with expected:
        with p:
            assert traces(model, optimizer)[1] == before[1] + 1
            y = model(torch.randn(4, 6))
            if where == "forward":
                fail()
            (Failing.apply(y) if where == "backward" else y).sum().backward()
            optimizer.step(fail if where == "step" and error is not None else None)
    assert traces(model, optimizer) == before
    assert p.snapshot().weighted[0].name == "0.0"
    pickle.loads(pickle.dumps((model, optimizer)))
    copy.deepcopy((model, optimizer))


def test_an_exception_inside_a_module_does_not_misname_what_follows():
    class Fragile(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(x) if len(x) > 1 else self.layer(x[:, :2])

    model = nn.Sequential(Fragile(), nn.ReLU())
    with probe(model) as p:
        with pytest.raises(RuntimeError):
            model(torch.randn(1, 3))
        model(torch.randn(4, 3))
    assert [r.name for r in p.snapshot().activations] == ["1"]


def test_bad_arguments_and_wrong_order_are_told():
    with pytest.raises(TypeError, match=r"torch\.nn\.Module, got str"):
        probe("net")
    with pytest.raises(ValueError, match=r"max_patterns must be at least 1.*got 0"):
        probe(nn.Linear(1, 1), max_patterns=0)
    for optimizer, message in [
        ("adam", r"optimizer must be a torch\.optim\.Optimizer .* got str 'adam'"),
        (torch.optim.Adam, r"got the class Adam: call it, such as Adam\(model\.parameters\(\)\)"),
        (nn.Linear(1, 1), "got Linear"),
    ]:
        with pytest.raises(TypeError, match=message):
            probe(nn.Linear(1, 1), optimizer)
    other = torch.optim.SGD(nn.Linear(1, 1).parameters())
    with pytest.raises(ValueError, match=r"optimizer SGD holds no parameter of this model, Linear: make it from"):
        probe(nn.Linear(1, 1), other)
    p = probe(nn.Linear(2, 2))
    with pytest.raises(RuntimeError, match=r"has seen no step: run one inside `with probe\(model\) as p:`"):
        p.snapshot()
    with p, pytest.raises(RuntimeError, match="after the with block"):
        p.snapshot()
    p.snapshot()
    with pytest.raises(RuntimeError, match="one step only"):
        p.open()
    assert p.snapshot() is p.snapshot()


def test_layers_are_globs_and_several():
    model = nn.Sequential(networks.mlp(), nn.Linear(3, 3), nn.Tanh())
    for layers, names in (("0.*", ["0.0", "0.1", "0.3", "0.4", "0.5"]), (["1", "*.1"], ["0.1", "1"]), ([], [])):
        with probe(model, layers=layers) as p:
            model(torch.randn(4, 6)).sum().backward()
        snapshot = p.snapshot()
        assert sorted(r.name for r in (*snapshot.weighted, *snapshot.activations)) == names


class Counting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("make", "shape"), [(networks.mlp, (8, 6)), (networks.cnn, (4, 2, 8, 8)), (networks.transformer, (4, 5, 8))]
)
def test_nothing_is_copied_to_the_host_during_the_step_and_one_tensor_after_it(make, shape, monkeypatch):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for module in ("sums", "activations"):  # as on an accelerator
        monkeypatch.setattr(f"lightning_tricks.stats.{module}.on_host", lambda x: False)
    with probe(model):  # where each function is flat is worked out once, on the host
        model(torch.randn(shape))
    copies = []
    for name in ("cpu", "item", "tolist", "numpy", "__array__", "__float__", "__bool__", "__int__"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda *a, _f=original, _n=name, **k: copies.append(_n) or _f(*a, **k))
    counted = Counting()
    p = probe(model, optimizer)
    with p, counted:
        model(torch.randn(shape)).square().mean().backward()
        optimizer.step()
    assert copies == []
    assert not {"_local_scalar_dense", "item", "nonzero", "is_nonzero"} & set(counted.names)
    p.snapshot()
    assert copies == ["cpu", "numpy"]


@pytest.mark.parametrize("at_hand", [True, False])
def test_a_look_runs_few_operations(at_hand, monkeypatch):
    for module in ("sums", "activations"):
        monkeypatch.setattr(f"lightning_tricks.stats.{module}.on_host", lambda x: at_hand)
    model = nn.Sequential(nn.Linear(20, 60), nn.ReLU(), nn.Linear(60, 60), nn.ReLU(), nn.Linear(60, 5))
    optimizer, x, y = torch.optim.SGD(model.parameters(), lr=0.1), torch.randn(32, 20), torch.randint(5, (32,))

    def operations(look):
        with Counting() as counted, look:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        if look is not plain:
            counted.names += counted_alone(look.snapshot)
        return len(counted.names)

    plain = contextlib.nullcontext()
    operations(probe(model, optimizer))
    assert operations(probe(model, optimizer)) - operations(plain) <= 330


def counted_alone(function):
    with Counting() as counted:
        function()
    return counted.names


def test_a_compiled_model_is_seen_and_not_compiled_again():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    model = torch.compile(net, backend=backend)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(5, 6)

    def look():
        optimizer.zero_grad()
        with probe(model, optimizer) as p:
            model(x).square().sum().backward()
            optimizer.step()
        snapshot = p.snapshot()
        assert [r.name for r in snapshot.records()] == [
            "0", "1", "2", "0.weight", "0.bias", "2.weight", "2.bias",
        ]  # fmt: skip
        assert all(r.error_signal > 0 for r in snapshot.weighted)
        assert dict(snapshot.not_seen) == {}

    look()
    assert len(graphs) == 0
    for _ in range(2):
        model(x).sum().backward()
        assert len(graphs) == 1
        look()
    model(x).sum().backward()
    assert len(graphs) == 1
    torch._dynamo.reset()


def test_a_probe_that_cannot_open_is_not_half_open():
    class Stubborn(torch.optim.SGD):
        def register_step_post_hook(self, hook):
            raise RuntimeError("no hooks here")

    model = nn.Linear(2, 2)
    optimizer = Stubborn(model.parameters(), lr=0.1)
    before = traces(model, optimizer)
    with pytest.raises(RuntimeError, match="no hooks"), probe(model, optimizer):
        pass
    assert traces(model, optimizer) == before


def test_opened_and_closed_by_hand_as_a_callback_does():
    model = networks.mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    p = Probe(model, step=7).open()
    loss = model(torch.randn(4, 6)).square().mean()
    loss.backward()
    p.read_gradients(model.parameters())
    gradient = model[0].weight.grad.clone()
    optimizer.step()
    p.read_updates()
    optimizer.zero_grad()
    p.close()
    p.close()
    snapshot = p.snapshot()
    assert snapshot.step == 7
    assert snapshot.loss == pytest.approx(loss.item())
    weight = snapshot.parameters[0]
    assert weight.gradient == pytest.approx(gradient.square().mean().sqrt().item(), rel=1e-5)
    assert weight.update == pytest.approx(0.5 * weight.gradient, rel=1e-4)


def test_without_an_optimizer_gradients_are_those_at_the_end_of_the_block():
    model = nn.Linear(3, 1)
    with probe(model) as p:
        model(torch.ones(2, 3)).sum().backward()
    expected, weight = model.weight.grad.square().mean().sqrt().item(), model.weight.detach().clone()
    model.zero_grad()
    with torch.no_grad():
        model.weight.zero_()
    record = p.snapshot().parameters[0]
    assert record.gradient == pytest.approx(expected)
    assert record.weight == pytest.approx(weight.square().mean().sqrt().item())
    assert math.isnan(record.update)
