"""What the package reads from a Trainer, with Lightning's private names and without them."""

import csv
import pathlib
import sys
import types
import warnings

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer.connectors.logger_connector.logger_connector import _LoggerConnector
from torch.utils.data import DataLoader

import lightning_tricks as lt
from lightning_tricks._compat import lightning, trainer
from tests.callbacks.trainings import Classifier, Gan, batches, fit, monitors


class Asks(L.Callback):
    def __init__(self, question):
        self.question, self.answers = question, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.answers.append(self.question(trainer))


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def asked(question, count=5, **options):
    callback = Asks(question)
    fit(Classifier(), [callback], batches(count), **options)
    return callback.answers


def test_steps_and_windows():
    assert asked(trainer.steps_taken, max_epochs=2) == list(range(10))
    assert asked(trainer.steps_taken, accumulate_grad_batches=2) == [0, 0, 1, 1, 2]
    assert asked(trainer.window_ends, accumulate_grad_batches=2) == [False, True, False, True, True]


def test_logging_is_when_the_trainer_writes():
    def rows(**options):
        logger = CSVLogger("logs")
        answers = asked(trainer.is_logging, logger=logger, **options)
        return answers, [row["step"] for row in logger.experiment.metrics] or _steps(logger)

    def _steps(logger):
        path = pathlib.Path(logger.log_dir) / "metrics.csv"
        lines = [line.split(",") for line in path.read_text().splitlines()] if path.exists() else [["step"]]
        return [int(line[lines[0].index("step")]) for line in lines[1:]]

    for options in ({"log_every_n_steps": 2}, {"log_every_n_steps": 0}, {"log_every_n_steps": 1}):
        answers, written = rows(**options)
        assert [step for step, answer in enumerate(answers) if answer] == written
    answers, written = rows(log_every_n_steps=1, accumulate_grad_batches=2)
    assert answers == [False, True, False, True, True]
    assert written == [0, 1, 2]


def test_no_loss_scale_without_a_scaler():
    assert asked(trainer.loss_scale, 1) == [1.0]
    off = types.SimpleNamespace(
        precision_plugin=types.SimpleNamespace(scaler=torch.amp.GradScaler("cpu", enabled=False))
    )
    assert trainer.loss_scale(off) == 1.0


class Gone:
    """An attribute that Lightning, which needs it, still sees, and the package does not."""

    def __init__(self, name, default=None):
        self.name, self.default = name, default

    def __get__(self, instance, owner=None):
        if sys._getframe(1).f_globals["__name__"].startswith("lightning_tricks"):
            raise AttributeError(self.name)
        if self.name in vars(instance):
            return vars(instance)[self.name]
        return self.default.__get__(instance, owner)

    def __set__(self, instance, value):
        vars(instance)[self.name] = value


PRIVATE = {
    "_batches_that_stepped": (_TrainingEpochLoop, "how many batches made an optimiser step"),
    "_should_accumulate": (_TrainingEpochLoop, "whether gradients are accumulated"),
    "_logger_connector": (L.Trainer, "into the row that it logs"),
    "_callback_metrics": (_LoggerConnector, "into trainer.callback_metrics directly"),
    "log_metrics": (_LoggerConnector, "into the row that it logs"),
    "should_update_logs": (_LoggerConnector, ""),
}


OWNERS = {"_data_source": _FitLoop, "epoch_loop": _FitLoop, "_progress_bar_metrics": _LoggerConnector}


@pytest.fixture
def gone(monkeypatch):
    """Takes private names away from the package."""

    def take(*names):
        monkeypatch.setattr(lightning, "_said", set())
        for name in names:
            owner = PRIVATE[name][0] if name in PRIVATE else OWNERS[name]
            monkeypatch.setattr(owner, name, Gone(name, vars(owner).get(name)), raising=False)

    return take


def said(function):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = function()
    return result, [str(warning.message) for warning in told if "this version of Lightning" in str(warning.message)]


@pytest.mark.parametrize("name", PRIVATE)
def test_a_training_without_a_private_name_goes_on_and_says_so_once(name, gone):
    gone(name)
    looking, logger = monitors(log_per_layer=True), CSVLogger("logs")
    options = {"accumulate_grad_batches": 2, "log_every_n_steps": 2, "logger": logger}
    (fitted, told) = said(lambda: fit(Classifier(), [lt.InitializeWeights(), *looking], batches(11), **options))
    message = PRIVATE[name][1]
    assert fitted.global_step == 6
    assert len(set(told)) == len(told) == (1 if name != "should_update_logs" else 0) + (name == "_logger_connector")
    assert not message or any(message in text for text in told)
    for monitor in looking:
        assert [snapshot.step for snapshot in monitor.history] == list(range(6))
    latest = looking[0].summary(looking[0].history[-1])
    assert float(fitted.callback_metrics["activations/linearity"]) == pytest.approx(latest["linearity"])
    with next(pathlib.Path("logs").rglob("metrics.csv")).open() as file:
        rows = [row for row in csv.DictReader(file) if row["activations.dead_share/net.1"]]
    assert [int(row["step"]) for row in rows] == list(range(6))
    expected = [looking[0].history[step].activations[0].linearity for step in range(6)]
    assert [float(row["activations.linearity/net.1"]) for row in rows] == pytest.approx(expected)


