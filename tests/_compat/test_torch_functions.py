"""torch's functions under any wrapper, and a torch that lacks one of its private names."""

import functools
import subprocess
import sys
import textwrap
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks import probe
from lightning_tricks._compat import torch_functions
from lightning_tricks._compat.torch_optim import UNSCALING


def looked_at(model=None, x=None):
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    with probe(model) as p:
        output = model(torch.ones(2, 4) if x is None else x)
        (output[0] if isinstance(output, tuple) else output).sum().backward()
    return p.snapshot()


def names(snapshot):
    return [r.name for r in snapshot.weighted], [r.name for r in snapshot.activations]


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (torch._C, "DisableTorchFunction"),
        (torch._C, "_current_graph_task_id"),
        (torch.overrides, "_get_current_function_mode"),
        (torch._ops, "OpOverload"),
        (torch._ops, "OpOverloadPacket"),
        (torch._C, "_nn"),
        (torch, UNSCALING),
    ],
)
def test_a_torch_without_a_private_name_is_looked_at_all_the_same(monkeypatch, place, name):
    monkeypatch.delattr(place, name)
    torch_functions._operators.cache_clear()
    snapshot = looked_at()
    torch_functions._operators.cache_clear()
    assert names(snapshot) == (["0", "2"], ["1"])
    assert not snapshot.not_seen
    assert all(record.error_signal >= 0 for record in snapshot.weighted)


def test_what_a_missing_name_costs_is_said_once_and_is_no_error(monkeypatch):
    torch_functions.say_once.cache_clear()
    monkeypatch.delattr(torch._C, "_current_graph_task_id")
    with pytest.warns(UserWarning, match="lacks a name that probes use: what activation checkpointing") as said:
        assert [len(looked_at().weighted) for _ in range(2)] == [2, 2]
    assert len(said) == 1
    torch_functions.say_once.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not torch_functions.in_backward()


def test_the_package_imports_without_private_names():
    """With all of its public names; torch and Lightning, which need them, have been imported before."""
    run("""
        import importlib, lightning.pytorch, pytorch_lightning, torch, torch._dynamo, torchmetrics, torchvision
        from lightning.pytorch.core.mixins import hparams_mixin
        from torch._functorch import pyfunctorch, vmap
        from torch.autograd import forward_ad
        from torch.nn.modules import batchnorm, conv, dropout, module
        for place, names in (
            (torch, "_amp_foreach_non_finite_check_and_unscale_"),
            (torch._C, "DisableTorchFunction _current_graph_task_id _are_functorch_transforms_active _nn"),
            (torch._C._functorch, "_add_batch_dim _remove_batch_dim get_unwrapped is_batchedtensor maybe_get_bdim"),
            (torch._C._functorch, "maybe_get_level is_functorch_wrapped_tensor"),
            (torch._ops, "OpOverload OpOverloadPacket"),
            (torch.overrides, "_get_current_function_mode"),
            (torch.utils._pytree, "tree_flatten tree_leaves tree_map tree_unflatten"),
            (pyfunctorch, "retrieve_current_functorch_interpreter"),
            (vmap, "vmap_increment_nesting"),
            (forward_ad, "_current_level"),
            (batchnorm, "_BatchNorm _NormBase"), (conv, "_ConvNd _ConvTransposeNd"), (dropout, "_DropoutNd"),
            (module, "_global_forward_hooks_with_kwargs"),
            (hparams_mixin, "_given_hyperparameters"),
            (torch.optim.Optimizer, "_accelerator_graph_capture_health_check _cuda_graph_capture_health_check"),
        ):
            for name in names.split():
                if hasattr(place, name):
                    delattr(place, name)
        import lightning_tricks
        for name in lightning_tricks.__all__:
            getattr(lightning_tricks, name)
        for room in ("commands", "ensemble", "comparison", "experiments", "treatment", "report", "surgery", "modules"):
            importlib.import_module(f"lightning_tricks.{room}")
    """)


@pytest.mark.parametrize(("size_average", "reduce"), [(a, b) for a in (None, True, False) for b in (None, True, False)])
def test_the_reduction_that_old_arguments_ask_for_is_torchs(size_average, reduce):
    from torch.nn import _reduction

    expected = _reduction.legacy_get_string(size_average, reduce, emit_warning=False)
    assert torch_functions.legacy_reduction(size_average, reduce) == expected


def test_resolving_tells_wrappers_from_torchs_own(monkeypatch):
    own = F.relu
    assert torch_functions.resolve("functional.relu") == {own: own}
    assert torch_functions.resolve("functional.no_such") == {}
    wrapper = functools.wraps(own)(lambda *args, **kwargs: own(*args, **kwargs))
    monkeypatch.setattr(F, "relu", wrapper)
    assert torch_functions.resolve("functional.relu") == {wrapper: own, own: own}
    assert torch_functions.patched() == {"relu": wrapper}
    assert not torch_functions.is_torchs(wrapper)
    assert torch_functions.is_torchs(torch.relu)


@pytest.mark.parametrize("name", ["linear", "relu", "gelu", "embedding", "layer_norm", "cross_entropy", "dropout"])
def test_a_wrapper_made_later_is_seen_and_runs_once(monkeypatch, name):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.hidden, self.norm = nn.Embedding(5, 6), nn.Linear(6, 6), nn.LayerNorm(6)

        def forward(self, x):
            x = F.relu(self.norm(self.hidden(F.dropout(self.table(x), 0.0))))
            return F.gelu(x)

    def step():
        torch.manual_seed(0)
        net = Net()
        with probe(net) as p:
            loss = F.cross_entropy(net(torch.arange(5)), torch.arange(5))
            loss.backward()
        return p.snapshot(), loss.detach()

    (before, _), own, calls = step(), getattr(F, name), []

    def wrapper(*args, **kwargs):
        calls.append(name)
        return own(*args, **kwargs) * 1.5

    monkeypatch.setattr(F, name, wrapper)
    after, loss = step()
    assert len(calls) == 1
    for kind in ("weighted", "activations", "losses"):
        assert [r.name for r in getattr(after, kind)] == [r.name for r in getattr(before, kind)]
    assert not after.not_seen
    torch.manual_seed(0)
    net = Net()
    assert torch.equal(loss, F.cross_entropy(net(torch.arange(5)), torch.arange(5)).detach())


