"""Base classes and dictionaries of torch's modules, with their names and without them."""

from __future__ import annotations

import importlib
import types

import pytest
import torch
from torch import nn
from torch.nn.modules import batchnorm, conv, dropout
from torch.nn.modules import module as modules

from lightning_tricks._compat import torch_modules
from lightning_tricks._compat.torch_modules import strip_wrappers

BASES = {
    "ConvNd": (conv, "_ConvNd", [nn.Conv1d(1, 1, 1), nn.LazyConv2d(1, 1), nn.ConvTranspose3d(1, 1, 1)]),
    "ConvTransposeNd": (conv, "_ConvTransposeNd", [nn.ConvTranspose1d(1, 1, 1), nn.LazyConvTranspose2d(1, 1)]),
    "BatchNorm": (batchnorm, "_BatchNorm", [nn.BatchNorm1d(1), nn.SyncBatchNorm(1), nn.LazyBatchNorm3d()]),
    "NormBase": (batchnorm, "_NormBase", [nn.BatchNorm2d(1), nn.InstanceNorm2d(1), nn.LazyInstanceNorm1d()]),
    "DropoutNd": (dropout, "_DropoutNd", [nn.Dropout(), nn.Dropout2d(), nn.AlphaDropout(), nn.FeatureAlphaDropout()]),
}


@pytest.fixture
def reloaded(monkeypatch):
    """The file as it is read where torch lacks a name; afterwards as it was."""

    def without(module, name):
        monkeypatch.delattr(module, name)
        return importlib.reload(torch_modules)

    before = dict(vars(torch_modules))
    yield without
    vars(torch_modules).update(before)


@pytest.mark.parametrize("name", BASES)
def test_base_classes(name):
    home, private, layers = BASES[name]
    assert getattr(torch_modules, name) is getattr(home, private)
    assert all(isinstance(layer, getattr(torch_modules, name)) for layer in layers)


@pytest.mark.parametrize("name", BASES)
def test_base_classes_without_the_private_name(name, reloaded):
    home, private, layers = BASES[name]
    base = getattr(reloaded(home, private), name)
    assert all(isinstance(layer, base) for layer in layers)
    assert not any(isinstance(layer, base) for layer in (nn.Linear(1, 1), nn.LayerNorm(1), nn.Identity()))
    assert isinstance(nn.Linear(1, 1), (nn.Linear, base))
    assert isinstance(nn.Linear(1, 1), base | nn.Linear)
    assert issubclass(type(layers[0]), base)


def test_dictionaries_are_the_modules_own():
    layer = nn.BatchNorm1d(2)
    torch_modules.parameters_of(layer)["bias"] = None
    torch_modules.buffers_of(layer)["running_mean"] = torch.ones(2)
    assert layer.bias is None
    assert layer.running_mean.tolist() == [1.0, 1.0]
    net = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    torch_modules.children_of(net)["1"] = nn.SELU()
    assert isinstance(net[1], nn.SELU)


def test_hooks():
    layer = nn.Linear(1, 1)
    hooks = [lambda *_: None for _ in range(4)]
    layer.register_forward_hook(hooks[0])
    layer.register_forward_pre_hook(hooks[1])
    layer.register_full_backward_pre_hook(hooks[2])
    layer.register_full_backward_hook(hooks[3])
    assert list(torch_modules.forward_hooks_of(layer).values()) == hooks[:1]
    assert list(torch_modules.forward_pre_hooks_of(layer).values()) == hooks[1:2]
    assert torch_modules.backward_hooks_of(layer) == hooks[2:]


def test_moved_hooks_keep_their_handles():
    old, new = nn.Linear(1, 1), nn.Linear(1, 1)
    seen = []
    handle = old.register_forward_hook(lambda module, args, output: seen.append(module))
    old.register_state_dict_post_hook(lambda *_: None)
    torch_modules.move_call_hooks(old, new)
    new(torch.ones(1, 1))
    old(torch.ones(1, 1))
    assert seen == [new]
    handle.remove()
    assert not torch_modules.forward_hooks_of(new)
    assert torch_modules.count_state_hooks(old) == 1


