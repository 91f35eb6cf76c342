"""What torch itself can do beside layers in a row: each in a small network."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, skip_init, spectral_norm, weight_norm
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from .entry import Entry, loss_of_call, vectors

Batch = Callable[[], Any]
X = vectors(8, 6)
SEQUENCE = vectors(4, 5, 6)


def mlp(activation: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), activation or nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


class Called(nn.Module):
    """Layers, and how they are called: ``forward(self, x)`` is a function of the module and its input."""

    def __init__(self, call: Callable[..., Any], **layers: Any) -> None:
        super().__init__()
        self.call = call
        for name, layer in (layers or {"net": mlp()}).items():
            setattr(self, name, layer)

    def forward(self, *inputs: Any) -> Any:
        return self.call(self, *inputs)


def entry(name: str, make: Callable[[], nn.Module], batch: Batch = X, **options: Any) -> Entry:
    return Entry(name, options.pop("group", "torch"), make, batch, fast=options.pop("fast", True), **options)


# --- activations and recurrent layers ---------------------------------------------------------------------------

ACTIVATIONS = [
    "CELU",
    "ELU",
    "GELU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "Mish",
    "PReLU",
    "ReLU",
    "ReLU6",
    "RReLU",
    "SELU",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
]
UNCOUNTED = ("Softsign",)  # composed of others before torch's dispatcher is asked


def _activation(name: str) -> Entry:
    differs = "seen, where the dispatcher has no name for it" if name in UNCOUNTED else ""
    return entry(f"nn.{name}", lambda: mlp(getattr(nn, name)()), differs=differs, group="torch activations")


def _last(net: Any, x: Tensor) -> Tensor:
    return net.head(net.core(x)[0][:, -1])


def _recurrent(kind: str, layers: int, both: bool) -> Entry:
    def make() -> nn.Module:
        core = getattr(nn, kind)(6, 8, layers, batch_first=True, bidirectional=both, dropout=0.1 * (layers > 1))
        return Called(_last, core=core, head=nn.Linear(16 if both else 8, 3))

    return entry(f"nn.{kind}, {layers} layers{', both ways' * both}", make, SEQUENCE, group="torch recurrent")


def _by_cell(net: Any, x: Tensor) -> Tensor:
    state = None
    for column in x.unbind(1):
        state = net.cell(column, state)
    return net.head(state[0] if isinstance(state, tuple) else state)


def _cell(kind: str) -> Entry:
    return entry(
        f"nn.{kind}",
        lambda: Called(_by_cell, cell=getattr(nn, kind)(6, 8), head=nn.Linear(8, 3)),
        SEQUENCE,
        group="torch recurrent",
    )


# --- how a network may be called --------------------------------------------------------------------------------


def _functional_call(net: Any, x: Tensor) -> Tensor:
    given = {name: value * 1.0 for name, value in net.net.named_parameters()}
    return torch.func.functional_call(net.net, given, (x,))


def _vmap(net: Any, x: Tensor) -> Tensor:
    return torch.func.vmap(net.net)(x.unsqueeze(1))


def _jacobian(net: Any, x: Tensor) -> Tensor:
    return torch.func.vmap(torch.func.jacrev(lambda one: net.net(one)))(x)


def _penalty(net: nn.Module, batch: Any) -> Tensor:
    x = batch[0].clone().requires_grad_()
    score = net(x)
    (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
    return score.square().mean() + (slope.norm(dim=1) - 1).square().mean()


def _second_order(net: nn.Module, batch: Any) -> Tensor:
    weights = dict(net.named_parameters())
    inner = torch.func.functional_call(net, weights, batch).square().mean()
    slopes = torch.autograd.grad(inner, list(weights.values()), create_graph=True)
    adapted = {n: w - 0.1 * g for (n, w), g in zip(weights.items(), slopes, strict=True)}
    return torch.func.functional_call(net, adapted, batch).square().mean()


class OtherMode(TorchFunctionMode):
    """A function mode of somebody else's."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def _under_a_mode(net: nn.Module, batch: Any) -> Tensor:
    with OtherMode():
        return loss_of_call(net, batch)


def _threads(net: Any, x: Tensor) -> Tensor:
    found: dict[int, Tensor] = {}

    def work(index: int, part: Tensor) -> None:
        found[index] = net.net(part)

    workers = [threading.Thread(target=work, args=given) for given in enumerate(x.chunk(2))]
    for worker in workers:
        worker.start()
        worker.join()
    return torch.cat([found[0], found[1]])


class Marked(Tensor):
    """A tensor of a class of its own, as torchvision's images are."""


def _subclass(net: Any, x: Tensor) -> Tensor:
    return net.net(x.as_subclass(Marked))


def _complex(net: Any, x: Tensor) -> Tensor:
    hidden = net.one(torch.complex(x, x))
    return net.two(torch.tanh(hidden.abs()))


def _sparse(net: Any, x: Tensor) -> Tensor:
    graph = torch.eye(len(x)).roll(1, 0).to_sparse()
    return net.two(torch.relu(torch.sparse.mm(graph, net.one(x))))


def _nested(net: Any, x: Tensor) -> Tensor:
    ragged = torch.nested.nested_tensor([x[:3], x[3:]], layout=torch.jagged)
    return net.net(ragged).values()


