"""Ways to train with a Trainer, each a function of the callbacks: what it gives is compared with and without them."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch import callbacks as others
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
from torch.utils.data import DataLoader, IterableDataset

from tests.callbacks.trainings import Classifier, Gan, Loader, Scheduled, Skipping, batches, cnn, fit, lbfgs, mlp
from tests.versions import TORCH

from .base import Callbacks, Scenario, Validated, ended, needing, plain
from .troubles import TROUBLES


class Tuned(Validated):
    def val_dataloader(self) -> Any:
        return Loader(batches(1))


def sanity_check(callbacks: Callbacks) -> Any:
    module = Validated()
    return ended(fit(module, callbacks, batches(3), validation=batches(2), num_sanity_val_steps=2), module)


def loops_without_fit(callbacks: Callbacks) -> Any:
    module, loader = Validated(), Loader(batches(2))
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    trainer = L.Trainer(accelerator="cpu", devices=1, callbacks=callbacks, **quiet)
    found = trainer.validate(module, loader, verbose=False), trainer.test(module, loader, verbose=False)
    return found, trainer.predict(module, loader)


def fits_in_a_row(callbacks: Callbacks) -> Any:
    module = Classifier()
    fit(module, callbacks, batches(3))
    return ended(fit(module, callbacks, batches(2, seed=3), max_epochs=2), module)


def copied_amid_fit(callbacks: Callbacks) -> Any:
    class Copying(L.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *given: Any) -> None:
            copy.deepcopy(callbacks)
            pickle.loads(pickle.dumps(callbacks))
            copy.deepcopy(module.net)

    module = Classifier()
    return ended(fit(module, [*callbacks, Copying()], batches(3)), module)


def iterable(callbacks: Callbacks) -> Any:
    class Endless(IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[Any]:
            yield from batches(3)

    module = Classifier()
    return ended(fit(module, callbacks, [DataLoader(Endless(), batch_size=None)][0], max_steps=3), module)


def one_batch(callbacks: Callbacks) -> Any:
    module = Validated()
    return ended(fit(module, callbacks, batches(1), validation=batches(1), max_epochs=3), module)


class Closure(Classifier):
    """Steps by hand, with a closure."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()

        def closure() -> Any:
            loss = self.loss(batch)
            optimizer.zero_grad()
            self.manual_backward(loss)
            self.losses.append(loss.detach())
            return loss

        optimizer.step(closure=closure)


