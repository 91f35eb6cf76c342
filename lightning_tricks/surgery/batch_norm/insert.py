"""Batch norm for a network that has none: steps 1 to 5 of Algorithm 2 of Ioffe & Szegedy 2015."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from lightning_tricks._compat.torch_modules import keep_on_the_slow_path, parameters_of
from lightning_tricks.init.report import NoEffectWarning, Report
from lightning_tricks.model.arguments import check_module
from lightning_tricks.model.batches import Forward
from lightning_tricks.model.data_flow import DataFlow, trace
from lightning_tricks.model.layers import Model, is_linear, is_normalization
from lightning_tricks.surgery.batch_norm.convert import member, refuse_zero_eps
from lightning_tricks.surgery.batch_norm.normalized import NormalizedLayer
from lightning_tricks.surgery.replace import hand_over, refuse_wrapped, replace_modules

__all__ = ["insert_batch_norm"]


def insert_batch_norm(
    model: Model,
    batch: Any = None,
    *,
    where: str | Sequence[str] | None = None,
    cls: type = nn.BatchNorm2d,
    forward: Forward | None = None,
    optimizer: Optimizer | None = None,
    report: Report | None = None,
    **kwargs: Any,
) -> Model:
    """Puts a batch norm behind weighted layers, before whatever activation follows, in place, and returns the model.

    Each layer is wrapped in a :class:`~lightning_tricks.surgery.batch_norm.normalized.NormalizedLayer`, so that it
    does not matter whether its activation is a module or a function in someone's forward. Its bias, which the batch
    norm would subtract again, is dropped. Source: Ioffe & Szegedy 2015, Algorithm 2, steps 1 to 5, and section 3.2.
    The network's function changes: train it on, or at least take its statistics anew by
    :func:`~lightning_tricks.surgery.batch_norm.population.update_population_statistics`.

    Left alone, with the reason in the report: layers that are already normalised, called several times or never, or
    whose weight is used elsewhere; and, unless ``where`` names them, those no other weighted layer depends on (the
    outputs).

    Args:
        model: The network. It may be replaced itself: use the return value.
        batch: A batch to run, for a model whose forward ``torch.fx`` cannot read; a LightningModule's
            ``example_input_array`` is used by itself.
        where: Globs over the names of the layers that get one; None for all but the outputs.
        cls: The kind of batch norm, as any class of it; 1d, 2d or 3d follow from the layer.
        forward: ``forward(model, batch)`` for batches that do not simply go in.
        optimizer: An optimiser to be told: the dropped biases leave it, the new parameters join their layer's group.
        report: Collects which layers were wrapped, which biases were dropped, and what was left.
        **kwargs: Further arguments of the batch norms, such as ``momentum=0.01``.

    Raises:
        ValueError: The forward cannot be read without ``batch``; a layer is not initialised yet; an argument is out of
            range. Nothing is changed then.
        TypeError: ``cls`` is no batch norm, or does not take these arguments.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> insert_batch_norm(model)
    Sequential(
      (0): NormalizedLayer(
        (layer): Linear(in_features=4, out_features=8, bias=False)
        (batch_norm): BatchNorm1d(8, eps=1e-05, momentum=0.1, affine=True, ...track_running_stats=True)
      )
      (1): ReLU()
      (2): Linear(in_features=8, out_features=2, bias=True)
    )
    """
    check_module(model)
    report = Report() if report is None else report
    refuse_wrapped(model, "insert_batch_norm")
    member(cls, None)
    globs = [where] if isinstance(where, str) else where
    layers = {name: module for name, module in model.named_modules() if is_linear(module)}
    for name, layer in layers.items():
        if isinstance(weight := getattr(layer, "weight", None), Tensor) and is_lazy(weight):
            raise ValueError(f"insert_batch_norm: layer {name!r} is not initialised yet; run the model once before")
    flow = trace(
        model,
        lambda m: is_linear(m) or _is_norm(m),
        is_linear,
        batch,
        forward,
        "insert_batch_norm",
    )
    wrapped = {module.layer for module in model.modules() if isinstance(module, NormalizedLayer)}
    wrappers: dict[nn.Module, NormalizedLayer] = {}
    for name, layer in layers.items():
        why_not = "has its batch norm already" if layer in wrapped else _reason_against(name, layer, flow, globs)
        if why_not:
            report.leave(name, why_not)
            continue
        try:
            wrappers[layer] = NormalizedLayer(layer, _norm_for(layer, cls, kwargs))
        except (TypeError, ValueError) as error:
            raise type(error)(f"insert_batch_norm, layer {name!r}: {error}") from error
    if not wrappers:
        reasons = "; ".join(f"{entry.layer}: {entry.what}" for entry in report.left) or "no weighted layer"
        warnings.warn(f"insert_batch_norm inserted nothing ({reasons})", NoEffectWarning, stacklevel=2)
        return model
    names = {layer: name for name, layer in layers.items()}
    keep_on_the_slow_path(model, wrappers)
    model = replace_modules(model, lambda name, module: wrappers.get(module))
    dropped: list[nn.Parameter] = []
    new: dict[nn.Parameter, nn.Parameter] = {}
    for layer, wrapper in wrappers.items():
        bias = parameters_of(layer).get("bias")
        if bias is not None:
            dropped.append(bias)
            layer.bias = None  # type: ignore[assignment]
        new |= {parameter: next(layer.parameters()) for parameter in wrapper.batch_norm.parameters()}
        report.change(
            names[layer], f"followed by {type(wrapper.batch_norm).__name__}{'' if bias is None else ', bias dropped'}"
        )
    kept = {id(parameter) for parameter in model.parameters()}
    hand_over(optimizer, [bias for bias in dropped if id(bias) not in kept], new)
    return model


def _is_norm(module: nn.Module) -> bool:
    return is_normalization(module) or isinstance(module, nn.LocalResponseNorm)


def _reason_against(name: str, layer: nn.Module, flow: DataFlow, globs: Sequence[str] | None) -> str:
    calls = flow.of(layer)
    if globs is not None and not any(fnmatch.fnmatchcase(name, glob) for glob in globs):
        return "not asked for"
    if not calls:
        return "not called as a module"
    if len(calls) > 1:
        return f"called {len(calls)} times in a forward pass, which would share one set of statistics"
    if flow.is_borrowed(layer):
        return "its weight is used elsewhere as well"
    if id(parameters_of(layer).get("bias")) in flow.asked:
        return "its bias, which would be dropped, is asked for elsewhere"
    norms = [behind.module for behind in flow.behind(calls[0]) if _is_norm(behind.module)]
    if norms:
        return f"already followed by {type(norms[0]).__name__}"
    if globs is None and not calls[0].leads_on:
        return "an output: no other weighted layer depends on it"
    return ""


def _norm_for(layer: Any, cls: type, kwargs: dict[str, Any]) -> nn.Module:
    dimensions = 1 if isinstance(layer, nn.Linear) else len(layer.kernel_size)
    channels = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    norm: nn.Module = member(cls, dimensions)(channels, **kwargs)
    refuse_zero_eps(norm)
    # Where its weight lies; a subclass may keep that under another name.
    tensors = (getattr(layer, "weight", None), *layer.parameters(), *layer.buffers())
    like = next((value for value in tensors if isinstance(value, Tensor) and value.is_floating_point()), None)
    return (norm if like is None else norm.to(device=like.device, dtype=like.dtype)).train(layer.training)
