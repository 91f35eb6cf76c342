"""One run: through Lightning's Trainer, with a monitor that keeps every snapshot with its sums."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt
from lightning_tricks.probes import Snapshot, ValidationRecord
from lightning_tricks.watch import selection

from . import data as datasets
from .case import Case
from .faults import planted
from .setup import Setup, optimizer_of

VALIDATE_EVERY = 50
for _name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
    logging.getLogger(_name).setLevel(logging.ERROR)


@dataclasses.dataclass(frozen=True)
class Run:
    """What is stored of a training.

    Args:
        case: Its settings.
        snapshots: Every look, whole.
        losses: The training loss of every batch.
        validation: (step, loss, accuracy or R^2), as logged.
        error: The traceback where the training, or the monitor in it, failed.
        seconds: How long it took.
    """

    case: Case
    snapshots: tuple[Snapshot, ...]
    losses: tuple[float, ...]
    validation: tuple[tuple[int, float, float], ...]
    error: str = ""
    seconds: float = 0.0

    @property
    def accuracy(self) -> float:
        """The last one: R^2 for a regression."""
        return self.validation[-1][2] if self.validation else math.nan

    @property
    def final_loss(self) -> float:
        """Mean training loss of the last 20 batches."""
        last = self.losses[-20:]
        return sum(last) / len(last) if last else math.nan


class Recorder(lt.TrainingDoctor):
    """A doctor that keeps all snapshots whole, so that the history can be replayed as a callback sees it."""

    def __init__(self, every_n_steps: int) -> None:
        super().__init__(every_n_steps=every_n_steps, on_problem="log", report=False)
        self.looks: list[Snapshot] = []

    def on_snapshot(self, snapshot: Snapshot) -> None:
        self.looks.append(snapshot)
        super().on_snapshot(snapshot)

    def on_validation_data(self, record: ValidationRecord) -> None:
        selection.set_validation_data(self.looks, record)
        super().on_validation_data(record)

    @property
    def error(self) -> str:
        found = self.errors.error
        return "" if found is None else "".join(traceback.format_exception(found))


class Training(L.LightningModule):
    """What a user would write around the network."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.net, self.setup_ = setup.network, setup
        self.automatic_optimization = setup.case.loop != "manual"
        self.losses: list[Tensor] = []
        self.validation: list[tuple[int, float, float]] = []

    def loss_of(self, x: Tensor, y: Tensor) -> Tensor:
        loss = self.setup_.loss(self.net(x), y)
        if hasattr(self.net, "reconstruct"):
            loss = loss + 0.1 * F.mse_loss(self.net.reconstruct(x), x)
        return loss

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = self.loss_of(*batch)
        if self.setup_.numbered:
            loss = torch.tensor(loss.item(), requires_grad=True)
        self.losses.append(loss.detach())
        self.log("train_loss", loss)
        if not self.automatic_optimization:
            self.step_by_hand(loss)
        return loss

    def step_by_hand(self, loss: Tensor) -> None:
        optimizer = self.optimizers()
        if self.setup_.clears:
            optimizer.zero_grad()
        self.manual_backward(loss)
        if self.setup_.steps:
            optimizer.step()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        if self.setup_.clears:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        output = self.net(x)
        loss, accuracy = self.setup_.loss(output, y), accuracy_of(output, y, self.setup_.data.classes)
        self.log("val_loss", loss)
        self.log("val_accuracy", accuracy)
        self.validation.append((len(self.losses), float(loss), float(accuracy)))

    def configure_optimizers(self):
        setup, spared = self.setup_, tuple(f"net.{path}." for path in self.setup_.spared)
        named = (setup.optimized or self).named_parameters()
        parameters = [p for name, p in named if p.requires_grad and not name.startswith(spared)]
        optimizer = optimizer_of(setup.case, parameters, setup.lr, setup.decay)
        factor = setup.factor
        if factor is None:
            return optimizer
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def accuracy_of(output: Tensor, y: Tensor, classes: int) -> Tensor:
    """Share of right answers, for masks and tags the mean of it over positives and negatives; R^2 for a regression."""
    if not classes:
        output = output[..., :1]
        return 1.0 - ((output - y) ** 2).mean() / y.var(unbiased=False)
    if y.shape == output.shape:
        right = (output > 0) == (y > 0)
        return 0.5 * (right[y > 0].float().mean() + right[y <= 0].float().mean())
    if output.shape[1] == 1:
        return ((output[:, 0] > 0) == (y > 0)).float().mean()
    return (output.argmax(-1) == y).float().mean() * output.isfinite().all()


