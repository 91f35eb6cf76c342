"""widen_for_dropout: dropout behind hidden layers, which get as many more units as it takes away."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from lightning_tricks._compat.torch_modules import DropoutNd, forward_pre_hooks_of
from lightning_tricks.activations import activation_of
from lightning_tricks.init.report import NoEffectWarning, Report
from lightning_tricks.model.arguments import check_module
from lightning_tricks.model.batches import Forward
from lightning_tricks.model.data_flow import DataFlow, ModuleCall, trace
from lightning_tricks.model.layers import Model, is_batch_norm, is_linear
from lightning_tricks.nn.dropout import AlphaDropout, matched_p
from lightning_tricks.surgery.replace import hand_over, refuse_wrapped, replace_modules

__all__ = ["widen_for_dropout"]


@dataclass
class _Path:
    """From a weighted layer to the next one, and what stands between them."""

    first: Any
    second: Any
    between: list[Any] = field(default_factory=list)
    activation: Any = None


def widen_for_dropout(
    model: Model,
    p: float = 0.5,
    *,
    weights: Literal["new", "copied"] = "new",
    batch: Any = None,
    forward: Forward | None = None,
    optimizer: Optimizer | None = None,
    report: Report | None = None,
) -> Model:
    r"""Puts dropout behind the activations of hidden layers, and gives these layers more units, in place.

    A layer of n units of which a share p is dropped trains n (1 - p) at a time. With :math:`n' = n / (1 - p)`, twice
    as many at p = 1/2, the thinned networks are as large as the network was (Srivastava et al. 2014, appendix A.1).

    Widened are Linear and Conv layers whose output passes, untouched by anything else, through batch norm, activation,
    pooling or flattening modules into the next such layer. Others are left and named in the report: layers that are
    called several times, grouped, tied or computed by a hook; what a forward does by functions (``F.relu``, residual
    sums). Dropout that stands behind the activation already gets this p; behind SELU it is alpha dropout, as noisy.

    Args:
        model: The network. It may be replaced itself: use the return value.
        p: The share of units that are dropped, in [0, 1).
        weights: "new": the layers on both sides, and the batch norms between, begin anew as torch begins them
            (``lt.init.initialize`` after that). "copied": every further unit is a copy of another one, and the next
            layer divides its weights by the number of copies, so that the network's function in evaluation mode stays
            (Chen et al. 2016, Net2WiderNet); the dropout tells copies apart.
        batch: A batch to run, for a model whose forward ``torch.fx`` cannot read.
        forward: ``forward(model, batch)`` for batches that do not simply go in.
        optimizer: An optimiser to be told which parameters are gone and which are new.
        report: Collects what was widened, and what was left and why.

    Raises:
        ValueError: p or ``weights`` is out of range; the forward cannot be read without ``batch``. Nothing is changed.

    Warns:
        NoEffectWarning: No layer could be widened.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> widen_for_dropout(net, 0.5)
    Sequential(
      (0): Linear(in_features=4, out_features=16, bias=True)
      (1): Sequential(
        (0): ReLU()
        (1): Dropout(p=0.5, inplace=False)
      )
      (2): Linear(in_features=16, out_features=2, bias=True)
    )
    """
    check_module(model)
    if not 0.0 <= p < 1.0:
        raise ValueError(f"p, the share of units that are dropped, has to be in [0, 1), not {p}")
    if weights not in ("new", "copied"):
        raise ValueError(f"weights has to be 'new' or 'copied', not {weights!r}")
    report = Report() if report is None else report
    refuse_wrapped(model, "widen_for_dropout")
    flow = trace(model, _is_watched, is_linear, batch, forward, "widen_for_dropout")
    paths: list[tuple[str, _Path]] = []
    for name, layer in model.named_modules():
        if is_linear(layer):
            found = _path_from(layer, flow)
            if isinstance(found, str):
                report.leave(name, found)
            else:
                paths.append((name, found))
    if not paths:
        reasons = "; ".join(f"{entry.layer}: {entry.what}" for entry in report.left) or "no Linear or Conv layer"
        warnings.warn(f"widen_for_dropout widened nothing ({reasons})", NoEffectWarning, stacklevel=2)
        return model
    before = dict.fromkeys(model.parameters())
    replaced: dict[nn.Parameter, nn.Parameter] = {}
    for name, path in paths:
        old = _width(path.first)
        new = round(old / (1 - p))
        _widen(path, new, replaced)
        report.change(name, f"{old} -> {new} units, dropout of {p:g} behind {type(path.activation).__name__}")
    if weights == "new":
        for module in dict.fromkeys(m for _, path in paths for m in (path.first, path.second, *path.between)):
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    dropouts = {path.activation: path for _, path in paths}
    model = replace_modules(model, lambda _, module: _with_dropout(dropouts[module], p) if module in dropouts else None)
    after = dict.fromkeys(model.parameters())
    hand_over(optimizer, [q for q in before if q not in after], {q: o for q, o in replaced.items() if q in after})
    return model


def _is_watched(module: nn.Module) -> bool:
    if is_linear(module) or is_batch_norm(module) or isinstance(module, (DropoutNd, AlphaDropout, nn.Flatten)):
        return True
    return activation_of(module) is not None or type(module).__module__ == "torch.nn.modules.pooling"


def _path_from(layer: nn.Module, flow: DataFlow) -> _Path | str:
    """The way from a layer to the next, or why it cannot be widened."""
    reason = _reason_against(layer, flow)
    if reason:
        return reason
    call, path = flow.of(layer)[0], _Path(layer, None)
    while path.second is None:
        follower = _only_follower(call, flow)
        if isinstance(follower, str):
            return follower
        module: Any = follower.module
        if is_linear(module):
            path.second = module
        elif len(flow.of(module)) > 1:
            return f"the {type(module).__name__} behind it is called several times"
        else:
            path.between.append(module)
        call = follower
    reason = _reason_against(path.second, flow)
    return f"the layer behind it: {reason}" if reason else _checked(path)


def _only_follower(call: ModuleCall, flow: DataFlow) -> ModuleCall | str:
    behind = flow.behind(call)
    if not behind and not call.leads_on:
        return "an output: no other weighted layer depends on it"
    if len(behind) != 1 or call.uses != 1:
        return f"the output of its {type(call.module).__name__} goes elsewhere, or through a function of the forward"
    return behind[0]


def _reason_against(layer: Any, flow: DataFlow) -> str:
    if len(flow.of(layer)) != 1:
        return f"called {len(flow.of(layer))} times"
    if not isinstance(getattr(layer, "weight", None), Tensor):
        return "it has no tensor as its weight"
    sharing = [call for call in flow.calls if getattr(call.module, "weight", None) is layer.weight]
    if flow.is_borrowed(layer) or len(sharing) > 1:
        return "its weight is used elsewhere as well"
    if parametrize.is_parametrized(layer) or any(
        type(hook).__module__.startswith("torch.nn.utils") for hook in forward_pre_hooks_of(layer).values()
    ):
        return "its weight is computed from others"
    if getattr(layer, "groups", 1) != 1 or getattr(layer, "transposed", False):
        return "a grouped or transposed convolution"
    return ""


def _checked(path: _Path) -> _Path | str:
    """The path with its activation, or why it is none to widen."""
    for module in path.between:
        known = activation_of(module)
        if known is not None:
            if not known.activation.elementwise:
                return f"{type(module).__name__} acts on all units together"
            if any(parameter.numel() > 1 for parameter in module.parameters()):
                return f"{type(module).__name__} has a parameter for each unit"
            path.activation = module
        elif isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (1, -1):
            return "a Flatten of other dimensions"
    if path.activation is None:
        return "there is no activation behind it"
    if _inputs(path.second) % _width(path.first):
        return "the next layer's inputs are no multiple of its units"
    return path


def _width(layer: Any) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def _inputs(layer: Any) -> int:
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)


@torch.no_grad()
def _widen(path: _Path, new: int, replaced: dict[nn.Parameter, nn.Parameter]) -> None:
    """Unit k becomes a copy of unit k modulo the old number; the next layer's weights are divided among copies."""
    old = _width(path.first)
    device = path.first.weight.device
    origin = torch.arange(new, device=device) % old
    copies = torch.bincount(origin, minlength=old)[origin]
    _put(path.first, "weight", path.first.weight[origin], replaced)
    if path.first.bias is not None:
        _put(path.first, "bias", path.first.bias[origin], replaced)
    for module in path.between:
        if is_batch_norm(module):
            each = module.num_features // old
            for name, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                if value.shape == (module.num_features,):
                    _put(module, name, value[_features_of(origin, each)], replaced)
            module.num_features = new * each
    each = _inputs(path.second) // old
    weight, columns = path.second.weight, _features_of(origin, each)
    share = copies.repeat_interleave(each).to(weight.dtype).view(1, -1, *[1] * (weight.dim() - 2))
    _put(path.second, "weight", weight[:, columns] / share, replaced)
    for layer, name, count in ((path.first, "out", new), (path.second, "in", new * each)):
        setattr(layer, f"{name}_{'features' if isinstance(layer, nn.Linear) else 'channels'}", count)


def _features_of(units: Tensor, each: int) -> Tensor:
    """The features of these units, of which each has several behind a Flatten: its pixels."""
    return (units[:, None] * each + torch.arange(each, device=units.device)).flatten()


def _put(module: Any, name: str, value: Tensor, replaced: dict[nn.Parameter, nn.Parameter]) -> None:
    old = getattr(module, name)
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(value.clone(), requires_grad=old.requires_grad)
        setattr(module, name, new)
        replaced[new] = replaced.get(old, old)
    else:
        setattr(module, name, value.clone())


def _with_dropout(path: _Path, p: float) -> nn.Module | None:
    """The activation with dropout behind it; None where there is one, which now has this p."""
    here = path.between[path.between.index(path.activation) + 1 :]
    for module in here:
        if isinstance(module, (DropoutNd, AlphaDropout)):
            module.p = p
            return None
    known = activation_of(path.activation)
    selu = known is not None and known.name == "selu"
    return nn.Sequential(path.activation, AlphaDropout(matched_p(p)) if selu else nn.Dropout(p))
