"""A checkup: a few optimiser steps on a copy of a model, each of them probed."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks._compat import lightning as compat
from lightning_tricks._compat.compiled import original_of
from lightning_tricks.callbacks.monitoring.monitor import Monitor
from lightning_tricks.diagnosis import Finding, Rule, diagnose, find
from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.experiments.asking.registry import Subject, chosen
from lightning_tricks.experiments.asking.sampling import untouched, validation_of
from lightning_tricks.experiments.asking.trying import try_them
from lightning_tricks.experiments.training.copied import graphs_cut
from lightning_tricks.experiments.training.deadline import Deadline
from lightning_tricks.experiments.training.plan import planned_steps
from lightning_tricks.experiments.training.steps import cloned
from lightning_tricks.model.arguments import check_count, check_module
from lightning_tricks.model.batches import input_and_target, is_batch
from lightning_tricks.probes import Probe, Snapshot
from lightning_tricks.probes.optimizers import check_optimizer_of
from lightning_tricks.probes.watch.error_guard import ErrorGuard
from lightning_tricks.probes.watch.first_nonfinite import TorchCall, first_nonfinite
from lightning_tricks.treatment.treat import treat as make_treatment
from lightning_tricks.watch.first_step import FirstStep

LossFunction = Callable[[Any, Any], Tensor]
MOST = 4  # trainings whose steps experiments may take that nobody asked for by name ...
SHORTEST = 150  # ... and what counts as one where it is shorter


def checkup(
    model: nn.Module,
    data: Any,
    loss_fn: LossFunction | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    num_batches: int = 8,
    *,
    ignore: Sequence[str] = (),
    rules: Sequence[Rule] = (),
    experiments: str | Sequence[str] = "auto",
    val_data: Any = None,
    max_seconds: float = 60,
    progress: bool = True,
    treat: bool = False,
) -> Diagnosis:
    """Run a few optimiser steps on a deep copy of the model and diagnose them; the model stays as it was.

    Then a few questions are asked by experiments on further copies: what a guess would lose and what the floor of the
    loss is, which parameters it reaches, whether validation data are like training data. They confirm findings
    (``finding.proof``) or bring some, and are listed in ``diagnosis.experiments``. Ctrl-C ends them and keeps what is
    known.

    A LightningModule is trained by a Trainer of its own, which shows, logs and saves nothing. A model that is in
    evaluation mode as a whole is trained in training mode; parts of it that are (a frozen backbone) stay so.

    Args:
        model: A LightningModule, with its own ``training_step`` and optimisers, or any module with a ``loss_fn``.
        data: A DataLoader or any iterable of batches; a LightningDataModule; or one batch, such as a tuple ``(x, y)``
            of tensors, which is used again and again. Without a LightningModule a batch is ``(x, y)``, a dict with two
            entries, or a dataclass with two fields.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule, whose own step it replaces.
        optimizer: One that holds parameters of the model: it is copied, with its state and groups. Default: the
            LightningModule's own, else Adam with a learning rate of 1e-3.
        num_batches: How many batches to train on, a step each; data that ends earlier is started again.
        ignore: Problems that are not to be found.
        rules: Rules of your own, made by ``lightning_tricks.rule``, beside those of the package.
        experiments: ``"auto"``: those that take a few forwards and backwards, and short trainings only where the loss
            is not near its floor or a finding waits for a proof; ``"all"``, ``"none"``, or names of such
            (``lightning_tricks.experiments``).
        val_data: Batches of validation, as ``data``; default: those of a LightningDataModule.
        max_seconds: How long experiments may take; one that is being made then is cut short. Where they are chosen by
            ``"auto"``, they also end after the steps of four trainings, or 600.
        progress: Whether a terminal shows what is being tried.
        treat: Whether to end with :func:`~lightning_tricks.treat`, which changes the model by what is proven to help;
            ``diagnosis.treatment.undo()`` takes it back.

    Returns:
        The diagnosis; its history holds every step.

    Raises:
        TypeError: Not a module, no ``loss_fn`` where one is needed or one that cannot be used, not an optimiser, or
            batches of a kind that is not understood.
        ValueError: No batch in ``data``, ``num_batches`` under 1, an optimiser of another model, an unknown problem or
            experiment.
        RuntimeError: The model cannot be copied.

    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> batch = torch.randn(64, 8), torch.randint(2, (64,))
    >>> checkup(net, batch, nn.functional.cross_entropy).healthy
    True
    """
    check_module(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("nothing inside of a scripted model is seen: give the module that it was made of")
    check_count("num_batches", num_batches)
    diagnose([], ignore=ignore, rules=rules)  # unknown names are an error before the work, not after it
    # A treatment tries the changes itself.
    wanted = tuple(entry for entry in chosen(experiments) if not (treat and entry.name == "changes"))
    model = original_of(model)
    check_loss_fn(model, loss_fn)
    # A checkup draws random numbers (dropout, shuffling): all streams go on as if it had not.
    with untouched(data, val_data), torch.enable_grad():
        own, own_optimizer = copy_of(model, getattr(optimizer, "optimizer", optimizer))
        if not own.training:
            own.train()
        batches = RepeatedBatches(data, num_batches, kept=bool(wanted))
        if loss_fn is None:
            history = _train_lightning_module(own, batches, own_optimizer)
        else:
            history = _train(own, batches, own_optimizer, loss_fn)
        diagnosis = diagnose(history, ignore=ignore, rules=rules)
        if not history or not (treat or (wanted and batches.seen)):
            return diagnosis

        def again(brought: Sequence[Finding]) -> Diagnosis:
            return Diagnosis(list(find(history, ignore, rules, brought)), history)

        others = validation_of(data) if val_data is None else validation_of(val_data) or val_data
        subject = Subject(model, loss_fn, optimizer, batches.data, batches.seen, diagnosis, own, others)
        steps = MOST * max(planned_steps(model, batches.data), SHORTEST) if experiments == "auto" else math.inf
        subject.deadline = Deadline(max_seconds, steps)
        diagnosis = try_them(subject, wanted, again, auto=experiments == "auto", progress=progress)
    if not treat:
        return diagnosis
    treatment = make_treatment(model, diagnosis, data, loss_fn, val_data, max_seconds, optimizer=optimizer)
    return dataclasses.replace(diagnosis, treatment=treatment)


def check_loss_fn(model: nn.Module, loss_fn: Any) -> None:
    name, is_lightning = type(model).__name__, compat.is_lightning_module(model)
    if loss_fn is None:
        if not is_lightning:
            raise TypeError(f"{name} is no LightningModule: give a loss_fn(output, target)")
    elif isinstance(loss_fn, type):
        raise TypeError(
            f"loss_fn must be a function loss_fn(output, target), got the class {loss_fn.__name__}: call it, "
            f"{loss_fn.__name__}()"
        )
    elif not callable(loss_fn):
        shown = f" {loss_fn!r}" if isinstance(loss_fn, str) else ""
        raise TypeError(
            "loss_fn must be a function loss_fn(output, target) such as torch.nn.functional.cross_entropy, got "
            f"{type(loss_fn).__name__}{shown}"
        )
    elif is_lightning and not compat.has_forward(model):
        raise TypeError(
            f"loss_fn is computed from model(x), and {name} has no forward: leave loss_fn out to use its training_step"
        )


def _train_lightning_module(model: Any, batches: RepeatedBatches, optimizer: Any) -> list[Snapshot]:
    if optimizer is not None:
        model.configure_optimizers = lambda: optimizer
    monitor = Monitor(every_n_steps=1)
    monitor.preflight = True
    compat.fit_quietly(model, batches, len(batches), device_of(model), monitor)
    return monitor.history


def _train(
    model: nn.Module, batches: RepeatedBatches, optimizer: torch.optim.Optimizer | None, loss_fn: LossFunction
) -> list[Snapshot]:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = optimizer or (torch.optim.Adam(trained, lr=1e-3) if trained else None)
    history: list[Snapshot] = []
    place, first_step = None, FirstStep(wanted=True)
    for step, batch in enumerate(batches):
        x, y = input_and_target(compat.move_data_to_device(batch, device_of(model)))
        probe = Probe(model, optimizer, step=step)
        first_step.begin(probe, (x, y), batches, 1)
        with probe:
            loss = loss_fn(model(x), y)
            model.zero_grad()
            if loss.requires_grad:
                loss.backward()
                if place is None and not _is_finite(loss, model):
                    place = _first_nonfinite(probe, model, x, y, loss_fn)
                if optimizer is not None:
                    optimizer.step()
            else:
                probe.note_loss(loss)
        first_step.run(probe)
        snapshot = first_step.enter(probe.snapshot())
        if place is not None and snapshot.suspicious:
            snapshot = dataclasses.replace(snapshot, origin=dataclasses.asdict(place))
        history.append(snapshot)
    return history


def _is_finite(loss: Tensor, model: nn.Module) -> bool:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return all(bool(tensor.isfinite().all()) for tensor in (loss, *gradients))


def _first_nonfinite(probe: Probe, model: nn.Module, x: Any, y: Any, loss_fn: LossFunction) -> TorchCall | None:
    probe.pause()
    with ErrorGuard(lambda error: None):
        return first_nonfinite(lambda: loss_fn(model(x), y), model.parameters())
    return None


def copy_of(model: nn.Module, optimizer: Any) -> tuple[nn.Module, Any]:
    """Both in one deep copy, so that the optimiser's copy holds the parameters of the model's copy."""
    if optimizer is not None:
        check_optimizer_of(model, optimizer)
    try:
        model_copy, optimizer_copy = copy.deepcopy((model, optimizer), graphs_cut(model.modules()))
    except Exception as error:
        raise RuntimeError(
            f"{type(model).__name__} cannot be copied ({error}): a file or a lock that it keeps is to be dropped first"
        ) from error
    for parameter in model_copy.parameters():
        parameter.grad = None
    return model_copy, optimizer_copy


class RepeatedBatches:
    """So many batches; data that ends earlier is started again. ``seen``: copies of them, where they are kept."""

    def __init__(self, data: Any, count: int, *, kept: bool = False) -> None:
        if hasattr(data, "train_dataloader"):
            data = compat.loader_of(data)
        self.data = [data] if is_batch(data) else data
        self.count, self.seen, self._kept = count, list[Any](), kept
        if not isinstance(self.data, Iterable):
            raise TypeError(f"data must be a loader, an iterable of batches or one batch, got {type(data).__name__}")

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        found = 0
        while found < self.count:
            start = found
            for batch in self.data:
                found += 1
                if self._kept:
                    self.seen.append(cloned(batch))
                yield batch
                if found == self.count:
                    return
            if found == start:
                raise ValueError(
                    "data cannot be started again: give a loader"
                    if found
                    else "data holds no batch: is the dataset empty, or smaller than batch_size with drop_last=True?"
                )


def device_of(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