class OwnFunction(torch.autograd.Function):
    """A derivative by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * (ctx.saved_tensors[0] > 0)


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


def _under_saved_hooks(net: nn.Module, batch: Any) -> Tensor:
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x.clone(), lambda x: x):
        return loss_of_call(net, batch)


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


def _sgd_of_groups(parameters: Any) -> torch.optim.Optimizer:
    first, *others = parameters
    return torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": others}], lr=0.01)


def _on(call: Callable[..., Any]) -> Callable[[], nn.Module]:
    return functools.partial(Called, call)


def _hidden(call: Callable[..., Any]) -> Callable[[], nn.Module]:
    return lambda: Called(call, one=nn.Linear(6, 8), two=nn.Linear(8, 3))


def _no_grad_inside(net: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        x = net.one(x)
    return net.two(torch.relu(x))


def _inference_inside(net: Any, x: Tensor) -> Tensor:
    with torch.inference_mode():
        x = net.one(x)
    return net.two(torch.relu(x.clone()))


TOKENS = functools.partial(lambda: (torch.randint(12, (4, 5)),))
WAYS = [
    entry("functional_call", _on(_functional_call)),
    entry("vmap", _on(_vmap), differs="transformed tensors"),
    entry("jacrev under vmap", _on(_jacobian), differs="transformed tensors"),
    entry("gradient penalty", mlp, loss=_penalty),
    entry(
        "second order, as MAML",
        mlp,
        loss=_second_order,
        differs="the dispatcher cannot tell weights that depend on data",
    ),
    entry("checkpoint", _on(lambda net, x: checkpoint(net.net, x, use_reentrant=False))),
    entry("checkpoint, reentrant", _on(lambda net, x: checkpoint(net.net, x.requires_grad_(), use_reentrant=True))),
    entry("checkpoint_sequential", _on(lambda net, x: checkpoint_sequential(net.net, 2, x, use_reentrant=False))),
    entry("function mode of somebody else", mlp, loss=_under_a_mode),
    entry("hooks on saved tensors", mlp, loss=_under_saved_hooks),
    entry("threads", _on(_threads), differs="a function mode is one thread's own"),
    entry("tensor subclass", _on(_subclass)),
    entry(
        "complex numbers",
        lambda: Called(_complex, one=nn.Linear(6, 8, dtype=torch.cfloat), two=nn.Linear(8, 3)),
        differs="complex values",
    ),
    entry("sparse product", _hidden(_sparse)),
    entry("nested tensors", _on(_nested), differs="nested values"),
    entry("derivative by hand", _hidden(lambda net, x: net.two(OwnFunction.apply(net.one(x))))),
    entry("weights gathered for a call, as FSDP", lambda: nn.Sequential(Gathered(), nn.Linear(8, 3))),
    entry("a wrapper that forwards attributes", lambda: Wrapper(mlp())),
    entry("DataParallel", lambda: nn.DataParallel(mlp())),
    entry("quantisation aware", _quantized),
    entry("fx graph", _fx),
    entry("tied weights", _tied, TOKENS),
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
    entry("EmbeddingBag", _bag, TOKENS),
    entry("Bilinear", _bilinear),
    entry("skip_init", lambda: nn.Sequential(_begun(skip_init(nn.Linear, 6, 8)), nn.ReLU(), nn.Linear(8, 3))),
    entry("no_grad inside", _hidden(_no_grad_inside)),
    entry("inference_mode inside", _hidden(_inference_inside)),
    entry("frozen layers", lambda: nn.Sequential(nn.Linear(6, 8).requires_grad_(False), nn.ReLU(), nn.Linear(8, 3))),
    entry("double", lambda: mlp().double(), lambda: (torch.randn(8, 6, dtype=torch.double),)),
    entry("bfloat16", lambda: mlp().bfloat16(), lambda: (torch.randn(8, 6, dtype=torch.bfloat16),)),
    entry("autocast", mlp, options={"precision": "bf16-mixed"}),
    entry("one pattern", mlp, vectors(1, 6)),
]


# --- optimisers -------------------------------------------------------------------------------------------------

OPTIMIZERS = [
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "LBFGS",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
]
MORE = {
    "Adam, foreach": lambda p: torch.optim.Adam(p, 0.01, foreach=True),
    "AdamW, fused": lambda p: torch.optim.AdamW(p, 0.01, fused=True),
    "Adam, amsgrad": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
    "SGD of two groups, Nesterov": lambda p: _sgd_of_groups(p),
    "LBFGS, strong Wolfe": lambda p: torch.optim.LBFGS(p, max_iter=3, line_search_fn="strong_wolfe"),
}


def _optimized(name: str, optimizer: Callable[[Any], torch.optim.Optimizer]) -> Entry:
    bias = name not in ("Muon",)  # for matrices only
    make = functools.partial(lambda: nn.Sequential(nn.Linear(6, 8, bias), nn.ReLU(), nn.Linear(8, 3, bias)))
    return entry(name, make, optimizer=optimizer, group="torch optimisers")


def _optimizers() -> list[Entry]:
    plain = {n: functools.partial(getattr(torch.optim, n), lr=0.01) for n in OPTIMIZERS if hasattr(torch.optim, n)}
    sparse = entry(
        "SparseAdam",
        lambda: nn.Sequential(nn.Embedding(12, 3, sparse=True), nn.Tanh()),
        TOKENS,
        optimizer=lambda p: torch.optim.SparseAdam(list(p), 0.01),
        group="torch optimisers",
    )
    return [*(_optimized(name, made) for name, made in {**plain, **MORE}.items()), sparse]


ENTRIES = [
    *map(_activation, ACTIVATIONS),
    *(_recurrent(kind, layers, both) for kind in ("RNN", "GRU", "LSTM") for layers, both in ((1, False), (2, True))),
    *map(_cell, ("RNNCell", "GRUCell", "LSTMCell")),
    *WAYS,
    *_optimizers(),
]
