"""Population statistics of batch norm: Algorithm 2 of Ioffe & Szegedy 2015, steps 7 to 10, exactly."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from lightning_tricks._compat.torch_modules import buffers_of
from lightning_tricks.init.report import NoEffectWarning, Report
from lightning_tricks.model.arguments import check_module
from lightning_tricks.model.batches import Forward
from lightning_tricks.model.isolated import isolated
from lightning_tricks.model.layers import Model, is_batch_norm
from lightning_tricks.nn.batch_norm import BatchNorm
from lightning_tricks.stats.moments import MomentSums
from lightning_tricks.surgery.batch_norm.batch_statistics import BatchStatistics, Estimator
from lightning_tricks.surgery.batch_norm.data_pass import DataPass

__all__ = ["tracked_batch_norms", "update_population_statistics"]

_MOST_ROUNDS = 20  # for a shared layer that feeds itself
_STATISTICS = ("running_mean", "running_var")
_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_EXACT = (torch.float32, torch.float64)


def tracked_batch_norms(model: nn.Module, layers: str | Sequence[str] = "*") -> dict[str, BatchNorm]:
    """The batch-norm layers whose running statistics follow the data, by name.

    Left out as frozen: a layer without running statistics or with ``track_running_stats=False`` (so freezes Lightning's
    BaseFinetuning), one with momentum 0, and, where the model is in training mode, one in eval mode. A model in eval
    mode does not show which of its layers were frozen: ask while it trains, and pass the names on.

    Args:
        model: Any module.
        layers: Globs over the names.

    >>> model = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4).eval())
    >>> list(tracked_batch_norms(model))
    ['0']
    """
    globs = [layers] if isinstance(layers, str) else list(layers)
    return {
        name: module
        for name, module in model.named_modules()
        if is_batch_norm(module)
        and any(name == glob or fnmatch.fnmatchcase(name, glob) for glob in globs)
        and module.track_running_stats
        and module.running_mean is not None
        and module.momentum != 0
        and (module.training or not model.training)
    }


def update_population_statistics(
    model: Model,
    loader: Iterable[Any],
    forward: Forward | None = None,
    *,
    num_samples: int | None = None,
    layers: str | Sequence[str] = "*",
    estimator: Estimator = "pooled",
    consistent: bool = False,
    report: Report | None = None,
) -> Model:
    r"""Replaces the running statistics of batch norm by those of the data, in place, and returns the model.

    ``estimator="pooled"`` takes mean and variance over all N values of a channel, merged by Chan's update, which is
    right for uneven and for sorted batches:

    .. math:: E[x] = \mu, \qquad Var[x] = \frac{1}{N - 1} \sum (x - \mu)^2

    ``estimator="paper"`` averages over the batches B of m values, as the paper writes it:

    .. math:: E[x] = E_B[\mu_B], \qquad Var[x] = \tfrac{m}{m - 1} E_B[\sigma_B^2]

    Source: Ioffe & Szegedy 2015, Algorithm 2. During the pass only batch norm is in training mode, nothing is
    differentiated, and flags, hooks and random streams are as before at the end; after an exception the statistics are
    too. Over several processes the result is that of all their data, the same bits everywhere. Exact statistics close
    the gap between training and evaluation; a better accuracy is not promised.

    Args:
        model: The network.
        loader: Batches; of a tuple or list the first element goes into the model, on the model's device.
        forward: ``forward(model, batch)`` runs the model on any other kind of batch.
        num_samples: Stop after the batch that completes so many samples, over all processes; None takes all. The
            first tensor of a batch, whatever it is packed in, tells how many it has.
        layers: Globs over the names of the layers to update; frozen ones are left (:func:`tracked_batch_norms`).
        estimator: ``"pooled"`` or ``"paper"``.
        consistent: Go over the data once per layer, in the order of execution, so that each layer's statistics are
            those of what it meets in eval mode, behind layers that already use theirs. The loader has to give the same
            samples in each pass. The default makes one pass, in which each batch is normalised by its own statistics,
            as in training.
        report: Collects which layers were updated, from how many values, and which were left.

    Raises:
        ValueError: The loader is empty; a batch has fewer than 2 values per channel; an argument is out of range.
        TypeError: A batch is a mapping and there is no ``forward``.

    >>> model = nn.Sequential(nn.BatchNorm1d(1))
    >>> data = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])
    >>> _ = update_population_statistics(model, [data[:3], data[3:]])
    >>> model[0].running_mean, model[0].running_var
    (tensor([3.]), tensor([2.5000]))
    """
    check_module(model)
    if estimator not in get_args(Estimator):
        raise ValueError(f"estimator must be one of {', '.join(get_args(Estimator))}, got {estimator!r}")
    if num_samples is not None and num_samples < 1:
        raise ValueError(f"num_samples must be at least 1 or None, got {num_samples}")
    if consistent and iter(loader) is loader:
        raise ValueError(
            "consistent=True goes over the data once per layer; pass a DataLoader or a list, not an iterator"
        )
    report = Report() if report is None else report
    targets = tracked_batch_norms(model, layers)
    for name, module in model.named_modules():
        if is_batch_norm(module) and name not in targets:
            report.leave(name, "frozen, without running statistics, or not asked for")
    if not targets:
        warnings.warn("no batch-norm layer with running statistics to update was found", NoEffectWarning, stacklevel=2)
        return model
    for name, module in targets.items():
        if is_lazy(module.running_mean):  # type: ignore[arg-type]
            raise ValueError(f"layer {name!r} is not initialised yet; run the model once before")
    network = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    data = DataPass(network, loader, forward, num_samples, singles=consistent and estimator == "pooled")
    with isolated(network, updated=targets.values()):
        found = _one_by_one(data, targets, estimator) if consistent else _all_at_once(data, targets)
        _commit(targets, found, estimator)
    for name, statistics in found.items():
        values = {"values": statistics.moments.count, "batches": statistics.batches}
        report.change(name, f"{'consistent ' if consistent else ''}{estimator} statistics", values)
    missed = [name for name in targets if name not in found]
    for name in missed:
        report.leave(name, "not reached by the data")
    if missed:
        warnings.warn(f"not reached by the data, statistics left as they were: {', '.join(missed)}", stacklevel=2)
    return model


def _all_at_once(data: DataPass, layers: Mapping[str, BatchNorm]) -> dict[str, BatchStatistics]:
    """One pass for all layers: each batch is normalised by its own statistics.

    They have been worked out once; a layer of torch's own then normalises by them as by its running ones, which takes
    a fraction of the time that its kernel needs to find them again.
    """
    plain = {module: (module.running_mean, module.running_var) for module in layers.values() if _is_plain(module)}

    def lend(module: BatchNorm, batch: MomentSums) -> None:
        if module in plain:
            buffers = buffers_of(module)
            for name, own, value in zip(_STATISTICS, plain[module], (batch.mean, batch.variance), strict=True):
                buffers[name] = value.to(own)

    try:
        for module in layers.values():
            if module not in plain:
                module.training = True
                module.track_running_stats = False  # no buffer is touched until all is known
        return data.collect(layers, on_batch=lend)
    finally:
        for module in layers.values():
            module.track_running_stats = True
        for module, own in plain.items():
            buffers_of(module).update(zip(_STATISTICS, own, strict=True))


def _is_plain(layer: BatchNorm) -> bool:
    return type(layer) in _PLAIN and layer.running_mean is not None and layer.running_mean.dtype in _EXACT


def _one_by_one(data: DataPass, layers: Mapping[str, BatchNorm], estimator: Estimator) -> dict[str, BatchStatistics]:
    """One pass per layer, everything before it in eval mode with its new statistics."""
    found: dict[str, BatchStatistics] = {}
    for name, calls in data.calls(layers).items():
        for _ in range(_MOST_ROUNDS):
            before = found.get(name)
            found.update(data.collect({name: layers[name]}, stop_at=(name, calls)))
            _commit(layers, {name: found[name]}, estimator)
            if calls == 1 or (before is not None and _close(before, found[name], estimator)):
                break
        else:
            raise RuntimeError(
                f"layer {name!r} is called {calls} times in a forward pass and feeds itself; its consistent "
                f"statistics did not settle in {_MOST_ROUNDS} passes; use consistent=False"
            )
    return found


def _commit(targets: Mapping[str, nn.Module], found: Mapping[str, BatchStatistics], estimator: Estimator) -> None:
    for name, statistics in found.items():
        for key, value in zip(_STATISTICS, statistics.estimate(estimator), strict=True):
            buffer = getattr(targets[name], key, None)
            if buffer is not None:
                buffer.copy_(value)


def _close(before: BatchStatistics, after: BatchStatistics, estimator: Estimator) -> bool:
    (mean, variance), (new_mean, new_variance) = before.estimate(estimator), after.estimate(estimator)
    scale = new_variance.clamp(min=torch.finfo(torch.float32).tiny)
    off = torch.cat([(mean - new_mean) / scale.sqrt(), (variance - new_variance) / scale])
    return bool(off.abs().max() < 1e-6)
