"""What the one file that knows Lightning says about a Trainer."""

import pathlib
import types

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from lightning_tricks._compat import lightning as _lightning
from tests.callbacks.trainings import Classifier, batches, fit


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
    assert asked(_lightning.steps_taken, max_epochs=2) == list(range(10))
    assert asked(_lightning.steps_taken, accumulate_grad_batches=2) == [0, 0, 1, 1, 2]
    assert asked(_lightning.window_ends, accumulate_grad_batches=2) == [False, True, False, True, True]


def test_logging_is_when_the_trainer_writes():
    def rows(**options):
        logger = CSVLogger("logs")
        answers = asked(_lightning.is_logging, logger=logger, **options)
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
    assert asked(_lightning.loss_scale, 1) == [1.0]
    off = types.SimpleNamespace(
        precision_plugin=types.SimpleNamespace(scaler=torch.amp.GradScaler("cpu", enabled=False))
    )
    assert _lightning.loss_scale(off) == 1.0


def test_folders(tmp_path):
    def folder(trainer):
        return _lightning.report_folder(trainer, "name")

    assert asked(folder, 1) == [tmp_path / "name"]
    assert asked(folder, 1, default_root_dir="root") == [pathlib.Path("root/name")]
    assert asked(folder, 1, logger=CSVLogger("logs")) == [pathlib.Path("logs/lightning_logs/version_0/name")]
    assert asked(folder, 1, fast_dev_run=True) == [None]


def test_callbacks_belong_to_both_class_trees():
    assert issubclass(_lightning.Callback, L.Callback)
    other = pytest.importorskip("pytorch_lightning", reason="an installation may lack the second name")
    assert issubclass(_lightning.Callback, other.Callback)
    assert _lightning.is_lightning_module(L.LightningModule())
    assert _lightning.is_lightning_module(other.LightningModule())
    assert not _lightning.is_lightning_module(torch.nn.Linear(1, 1))
