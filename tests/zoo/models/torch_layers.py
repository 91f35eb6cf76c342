"""What torch makes layers of beside plain ones: each in a small network."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, skip_init, spectral_norm, weight_norm

from .entry import vectors
from .small import SEQUENCE, Called, entry, mlp, tokens


class Gathered(nn.Module):
    """Its weight is a part of a flat parameter, which is there while the layer runs only, as under FSDP."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Parameter(torch.randn(6 * 8 + 8) / 3)
        self.layer = nn.Linear(6, 8)
        del self.layer.weight, self.layer.bias

    def forward(self, x: Tensor) -> Tensor:
        self.layer.weight, self.layer.bias = self.flat[:48].view(8, 6), self.flat[48:]
        try:
            return torch.relu(self.layer(x))
        finally:
            del self.layer.weight, self.layer.bias


class Wrapper(nn.Module):
    """As DataParallel and others wrap a model: its attributes are those of the module inside."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)

    def forward(self, *inputs: Any) -> Any:
        return self.module(*inputs)


def _quantized() -> nn.Module:
    from torch.ao import quantization

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        net.qconfig = quantization.get_default_qat_qconfig("fbgemm")
        return quantization.prepare_qat(net.train())


def _fx() -> nn.Module:
    return torch.fx.symbolic_trace(mlp())


def _tied() -> nn.Module:
    one, two = nn.Embedding(12, 8), nn.Linear(8, 12, bias=False)
    two.weight = one.weight
    return nn.Sequential(one, nn.GELU(), two)


def _orthogonal() -> nn.Module:
    return nn.Sequential(parametrizations.orthogonal(nn.Linear(6, 6)), nn.ReLU(), nn.Linear(6, 3))


class Symmetric(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return w.triu() + w.triu(1).mT


def _own_parametrization() -> nn.Module:
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    parametrize.register_parametrization(net[0], "weight", Symmetric())
    return net


def _by_hooks() -> nn.Module:
    net = mlp()
    net[0].register_forward_hook(lambda module, inputs, output: output * 2)
    net[1].register_full_backward_hook(lambda module, given, output: None)
    net[2].register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    return net


def _parameters_only(net: Any, x: Tensor) -> Tensor:
    return torch.relu(torch.einsum("bi,oi->bo", x, net.w)) @ net.v + torch.addmm(net.b, x, net.u)


def _plain_parameters() -> nn.Module:
    shapes = {"w": (8, 6), "v": (8, 3), "u": (6, 3), "b": (3,)}
    return Called(_parameters_only, **{n: nn.Parameter(torch.randn(s) / 3) for n, s in shapes.items()})


def _scripted() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), torch.jit.script(mlp_between()), nn.Linear(8, 3))


def mlp_between() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))


def _traced() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), torch.jit.trace(mlp_between(), torch.randn(2, 8)), nn.Linear(8, 3))


def _compiled() -> nn.Module:
    return torch.compile(mlp(), backend="eager")


def _attention() -> nn.Module:
    return Called(
        lambda net, x: net.head(net.attention(x, x[:, :3], x[:, :3])[0]),
        attention=nn.MultiheadAttention(6, 2, batch_first=True),
        head=nn.Linear(6, 3),
    )


def _transformer() -> nn.Module:
    return Called(
        lambda net, x: net.core(x, x.flip(1)),
        core=nn.Transformer(6, 2, 1, 1, 12, dropout=0.1, batch_first=True),
    )


def _norms() -> nn.Module:
    kinds = [nn.BatchNorm1d(8), nn.GroupNorm(2, 8), nn.LayerNorm(8), nn.RMSNorm(8), nn.LocalResponseNorm(2)]
    return nn.Sequential(nn.Linear(6, 8), *kinds[:4], nn.Unflatten(1, (8, 1)), kinds[4], nn.Flatten(), nn.Linear(8, 3))


def _convolutions(space: int) -> nn.Module:
    conv, back = getattr(nn, f"Conv{space}d"), getattr(nn, f"ConvTranspose{space}d")
    layers = [conv(2, 4, 3, padding=1, groups=2), nn.ReLU(inplace=True), back(4, 4, 2, 2), nn.SiLU(inplace=True)]
    return nn.Sequential(*layers, conv(4, 3, 1), nn.Flatten(), nn.LazyLinear(3))


def _dry(space: int) -> nn.Module:
    """Its last layer knows the size of its input once it has run."""
    net = _convolutions(space)
    net(torch.randn(2, 2, *[4] * space))
    return net


def _begun(layer: nn.Linear) -> nn.Linear:
    layer.reset_parameters()
    return layer


def _pruned(layer: nn.Linear) -> nn.Linear:
    return prune.l1_unstructured(layer, "weight", 0.5)


def _bag() -> nn.Module:
    return nn.Sequential(nn.EmbeddingBag(12, 8), nn.ReLU(), nn.Linear(8, 3))


def _bilinear() -> nn.Module:
    return Called(lambda net, x: net.two(torch.relu(net.one(x, x))), one=nn.Bilinear(6, 6, 8), two=nn.Linear(8, 3))


ENTRIES = [
    entry("weights gathered for a call, as FSDP", lambda: nn.Sequential(Gathered(), nn.Linear(8, 3))),
    entry("a wrapper that forwards attributes", lambda: Wrapper(mlp())),
    entry("DataParallel", lambda: nn.DataParallel(mlp())),
    entry("quantisation aware", _quantized),
    entry("fx graph", _fx),
    entry("tied weights", _tied, tokens),
    entry("weight_norm", lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 8)), nn.ReLU())),
    entry("weight_norm, old", lambda: nn.Sequential(weight_norm(nn.Linear(6, 8)), nn.ReLU())),
    entry("spectral_norm", lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(6, 8)), nn.ReLU())),
    entry("spectral_norm, old", lambda: nn.Sequential(spectral_norm(nn.Linear(6, 8)), nn.ReLU())),
    entry("orthogonal", _orthogonal),
    entry("parametrization of one's own", _own_parametrization),
    entry("pruned", lambda: nn.Sequential(_pruned(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3))),
    entry("hooks of the user", _by_hooks),
    entry("parameters without layers", _plain_parameters),
    entry("scripted inside", _scripted, differs="a script"),
    entry("traced inside", _traced, differs="a script"),
    entry("compiled", _compiled),
    entry("MultiheadAttention", _attention, SEQUENCE),
    entry("nn.Transformer", _transformer, SEQUENCE),
    entry("every norm", _norms),
    *(entry(f"convolutions of {n} dimensions", functools.partial(_dry, n), vectors(2, 2, *[4] * n)) for n in (1, 2, 3)),
    entry("EmbeddingBag", _bag, tokens),
    entry("Bilinear", _bilinear),
    entry("skip_init", lambda: nn.Sequential(_begun(skip_init(nn.Linear, 6, 8)), nn.ReLU(), nn.Linear(8, 3))),
    entry("frozen layers", lambda: nn.Sequential(nn.Linear(6, 8).requires_grad_(False), nn.ReLU(), nn.Linear(8, 3))),
    entry("double", lambda: mlp().double(), lambda: (torch.randn(8, 6, dtype=torch.double),)),
    entry("bfloat16", lambda: mlp().bfloat16(), lambda: (torch.randn(8, 6, dtype=torch.bfloat16),)),
    entry("autocast", mlp, options={"precision": "bf16-mixed"}),
    entry("one pattern", mlp, vectors(1, 6)),
]