@pytest.mark.parametrize("private", [True, False], ids=["its mark", "without"])
def test_moved_hooks_around_a_backward_are_called(private, monkeypatch):
    old, new, seen = nn.Linear(1, 1), nn.Linear(1, 1), []
    old.register_full_backward_hook(lambda module, *_: seen.append(module))
    if not private:
        monkeypatch.delattr(old, "_is_full_backward_hook")
        monkeypatch.setattr(new, "_is_full_backward_hook", True)
    torch_modules.move_call_hooks(old, new)
    new(torch.ones(1, 1, requires_grad=True)).sum().backward()
    assert seen == [new]


def test_apply_alone_leaves_the_children():
    net = nn.Sequential(nn.Linear(1, 1))
    net.register_buffer("scale", torch.ones(1))
    torch_modules.apply_alone(net, lambda tensor: tensor.double())
    assert net.scale.dtype == torch.float64
    assert net[0].weight.dtype == torch.float32


@pytest.mark.parametrize(
    "layer",
    [
        nn.LSTM(2, 3, num_layers=2, bidirectional=True, proj_size=1),
        nn.GRU(2, 3, bias=False),
        nn.RNN(2, 3, num_layers=2),
    ],
)
def test_recurrent_weights_without_the_private_name(layer, monkeypatch):
    names = torch_modules.recurrent_weight_names(layer)
    assert set(names) == {name for name, _ in layer.named_parameters()}
    monkeypatch.delattr(layer, "_flat_weights_names")
    assert torch_modules.recurrent_weight_names(layer) == names


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(1, 1, (3, 5), padding=(1, 2)),
        nn.Conv2d(1, 1, (2, 3), padding="same", dilation=(1, 2)),
        nn.Conv1d(1, 1, 3, padding="valid"),
        nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular"),
    ],
)
def test_padding_without_the_private_name(layer, monkeypatch):
    padding = torch_modules.padding_of(layer)
    assert len(padding) == 2 * len(layer.kernel_size)
    monkeypatch.delattr(layer, "_reversed_padding_repeated_twice")
    assert torch_modules.padding_of(layer) == padding
    if layer.padding_mode == "zeros":
        torch_modules.remove_padding(layer)
        assert not any(torch_modules.padding_of(layer))


def test_removed_padding():
    layer = nn.Conv1d(1, 1, 3, padding="same")
    torch_modules.remove_padding(layer)
    assert layer(torch.ones(1, 1, 3)).shape == (1, 1, 1)


def test_whose_convolution_a_class_runs(monkeypatch):
    class Own(nn.Conv1d):
        def _conv_forward(self, *args):
            return super()._conv_forward(*args)

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    assert torch_modules.runs_convolution_of(type("Plain", (nn.Conv1d,), {}), kinds)
    assert torch_modules.runs_convolution_of(nn.Linear, kinds)
    assert not torch_modules.runs_convolution_of(Own, kinds)
    monkeypatch.delattr(nn.Conv1d, "_conv_forward")
    assert torch_modules.runs_convolution_of(nn.Conv1d, kinds)


def test_only_what_wrappers_put_in_goes():
    assert strip_wrappers("_orig_mod.module.encoder.0._fsdp_wrapped_module.bias") == "encoder.0.bias"
    assert strip_wrappers("modules.0.weight") == "modules.0.weight"


def test_calls_are_heard_until_the_end(nothing_left):
    """And no flag of torch's stays, by which compiled modules would believe in a hook."""
    heard, layer = [], nn.Linear(2, 2)
    end = torch_modules.hear_calls(lambda module, args, kwargs, output: heard.append((module, list(kwargs))))
    layer(input=torch.ones(1, 2))
    end()
    layer(torch.ones(1, 2))
    assert heard == [(layer, ["input"])]
    assert not modules._global_forward_hooks_with_kwargs
    flag = getattr(torch.nn.modules.module, "_has_any_global_hook", lambda: False)  # torch 2.6 has none
    assert not flag()


def test_calls_are_heard_where_torch_keeps_no_such_flag(monkeypatch, nothing_left):
    monkeypatch.setattr(torch_modules, "modules", types.SimpleNamespace())  # without _global_forward_hooks_with_kwargs
    heard = []
    end = torch_modules.hear_calls(lambda module, *_: heard.append(module))
    nn.Linear(2, 2)(torch.ones(1, 2))
    end()
    monkeypatch.undo()
    modules._global_forward_hooks_with_kwargs.clear()
    assert len(heard) == 1