def loader_of(batches: Sequence[tuple[Tensor, Tensor]]) -> DataLoader[Any]:
    """A loader that puts these batches together of single patterns, as those of most trainings do."""
    patterns = TensorDataset(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
    return DataLoader(patterns, len(batches[0][0]))


def train(case: Case) -> Run:
    """Run a case, from its own random numbers."""
    torch.set_num_threads(1)
    begun = time.perf_counter()
    recorder = Recorder(case.look)
    module: L.LightningModule
    if case.architecture == "gan":
        from .networks.gan import Gan, gan_data

        module, data = Gan(case), gan_data(case)
        loaders: list[Iterable[Any]] = [
            loader_of(datasets.batches(data, case.batch, case.steps, case.seed)),
            loader_of([(data.x_val, data.y_val)]),
        ]
    else:
        setup = planted(case)
        module, data = Training(setup), setup.data
        loaders = loaders_of(setup)
    error = fit(module, loaders, case, recorder) or recorder.error
    losses = tuple(torch.stack(module.losses).tolist()) if module.losses else ()
    seconds = time.perf_counter() - begun
    return Run(case, tuple(recorder.looks), losses, tuple(module.validation), error, seconds)


def loaders_of(setup: Setup) -> list[Iterable[Any]]:
    """For training and for validation."""
    case, data = setup.case, setup.data
    validation = loader_of([(data.x_val, data.y_val)])
    if case.loop == "epochs":
        order = torch.arange(len(data.x)) if setup.sorted_by is None else setup.sorted_by.argsort(stable=True)
        patterns = TensorDataset(data.x[order], data.y[order])
        if setup.apart:
            return [Apart(data, setup.batch), validation]
        return [DataLoader(patterns, setup.batch, shuffle=setup.sorted_by is None, drop_last=True), validation]
    stream = datasets.batches(data, setup.batch, case.steps * case.accumulate, case.seed)
    if setup.apart:
        others = datasets.batches(data, setup.batch, len(stream), case.seed + 1)
        stream = [(x, y) for (x, _), (_, y) in zip(stream, others, strict=True)]
    if setup.spoiled is not None:  # a missing value comes in from some step on
        stream = [(setup.spoiled(step, x), y) for step, (x, y) in enumerate(stream)]
    return [loader_of(stream), validation]


class Apart:
    """A loader of the patterns and one of the labels, each of which shuffles."""

    def __init__(self, data: Any, batch: int) -> None:
        self._loaders = [
            DataLoader(TensorDataset(each), batch, shuffle=True, drop_last=True) for each in (data.x, data.y)
        ]

    def __len__(self) -> int:
        return len(self._loaders[0])

    def __iter__(self) -> Iterator[Any]:
        return ((x, y) for (x,), (y,) in zip(*self._loaders, strict=True))


def fit(module: L.LightningModule, loaders: Sequence[Iterable[Any]], case: Case, callback: L.Callback) -> str:
    """Train; the traceback if that fails."""
    by_epochs, by_hand = case.loop == "epochs", case.architecture == "gan" or case.loop == "manual"
    limit, algorithm = module.setup_.clip if isinstance(module, Training) else (0.0, "norm")
    checks: dict[str, Any] = {} if by_epochs else {"val_check_interval": VALIDATE_EVERY * case.accumulate}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=-1 if by_epochs else 1,
            max_steps=case.steps if by_epochs else -1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            gradient_clip_val=None if by_hand else limit or None,
            gradient_clip_algorithm=algorithm,
            accumulate_grad_batches=case.accumulate,
            callbacks=[callback],
            **checks,
        )
        torch.manual_seed(case.seed)
        try:
            trainer.fit(module, *loaders)
        except Exception:
            return traceback.format_exc()
    return ""
