"""Folding batch norm into the layers beside it: the last step of Algorithm 2 of Ioffe & Szegedy 2015."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.weight_norm import WeightNorm
from torch.optim import Optimizer

from lightning_tricks._compat.torch_modules import forward_pre_hooks_of, remove_padding
from lightning_tricks.init.report import NoEffectWarning, Report
from lightning_tricks.model.arguments import check_module
from lightning_tricks.model.batches import Forward
from lightning_tricks.model.data_flow import trace
from lightning_tricks.model.layers import Model, is_batch_norm
from lightning_tricks.surgery.batch_norm.fold_plan import FoldPlan, is_foldable_layer, is_watched
from lightning_tricks.surgery.batch_norm.normalized import FoldedBatchNorm
from lightning_tricks.surgery.replace import hand_over, refuse_wrapped, replace_modules

__all__ = ["fold_batch_norm"]


def fold_batch_norm(
    model: Model,
    batch: Any = None,
    *,
    forward: Forward | None = None,
    optimizer: Optimizer | None = None,
    report: Report | None = None,
) -> Model:
    r"""Makes batch norm part of the linear and convolution layers beside it, in place, and returns the model.

    In eval mode batch norm is :math:`y = s x + t` with :math:`s = \gamma / \sqrt{Var + \epsilon}` and
    :math:`t = \beta - s E[x]`. Behind a layer :math:`W x + b` it becomes :math:`(s W) x + (s b + t)`, before one
    :math:`(W s) x + (W t + b)`; before a convolution with zero padding the input is padded with :math:`-t/s` instead.
    Source: Ioffe & Szegedy 2015, Algorithm 2, step 11. The arithmetic is done in float64.

    A batch norm is folded where its neighbour, by the flow of the data and not by the order of registration, is a
    Linear, Conv or ConvTranspose layer that is called once, and nothing else looks at what passes between the two.
    Every other one is left alone and named in the report with the reason. Folding is for inference: the parameters of
    the batch norms are gone.

    Args:
        model: The network, in eval mode. It may be replaced itself: use the return value.
        batch: A batch to run, for a model whose forward ``torch.fx`` cannot read; a LightningModule's
            ``example_input_array`` is used by itself. Without one, a layer that later gets an input of other dimensions
            than it was folded for raises an error.
        forward: ``forward(model, batch)`` for batches that do not simply go in.
        optimizer: An optimiser to be told which parameters are gone and which are new.
        report: Collects what was folded into what, and what was left and why.

    Warns:
        UserWarning: The run on ``batch`` looked at the values of its data, so that other data may go another way.

    Raises:
        ValueError: The model or a layer is in training mode; it was folded before and nothing is left to fold; its
            forward cannot be read without ``batch``. Nothing is changed then.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    >>> x = torch.randn(2, 3, 5, 5)
    >>> before = model(x)
    >>> model = fold_batch_norm(model)
    >>> model[1]
    FoldedBatchNorm(into='0', dims=4)
    >>> torch.allclose(model(x), before, atol=1e-6)
    True
    """
    check_module(model)
    report = Report() if report is None else report
    refuse_wrapped(model, "fold_batch_norm")
    for name, module in model.named_modules():
        if module.training and (is_batch_norm(module) or module is model):
            raise ValueError(
                f"fold_batch_norm: {f'layer {name!r}' if name else 'the model'} is in training mode, where batch norm "
                "uses the statistics of the batch; call model.eval() first"
            )
    if not any(is_batch_norm(module) for module in model.modules()):
        _nothing_to_do(model, report)
        return model
    flow = trace(model, is_watched, is_foldable_layer, batch, forward, "fold_batch_norm")
    plan = FoldPlan(model, flow)
    for name, why in plan.left.items():
        report.leave(name, why)
    if not plan.replacements:
        _nothing_to_do(model, report)
        return model
    if flow.decisions:
        warnings.warn(
            f"fold_batch_norm: the forward of {type(model).__name__} looks at the values of its data "
            f"({', '.join(dict.fromkeys(flow.decisions))}) and may go another way for other data; the folding is right "
            "for the way that this batch went",
            stacklevel=2,
        )
    before = dict.fromkeys(model.parameters())
    groups = {layer: next(layer.parameters()) for layer in plan.parameters}
    for layer, (weight, bias) in plan.parameters.items():
        _write(layer, weight, bias, unpadded=layer in plan.unpadded)
    model = replace_modules(model, lambda name, module: plan.replacements.get(module))
    for name, into in plan.into.items():
        report.change(name, f"folded into {into or 'the model'}")
    after = dict.fromkeys(model.parameters())
    new = {p: old for layer, old in groups.items() for p in layer.parameters(recurse=False) if p not in before}
    hand_over(optimizer, [p for p in before if p not in after], new)
    return model


def _nothing_to_do(model: nn.Module, report: Report) -> None:
    if any(isinstance(module, FoldedBatchNorm) for module in model.modules()):
        raise ValueError("fold_batch_norm: the model was folded before, and there is nothing left to fold")
    reasons = "; ".join(f"{entry.layer}: {entry.what}" for entry in report.left)
    warnings.warn(f"fold_batch_norm folded nothing ({reasons or 'no batch norm'})", NoEffectWarning, stacklevel=3)


def _write(layer: Any, weight: Tensor, bias: Tensor, unpadded: bool) -> None:
    if any(isinstance(hook, WeightNorm) for hook in forward_pre_hooks_of(layer).values()):
        nn.utils.remove_weight_norm(layer)
    if parametrize.is_parametrized(layer):
        _bake(layer)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if layer.bias is None:
            layer.bias = nn.Parameter(bias.to(layer.weight.dtype), requires_grad=layer.weight.requires_grad)
        else:
            layer.bias.copy_(bias)
    if unpadded:
        remove_padding(layer)


def _bake(layer: Any) -> None:
    """Makes parametrized tensors plain parameters again.

    Not by ``remove_parametrizations``: that takes the tensors' properties off a class which a deepcopy shares with its
    original, so that folding a copy would break the original.
    """
    computed = {name: getattr(layer, name).detach().clone() for name in layer.parametrizations}
    learned = {name: any(p.requires_grad for p in layer.parametrizations[name].parameters()) for name in computed}
    layer.__class__ = parametrize.type_before_parametrizations(layer)
    del layer.parametrizations
    for name, value in computed.items():
        layer.register_parameter(name, nn.Parameter(value, requires_grad=learned[name]))
