"""When the numbers of monitors reach the loggers, and at which step."""

import csv
import pathlib

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

import lightning_tricks as lt
from tests.callbacks.trainings import Classifier, batches, fit, mlp, monitors


def table(folder):
    with next(pathlib.Path(folder).rglob("metrics.csv")).open() as file:
        return list(csv.DictReader(file))


def test_rows_of_a_csv_logger():
    looking = monitors(log_per_layer=True)
    fit(Classifier(), looking, batches(6), logger=CSVLogger("logs"), log_every_n_steps=1)
    rows = table("logs")
    assert [row["step"] for row in rows] == ["0", "1", "2", "3", "4", "5"]
    keys = set(rows[0])
    assert {"loss", "activations/linearity", "activations.dead_share/net.1", "activations.linearity/net.4"} <= keys
    assert {"gradients/first_over_last", "gradients.update_ratio/net.0.weight", "gradients.error_signal/net.3"} <= keys
    assert {"doctor/findings", "doctor/severity"} <= keys
    assert "activations.dead_share/net.4" not in keys  # a tanh has no dead side
    for row in rows:
        snapshot = looking[0].history[int(row["step"])]
        assert float(row["activations.linearity/net.4"]) == pytest.approx(snapshot.activations[1].linearity, rel=1e-5)
        assert float(row["loss"]) == pytest.approx(snapshot.loss, rel=1e-5)
        assert all(row.values())  # no cell is empty


@pytest.mark.parametrize(("every", "logs_at"), [(2, [3, 7]), (3, [2, 5, 8]), (50, [])])
def test_a_value_is_logged_at_its_own_step(every, logs_at):
    """Whether the Trainer logs there or not: early, between its rows, and in a fit shorter than to its first."""
    monitor = lt.ActivationMonitor(every_n_steps=every)
    fit(Classifier(), [monitor], batches(9), logger=CSVLogger("logs"), log_every_n_steps={2: 4}.get(every, every))
    rows = {int(row["step"]): row for row in table("logs")}
    assert sorted(rows) == sorted({*logs_at, *(snapshot.step for snapshot in monitor.history)})
    assert [step for step, row in rows.items() if row.get("loss")] == logs_at
    for snapshot in monitor.history:
        value = float(rows[snapshot.step]["activations/linearity"])
        assert value == pytest.approx(monitor.summary(snapshot)["linearity"], rel=1e-5)
    for step in set(logs_at) - {snapshot.step for snapshot in monitor.history}:
        assert not rows[step]["activations/linearity"]  # no value of another step


def test_a_fit_that_ends_before_the_trainer_logs_has_its_numbers():
    best = ModelCheckpoint("saved", monitor="gradients/norm", save_on_train_epoch_end=True)
    stop = EarlyStopping("doctor/severity", patience=9, check_on_train_epoch_end=True)
    looking = [lt.ActivationMonitor(), lt.GradientFlowMonitor(), lt.TrainingDoctor(on_problem="log", report=False)]
    options = {"logger": CSVLogger("logs"), "log_every_n_steps": 50, "enable_checkpointing": True}
    trainer = fit(Classifier(), [stop, best, *looking], batches(16), **options)
    rows = table("logs")
    assert [row["step"] for row in rows] == ["0", "1", "2", "4", "8"]
    for key in ("activations/linearity", "gradients/norm", "doctor/severity", "doctor/healthy"):
        assert all(row[key] for row in rows)
        assert float(trainer.callback_metrics[key]) == pytest.approx(float(rows[-1][key]), rel=1e-5)
    assert float(best.best_model_score) == pytest.approx(float(rows[-1]["gradients/norm"]), rel=1e-5)
    assert float(stop.best_score) == float(rows[-1]["doctor/severity"])


def test_the_row_of_a_step_that_ends_the_training_is_written():
    doctor = lt.TrainingDoctor(on_problem="raise", report=False)
    same = mlp()
    for parameter in same.parameters():
        torch.nn.init.constant_(parameter, 0.5)
    with pytest.raises(lt.TrainingProblemError):
        fit(Classifier(same), [doctor, lt.ActivationMonitor()], batches(4), logger=CSVLogger("logs"))
    (row,) = table("logs")
    assert (row["step"], row["doctor/severity"]) == ("0", "2.0")


def test_a_trainer_that_logs_nothing_logs_nothing_of_a_monitor():
    fit(Classifier(), monitors(), logger=CSVLogger("logs"), log_every_n_steps=0)
    assert not list(pathlib.Path("logs").rglob("metrics.csv"))


def test_a_layer_has_a_value_where_it_has_one():
    class Frozen(Classifier):
        def on_train_batch_start(self, batch, batch_idx):
            self.net[0].requires_grad_(batch_idx == 1)

    fit(Frozen(), monitors(log_per_layer=True), batches(3), logger=CSVLogger("logs"), log_every_n_steps=1)
    values = [row["gradients.gradient/net.0.weight"] for row in table("logs")]
    assert float(values[1]) > 0
    assert values[0] == values[2] == ""


def test_only_summaries_unless_asked():
    looking = monitors()
    fit(Classifier(), looking, logger=CSVLogger("logs"), log_every_n_steps=1)
    keys = {key for key in table("logs")[0] if "/" in key}
    assert keys == {f"{monitor.prefix}/{name}" for monitor in looking for name in monitor.summary(monitor.history[-1])}


def test_several_loggers_and_none():
    loggers = [CSVLogger("one"), TensorBoardLogger("two"), CSVLogger("three")]
    fit(Classifier(), monitors(), logger=loggers, log_every_n_steps=1)
    assert table("one") == table("three")
    trainer = fit(Classifier(), monitors(), logger=False)
    assert "activations/linearity" in trainer.callback_metrics


class Notes(L.Callback):
    """What other callbacks can see after each batch; behind the monitors in the list."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append({key: float(value) for key, value in trainer.callback_metrics.items()})


@pytest.mark.parametrize("logger", [True, False])
def test_summaries_are_those_of_the_last_probed_step(logger):
    """A number that went to the loggers before must not hide the newer one."""
    monitor, notes = lt.ActivationMonitor(every_n_steps=2), Notes()
    fit(Classifier(), [monitor, notes], batches(9), logger=CSVLogger("logs") if logger else False, log_every_n_steps=3)
    expected = {s.step: monitor.summary(s)["linearity"] for s in monitor.history}
    assert sorted(expected) == [0, 1, 2, 4, 6, 8]
    for step, seen in enumerate(notes.seen):
        newest = expected[max(s for s in expected if s <= step)]
        assert seen["activations/linearity"] == pytest.approx(newest, rel=1e-6)