def test_a_training_without_any_of_them_goes_on(gone):
    gone(*PRIVATE)
    looking, logger = monitors(), CSVLogger("logs")
    options = {"log_every_n_steps": 2, "logger": logger}
    fitted, told = said(lambda: fit(Classifier(), looking, batches(5), max_epochs=2, **options))
    assert fitted.global_step == 10
    assert len(set(told)) == len(told) == 4
    for monitor in looking:
        assert [snapshot.step for snapshot in monitor.history] == list(range(10))
        assert len([loss for snapshot in monitor.history for loss in snapshot.recent_losses]) == 10
    with next(pathlib.Path("logs").rglob("metrics.csv")).open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file) if row["doctor/findings"]] == list(range(10))


def test_a_bar_without_the_private_name_for_its_numbers(gone):
    gone("_progress_bar_metrics")
    doctor = lt.TrainingDoctor(every_n_steps=1, report=True, files=False)
    fitted, told = said(lambda: fit(Classifier(), [doctor], enable_progress_bar=True))
    assert fitted.global_step == 6
    assert not doctor.errors.failed
    assert told == [text for text in told if "takes no words into its progress bar" in text]
    assert len(told) == 1


def test_steps_and_windows_by_public_names(gone):
    gone("_batches_that_stepped", "_should_accumulate")
    answers, told = said(lambda: asked(trainer.steps_taken, max_epochs=2))
    assert answers == list(range(10))
    assert len(told) == 2
    assert asked(trainer.steps_taken, accumulate_grad_batches=2) == [0, 0, 1, 1, 2]
    assert asked(trainer.window_ends, accumulate_grad_batches=2) == [False, True, False, True, True]


def test_steps_of_two_optimisers_by_public_names(gone):
    gone("_batches_that_stepped")
    monitor = lt.ActivationMonitor(every_n_steps=1)
    _, told = said(lambda: fit(Gan(), [monitor], batches(4)))
    assert [snapshot.step for snapshot in monitor.history] == [0, 1, 2, 3]
    assert len(told) == 1


def test_early_stopping_without_the_private_name_for_its_numbers(gone):
    gone("_callback_metrics")
    stop = EarlyStopping("activations/dead_share", mode="min", stopping_threshold=0.5, check_on_train_epoch_end=True)
    fitted, told = said(lambda: fit(Classifier(), [stop, lt.ActivationMonitor(every_n_steps=1)], max_epochs=4))
    assert fitted.current_epoch == 1
    assert len(told) == 1


@pytest.mark.parametrize("name", ["_batches_that_stepped", "epoch_loop"])
def test_weights_are_initialised_without_the_name_for_steps(name, gone):
    gone(name)
    callback = lt.InitializeWeights("lecun_normal")
    fitted, told = said(lambda: fit(Classifier(), [callback]))
    assert fitted.global_step == 6
    assert callback.report.changed
    assert len(told) == 1


class Data(L.LightningDataModule):
    def __init__(self, loader):
        super().__init__()
        self.loader = loader

    def train_dataloader(self):
        return self.loader


class Finds(Classifier):
    def setup(self, stage):
        self.found = trainer.training_loader(self.trainer)


@pytest.mark.parametrize("private", [True, False], ids=["private name", "public names"])
def test_the_loader_is_known_before_the_first_step(gone, private):
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_epochs": 1}
    loader = DataLoader(batches(2), batch_size=None)
    if not private:
        gone("_data_source")
    given, by_module = Finds(), Finds()
    L.Trainer(accelerator="cpu", enable_model_summary=False, **options).fit(given, loader)
    L.Trainer(accelerator="cpu", enable_model_summary=False, **options).fit(by_module, datamodule=Data(loader))
    assert given.found is (loader if private else None)
    assert by_module.found is loader


class Refusing(CSVLogger):
    """Takes what the training logs and nothing of the monitors."""

    def log_metrics(self, metrics, step=None):
        if any("/" in name for name in metrics):
            raise ValueError("a name with a slash")
        super().log_metrics(metrics, step)


def test_a_logger_that_refuses_the_monitors_numbers_has_those_of_the_training(monkeypatch):
    monkeypatch.setattr(lightning, "_said", set())
    looking = monitors()
    with pytest.warns(UserWarning, match="monitors' numbers.*ValueError: a name with a slash") as told:
        assert fit(Classifier(), looking, logger=Refusing("logs"), log_every_n_steps=2).global_step == 6
    assert len([warning for warning in told if "a name with a slash" in str(warning.message)]) == 1
    assert not any(monitor.errors.failed for monitor in looking)
    lines = pathlib.Path("logs/lightning_logs/version_0/metrics.csv").read_text().splitlines()
    assert lines[0].split(",") == ["epoch", "loss", "step"]
    assert len(lines) == 4


def test_a_logger_that_fails_by_itself_ends_the_training_as_without_monitors():
    class Failing(CSVLogger):
        def log_metrics(self, metrics, step=None):
            raise ConnectionError("no network")

    with pytest.raises(ConnectionError, match="no network"):
        fit(Classifier(), monitors(), logger=Failing("logs"), log_every_n_steps=2)