class Finetuned(others.BaseFinetuning):
    def freeze_before_training(self, module: Any) -> None:
        self.freeze(module.net[0])

    def finetune_function(self, module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(module.net[0], optimizer)


class MovingAverage(L.Callback):
    """By hand, as many write it: the weights are exchanged for a validation."""

    def on_train_batch_end(self, trainer: Any, module: Any, *given: Any) -> None:
        if not hasattr(self, "mean"):
            self.mean = copy.deepcopy(module.net)
        with torch.no_grad():
            for one, other in zip(self.mean.parameters(), module.net.parameters(), strict=True):
                one.lerp_(other, 0.1)

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        if hasattr(self, "mean"):
            module.net, self.mean = self.mean, module.net

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        self.on_validation_start(trainer, module)


def averaged_by_hand(callbacks: Callbacks) -> Any:
    module = Validated()
    return ended(fit(module, [*callbacks, MovingAverage()], batches(3), validation=batches(1), max_epochs=2), module)


def tuned(method: str, **options: Any) -> Scenario:
    def run(callbacks: Callbacks) -> Any:
        torch.manual_seed(0)
        module = Tuned()
        quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
        trainer = L.Trainer(accelerator="cpu", devices=1, max_epochs=1, callbacks=list(callbacks), **quiet)
        getattr(Tuner(trainer), method)(module, **options)
        trainer.fit(module)
        return module.lr, module.batch_size, *ended(trainer, module)

    return run


def compiled(place: str) -> Callable[[], Any]:
    """The places where people compile."""

    def inside() -> Any:
        module = Classifier()
        if place == "network":
            module.net = torch.compile(module.net, backend="eager")
        elif place == "in place":
            module.net.compile(backend="eager")
        elif place == "layer":
            module.net[0] = torch.compile(module.net[0], backend="eager")
        elif place == "loss":
            module.loss = torch.compile(module.loss, backend="eager")  # type: ignore[method-assign]
        return module

    return inside


def whole_module_compiled(callbacks: Callbacks) -> Any:
    if TORCH < (2, 7):
        pytest.skip("torch 2.6 fails to compile Lightning's own log ('Guard check failed'), without a callback as well")
    module = Classifier()
    return ended(fit(torch.compile(module, backend="eager"), callbacks, batches(3)), module)


def by_command_line(callbacks: Callbacks) -> Any:
    pytest.importorskip("jsonargparse", reason="LightningCLI needs jsonargparse")
    from lightning.pytorch.cli import LightningCLI

    Path("config.yaml").write_text("trainer: {max_epochs: 2}\nseed_everything: 3\n")
    settings = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    settings |= {"callbacks": callbacks, "accelerator": "cpu", "devices": 1}
    cli = LightningCLI(
        Validated, args=["fit", "--config", "config.yaml"], trainer_defaults=settings, save_config_callback=None
    )
    return ended(cli.trainer, cli.model)


def other_class_tree(callbacks: Callbacks) -> Any:
    """The package of the second name, whose classes are others."""
    import pytorch_lightning

    class Other(pytorch_lightning.LightningModule):  # type: ignore[misc]
        loss, training_step = Classifier.loss, Classifier.training_step
        configure_optimizers = Classifier.configure_optimizers

        def __init__(self) -> None:
            super().__init__()
            self.net, self.losses, self.optimizer = mlp(), list[Any](), torch.optim.Adam

    torch.manual_seed(0)
    module = Other()
    return ended(fit(module, callbacks, batches(4), trainer_class=pytorch_lightning.Trainer), module)


def logging_to(kind: str, **options: Any) -> Scenario:
    def run(callbacks: Callbacks) -> Any:
        # MLflow keeps a store by its address, whatever folder that lay in
        given = {key: str(Path(value).absolute()) if key == "save_dir" else value for key, value in options.items()}
        with mock.patch.dict(os.environ, MLFLOW_ALLOW_FILE_STORE="true"):  # which asks for a data base by now
            logger = getattr(__import__("lightning.pytorch.loggers", fromlist=[kind]), kind)(**given)
            return plain(logger=[logger, CSVLogger("csv")], log_every_n_steps=1)(callbacks)

    return run


def on_a_gpu(callbacks: Callbacks) -> Any:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return plain(precision="16-mixed", accelerator="gpu")(callbacks)


def averaging() -> Callbacks:
    if not hasattr(others, "EMAWeightAveraging"):
        pytest.skip("this Lightning has no EMAWeightAveraging")
    return [others.EMAWeightAveraging()]


SCENARIOS: dict[str, Scenario] = {
    "no logger": plain(),
    "fast_dev_run": plain(fast_dev_run=2),
    "barebones": plain(barebones=True),
    "sanity check": sanity_check,
    "CSV": plain(logger=True, log_every_n_steps=1),
    "CSV and TensorBoard": needing("tensorboard", logging_to("TensorBoardLogger", save_dir="board")),
    "MLflow on files": needing("mlflow", logging_to("MLFlowLogger", save_dir="mlruns")),
    "W&B offline": needing("wandb", logging_to("WandbLogger", offline=True)),
    "accumulation": plain(accumulate_grad_batches=3),
    "scheduler of accumulation": plain(more=lambda: [others.GradientAccumulationScheduler({0: 1, 1: 2})], max_epochs=2),
    "clipping by norm": plain(gradient_clip_val=0.1),
    "clipping by value": plain(gradient_clip_val=0.01, gradient_clip_algorithm="value"),
    "two optimisers by hand": plain(Gan),
    "closure by hand": plain(Closure),
    "steps without a loss": plain(Skipping),
    "schedule of the learning rate": plain(Scheduled),
    "LBFGS": plain(lambda: Classifier(optimizer=lbfgs)),
    "fused": plain(lambda: Classifier(optimizer=lambda p, lr: torch.optim.AdamW(p, lr=lr, fused=True))),
    "foreach": plain(lambda: Classifier(optimizer=lambda p, lr: torch.optim.Adam(p, lr=lr, foreach=True))),
    "fits in a row": fits_in_a_row,
    "validate, test and predict only": loops_without_fit,
    "copied and pickled amid fit": copied_amid_fit,
    "early stopping": plain(more=lambda: [others.EarlyStopping("loss", patience=0)], max_epochs=3),
    "SWA": plain(more=lambda: [others.StochasticWeightAveraging(1e-2, 1)], max_epochs=4),
    "WeightAveraging": plain(more=averaging),
    "moving average by hand": averaged_by_hand,
    "BaseFinetuning": plain(more=lambda: [Finetuned()], max_epochs=2),
    "ModelPruning": plain(more=lambda: [others.ModelPruning("l1_unstructured", amount=0.3)], max_epochs=2),
    "Timer, LearningRateMonitor": plain(
        more=lambda: [others.Timer("00:01:00:00"), others.LearningRateMonitor()], logger=True
    ),
    "Tuner's lr_find": tuned("lr_find", num_training=6, min_lr=1e-4, max_lr=1e-1),
    "Tuner's batch scaler": tuned("scale_batch_size", max_trials=2, steps_per_trial=1, init_val=2),
    "bf16-mixed": plain(lambda: Classifier(cnn()), precision="bf16-mixed"),
    "16-mixed": on_a_gpu,
    "16-true": plain(lambda: Classifier(optimizer=torch.optim.SGD), precision="16-true"),
    "bf16-true": plain(precision="bf16-true"),
    "64-true": plain(precision="64-true"),
    **{f"compiled: {place}": plain(compiled(place)) for place in ("network", "in place", "layer", "loss")},
    "compiled: all of the module": whole_module_compiled,
    "iterable data": iterable,
    "loaders of length one": one_batch,
    "detect_anomaly": plain(detect_anomaly=True),
    "deterministic": plain(deterministic=True),
    "limited batches": plain(limit_train_batches=2, max_epochs=2),
    "LightningCLI with YAML": by_command_line,
    "pytorch_lightning": needing("pytorch_lightning", other_class_tree),
    **TROUBLES,
}