def test_a_function_in_the_place_of_torchs_that_tells_modes_itself_is_what_runs(monkeypatch):
    def mine(input, inplace=False):
        if torch.overrides.has_torch_function((input,)):
            return torch.overrides.handle_torch_function(mine, (input,), input, inplace=inplace)
        return torch.clamp(input, min=0.0, max=0.5)

    net, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.randn(8, 4)
    looked_at(net, x)  # torch's own is known from now on
    monkeypatch.setattr(F, "relu", mine)
    plain = net(x)
    with probe(net) as p:
        seen = net(x)
    assert torch.equal(seen, plain)
    assert [record.function for record in p.snapshot().activations] == ["relu"]


def test_a_wrapped_function_that_no_handler_knows_runs_once(monkeypatch):
    monkeypatch.setattr(F, "normalize", lambda x, own=F.normalize: 2.0 * own(x))
    x = torch.randn(4, 4)
    plain = F.normalize(x)
    with probe(nn.Linear(4, 4)) as p:
        seen = F.normalize(x)
    p.snapshot()
    assert torch.equal(seen, plain)


def test_wrapped_attention_is_seen_inside(monkeypatch):
    layer, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(2, 3, 8)
    inside = names(looked_at_attention(layer, x))[0]
    orig = F.multi_head_attention_forward
    for wrapper in (
        lambda *a, **k: orig(*a, **k),
        functools.wraps(orig)(lambda *a, **k: orig(*a, **k)),
    ):
        monkeypatch.setattr(F, "multi_head_attention_forward", wrapper)
        snapshot = looked_at_attention(layer, x)
        assert names(snapshot)[0] == inside
        assert not snapshot.not_seen


def looked_at_attention(layer, x):
    with probe(layer) as p:
        layer(x, x, x)[0].sum().backward()
    return p.snapshot()


def test_an_attention_of_another_kind_is_called_and_listed(monkeypatch):
    """Replaced as a whole, by something that tells modes of its calls itself."""

    def mine(query, *args, **kwargs):
        if torch.overrides.has_torch_function((query,)):
            return torch.overrides.handle_torch_function(mine, (query,), query, *args, **kwargs)
        return 2 * query, None

    monkeypatch.setattr(F, "multi_head_attention_forward", mine)
    layer, x = nn.MultiheadAttention(8, 2), torch.randn(2, 3, 8)
    with probe(layer) as p:
        output, _ = layer(x, x, x)
    assert torch.equal(output, 2 * x)
    assert list(p.snapshot().not_seen) == ["mine", "out_proj"]


def test_an_attention_that_still_asks_when_it_is_opened_runs_and_is_listed(monkeypatch):
    monkeypatch.setattr(torch_functions, "opened", lambda whole: whole)
    layer, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(2, 3, 8)
    plain = layer(x, x, x)[0]
    with probe(layer) as p:
        seen = layer(x, x, x)[0]
    assert torch.equal(seen, plain)
    assert "multi_head_attention_forward" in p.snapshot().not_seen


WRAPPED_BEFORE = """
    import functools, torch, torch.nn.functional as F
    from torch import nn
    def wrap(name, wraps):
        own = getattr(F, name)
        wrapper = lambda *a, **k: own(*a, **k)
        setattr(F, name, functools.wraps(own)(wrapper) if wraps else wrapper)
    for name in ("linear", "conv2d", "relu", "gelu", "embedding", "cross_entropy", "batch_norm",
                 "multi_head_attention_forward"):
        wrap(name, {wraps})
    from lightning_tricks import probe
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.table = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Embedding(4, 8)
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)
        def forward(self, x, i):
            x = F.relu(self.norm(self.conv(x))).mean((2, 3)) + self.table(i)
            return self.head(F.gelu(self.attention(x[:, None], x[:, None], x[:, None])[0][:, 0]))
    net = Net()
    with probe(net) as p:
        F.cross_entropy(net(torch.randn(4, 1, 8, 8), torch.arange(4)), torch.arange(4) % 3).backward()
    s = p.snapshot()
    print([r.operation for r in s.weighted], [r.function for r in s.activations], [r.function for r in s.losses],
          len(s.normalizations), dict(s.not_seen))
"""


def run(program):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("wraps", [True, False])
def test_what_was_wrapped_before_the_import_is_seen_once(wraps):
    printed = run(WRAPPED_BEFORE.format(wraps=wraps))
    operations = "['conv2d', 'embedding', 'linear', 'linear', 'linear', 'linear', 'linear']"
    assert printed == f"{operations} ['relu', 'gelu'] ['cross_entropy'] 1 {{}}"


def test_what_cannot_be_found_is_listed():
    """A wrapper that was there first, around a function that torch offers under no other name any more."""
    printed = run("""
        import lightning, torch, torch.nn.functional as F, torchmetrics
        from torch import nn
        own = F.linear
        F.linear = lambda *a, **k: own(*a, **k)
        del torch._C._nn
        from lightning_tricks import probe
        net = nn.Linear(2, 2)
        with probe(net) as p:
            net(torch.ones(1, 2)).sum().backward()
        print(len(p.snapshot().weighted), dict(p.snapshot().not_seen))
    """)
    assert printed.startswith("0 {'linear': ")
