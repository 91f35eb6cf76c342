"""A checkup: a few optimiser steps on a copy of a model, looked at one by one, without a Trainer."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks import _lightning
from lightning_tricks.diagnosis import find
from lightning_tricks.probes import Probe, Snapshot
from lightning_tricks.report import Diagnosis

LossFunction = Callable[[Any, Any], Tensor]


def diagnose(history: Sequence[Snapshot], *, ignore: Sequence[str] = ()) -> Diagnosis:
    """What the rules say to stored snapshots: the same findings as the callback's for the same steps.

    Args:
        history: Snapshots in the order of their steps.
        ignore: Problems that are not to be found.

    Raises:
        ValueError: ``ignore`` names an unknown problem.

    >>> diagnose([]).healthy
    True
    """
    return Diagnosis(list(find(history, ignore)), list(history))


def checkup(
    model: nn.Module,
    data: Any,
    loss_fn: LossFunction | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    num_batches: int = 8,
    *,
    ignore: Sequence[str] = (),
) -> Diagnosis:
    """Run a few optimiser steps on a deep copy of the model and diagnose them; the model stays as it was.

    Args:
        model: A LightningModule, with its own ``training_step`` and optimiser, or any module with a ``loss_fn``.
        data: A DataLoader or any iterable of batches; a LightningDataModule; or one batch, a tuple ``(x, y)`` of
            tensors, which is used again and again. Without a LightningModule a batch is ``(x, y)``, a dict with two
            entries, or a dataclass with two fields.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule.
        optimizer: One that holds parameters of the model: it is copied, with its state and groups. Default: the
            LightningModule's own, else Adam with a learning rate of 1e-3.
        num_batches: How many optimiser steps to look at; data that ends earlier is started again.
        ignore: Problems that are not to be found.

    Returns:
        The diagnosis; its history holds every step.

    Raises:
        TypeError: Not a module, no ``loss_fn`` where one is needed, or batches of a kind that is not understood.
        ValueError: No batch in ``data``, ``num_batches`` under 1, or an optimiser of another model.

    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> batch = torch.randn(64, 8), torch.randint(2, (64,))
    >>> checkup(net, batch, nn.functional.cross_entropy).healthy
    True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if num_batches < 1:
        raise ValueError(f"num_batches must be at least 1, got {num_batches}")
    is_lightning = isinstance(model, _lightning.LightningModule) and loss_fn is None
    if loss_fn is None and not is_lightning:
        raise TypeError(f"{type(model).__name__} is no LightningModule: give a loss_fn(output, target)")
    with _random_numbers_kept():
        patient, copied_optimizer = _copy(model, optimizer)
        optimizers = [copied_optimizer] if copied_optimizer is not None else _optimizers(patient, is_lightning)
        patient.train(True)
        history: list[Snapshot] = []
        for step, batch in enumerate(_batches(data, num_batches)):
            batch = _to_device(batch, _device_of(patient))
            history.append(_one_step(patient, optimizers, batch, step, loss_fn))
    return diagnose(history, ignore=ignore)


def _one_step(
    model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], batch: Any, step: int, loss_fn: LossFunction | None
) -> Snapshot:
    probe = Probe(model, step=step)
    with probe:
        for optimizer in optimizers:
            optimizer.zero_grad()
        if loss_fn is None:
            loss = _lightning.call_training_step(model, batch, step)  # type: ignore[arg-type]
        else:
            x, y = _input_and_target(batch)
            loss = loss_fn(model(x), y)
        if loss is not None and loss.requires_grad:
            loss.backward()
            for optimizer in optimizers:
                probe.read_gradients([p for group in optimizer.param_groups for p in group["params"]])
            for optimizer in optimizers:
                optimizer.step()
            probe.read_updates()
    return probe.snapshot()


def _copy(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> tuple[nn.Module, torch.optim.Optimizer | None]:
    """Both in one deep copy, so that the optimiser's copy holds the parameters of the model's copy."""
    trainer = getattr(model, "_trainer", None)
    if trainer is not None:  # a Trainer is not to be copied along
        object.__setattr__(model, "_trainer", None)
    try:
        patient, copied = copy.deepcopy((model, optimizer))
    finally:
        if trainer is not None:
            object.__setattr__(model, "_trainer", trainer)
    if copied is not None:
        own = {id(p) for p in patient.parameters()}
        if not any(id(p) in own for group in copied.param_groups for p in group["params"]):
            raise ValueError("the optimizer holds no parameter of this model")
    return patient, copied


def _optimizers(model: nn.Module, is_lightning: bool) -> list[torch.optim.Optimizer]:
    if is_lightning:
        return _lightning.optimizers_of(model)  # type: ignore[arg-type]
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [torch.optim.Adam(parameters, lr=1e-3)] if parameters else []


def _batches(data: Any, count: int) -> Iterator[Any]:
    if hasattr(data, "train_dataloader"):
        data.setup("fit")
        data = data.train_dataloader()
    one_batch = isinstance(data, dict) or (isinstance(data, (tuple, list)) and any(torch.is_tensor(x) for x in data))
    if not one_batch and not isinstance(data, Iterable):
        raise TypeError(f"data must be a loader, an iterable of batches or one batch, got {type(data).__name__}")
    found = 0
    while found < count:
        start = found
        for batch in itertools.islice([data] if one_batch else iter(data), count - found):
            found += 1
            yield batch
        if found == start:
            raise ValueError("data holds no batch")


def _input_and_target(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, dict):
        values = list(batch.values())
    elif isinstance(batch, (tuple, list)):
        values = list(batch)
    elif hasattr(batch, "__dataclass_fields__"):
        values = [getattr(batch, name) for name in batch.__dataclass_fields__]
    else:
        raise TypeError(f"a batch must be (x, y), got {type(batch).__name__}; wrap the model in a LightningModule")
    if len(values) != 2:
        raise TypeError(f"a batch must be (x, y), got {len(values)} entries; wrap the model in a LightningModule")
    return values[0], values[1]


def _to_device(batch: Any, device: torch.device) -> Any:
    if torch.is_tensor(batch):
        return batch.to(device)
    if isinstance(batch, dict):
        return {key: _to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_to_device(value, device) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(_to_device(value, device) for value in batch)
    if hasattr(batch, "__dataclass_fields__"):
        moved = copy.copy(batch)
        for name in batch.__dataclass_fields__:
            object.__setattr__(moved, name, _to_device(getattr(batch, name), device))
        return moved
    return batch


def _device_of(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


@contextlib.contextmanager
def _random_numbers_kept() -> Iterator[None]:
    """A checkup draws random numbers (dropout, shuffling); the caller's stream goes on as if it had not."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        yield
