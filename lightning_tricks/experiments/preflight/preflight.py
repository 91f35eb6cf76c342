"""Preflight: the outermost call of the first step, asked with a few further forwards before the training goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks.experiments.preflight.dependence import CONSTANT, dependence
from lightning_tricks.experiments.preflight.patterns import AllAlikeError, Collation, NotAskedError, mapped
from lightning_tricks.experiments.preflight.replay import replayable
from lightning_tricks.model.batches import tensors_in
from lightning_tricks.model.layers import has_running_statistics
from lightning_tricks.probes.records.preflight import PreflightRecord
from lightning_tricks.probes.watch.outermost import OutermostCall


def preflight(call: OutermostCall, collation: Collation) -> PreflightRecord:
    """Run a call again, without gradient, and say whose output depends on what.

    Nothing of the training changes. At most four forwards are made: the call as it was, the same again, with most
    patterns exchanged, and, where it draws random numbers, in training mode.

    Raises:
        NotAskedError: It cannot be asked with these arguments.
    """
    autocast: Any = contextlib.nullcontext()
    if call.autocast is not None:
        autocast = torch.autocast(call.autocast[0], dtype=call.autocast[1])
    with replayable(call.module, draws=call.drew) as (module, run), autocast:
        try:
            answer = dependence(run, call.args, call.kwargs, collation, call.targets, module, call.path)
        except AllAlikeError:
            return PreflightRecord(call.path, collation.size or 0, alike=True, collated=collation.collated)
        if not call.drew:
            return answer.record
        correlation = _draw_correlation(module, run, call, answer.outputs)
        return dataclasses.replace(answer.record, draw_correlation=correlation)


def has_one_target(call: OutermostCall, collation: Collation) -> bool:
    """Whether a tensor of the batch is one number throughout, and that is all that the losses want.

    Ones that are made in the step, as for a discriminator, or zeros for a residual, are no part of the batch.
    """
    given = {tensor.untyped_storage().data_ptr() for tensor in tensors_in((call.args, call.kwargs))}
    brought = [x for x in collation.tensors if x.numel() and x.untyped_storage().data_ptr() not in given]
    wanted = [each.numbers for each in call.targets if each.numbers.numel()]
    if not wanted or not (collation.size or 0) > 1:
        return False
    value = wanted[0].flatten()[0]
    if not all(bool((numbers == value).all()) for numbers in wanted):
        return False
    return any(bool((x == value).all()) for x in brought)


def _draw_correlation(module: nn.Module, run: Callable[..., Any], call: OutermostCall, base: list[Tensor]) -> float:
    """Of two draws: the square of that of a draw and their mean, which evaluation mode gives."""
    for each in module.modules():
        each.training = not has_running_statistics(each)
    args, kwargs = mapped((call.args, call.kwargs), lambda tensor: tensor.detach().clone())
    drawn = [x.detach().float() for x in tensors_in(run(*args, **kwargs)) if x.is_floating_point() and x.dim()]
    pairs = [(x, y.reshape(x.shape)) for x, y in zip(base, drawn, strict=False) if x.numel() == y.numel()]
    found = [correlation(x, y) for x, y in pairs if len(x) > 1]
    return float(torch.stack(found).amin()) if found else math.nan


def correlation(mean: Tensor, draw: Tensor) -> Tensor:
    """That of two draws, over patterns, pooled over units; NaN where the outputs do not differ.

    >>> mean = torch.randn(4000, 5, generator=torch.Generator().manual_seed(0))
    >>> noise = torch.randn(4000, 5, generator=torch.Generator().manual_seed(1))
    >>> round(float(correlation(mean, mean + noise)), 1)
    0.5
    """
    x, y = (each.flatten(1) if each.dim() > 1 else each[:, None] for each in (mean, draw))
    a, b = x - x.mean(0), y - y.mean(0)
    product, own = (a * b).mean(), a.square().mean() * b.square().mean()
    square = product * product.abs() / own
    constant = a.square().mean().sqrt() <= CONSTANT * x.square().mean().sqrt()
    return square.where(~constant, math.nan)


__all__ = ["Collation", "NotAskedError", "PreflightRecord", "correlation", "has_one_target", "preflight"]
