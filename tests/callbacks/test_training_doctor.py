"""The doctor: what it finds, says and does, and when."""

import csv
import pickle
import warnings
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn

import lightning_tricks as lt
from tests.callbacks.trainings import Classifier, batches, fit, mlp


def equal_weights():
    """Symmetric: critical at once."""
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.constant_(layer.weight, 0.1)
    return Classifier(net)


def healthy():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))
    for layer in net:
        if isinstance(layer, nn.Linear):
            lt.init.he_normal_(layer.weight)
    return Classifier(net)


def network():
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))


def doctor(**arguments):
    return lt.TrainingDoctor(every_n_steps=1, **arguments)


def messages(module, callback, **options):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer = fit(module, [callback], **options)
    return trainer, [str(warning.message) for warning in told if "What to do: " in str(warning.message)]


def test_there_is_always_a_diagnosis():
    callback = doctor()
    assert callback.diagnosis.state == "unknown"
    assert str(callback.diagnosis) == "Unknown: nothing was looked at yet."
    assert callback.diagnosis.findings == callback.history == []
    fit(healthy(), [callback], batches(6, 64))
    assert callback.diagnosis.healthy
    assert callback.diagnosis.history == callback.history
    assert len(callback.history) == 6


class WarmsUp(Classifier):
    """A learning rate that would arrive after 4000 steps."""

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 4000))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def test_what_the_end_of_a_training_tells_is_in_its_diagnosis():
    callback = lt.TrainingDoctor(every_n_steps=25, report=False, on_problem="raise")
    fit(WarmsUp(healthy().net), [callback], batches(120, 64))
    assert [snapshot.ended for snapshot in callback.history[-2:]] == [False, True]
    assert [finding.problem for finding in callback.diagnosis.findings] == ["learning_rate_too_low"]


def test_warns_once_for_each_problem_and_layer():
    callback = doctor()
    trainer, told = messages(equal_weights(), callback, max_epochs=2)
    assert trainer.global_step == 12
    assert any("critical: symmetric_weights" in message for message in told)
    assert len(told) == len({message.split(", since step")[0] for message in told})
    assert not callback.diagnosis.healthy
    assert callback.diagnosis.findings[0].problem == "symmetric_weights"


def test_log_says_nothing():
    trainer, told = messages(equal_weights(), doctor(on_problem="log"))
    assert told == []
    assert float(trainer.callback_metrics["doctor/severity"]) == 2.0
    assert float(trainer.callback_metrics["doctor/findings"]) >= 1.0


def test_stops_after_the_batch():
    trainer, told = messages(equal_weights(), doctor(on_problem="stop"))
    assert trainer.global_step == 1
    assert len(told) >= 1


def test_raises():
    callback = doctor(on_problem="raise")
    with pytest.raises(lt.TrainingProblemError, match=r"critical: symmetric_weights .*since step 0") as caught:
        fit(equal_weights(), [callback])
    assert caught.value.finding.problem == "symmetric_weights"
    assert pickle.loads(pickle.dumps(caught.value)).finding == caught.value.finding
    assert callback.diagnosis.findings


def test_a_second_training_is_judged_anew():
    callback = doctor(on_problem="stop")
    for _ in range(2):
        trainer, told = messages(equal_weights(), callback)
        assert trainer.global_step == 1
        assert told


@pytest.mark.parametrize("ignore", [("symmetric_weights",), ["symmetric_weights"], "symmetric_weights"])
def test_ignores(ignore):
    callback = doctor(ignore=ignore, on_problem="log")
    fit(equal_weights(), [callback])
    assert "symmetric_weights" not in {finding.problem for finding in callback.diagnosis.findings}


def test_without_report_nothing_is_shown_or_written(tmp_path, capsys):
    fit(healthy(), [doctor(report=False)])
    assert capsys.readouterr().out == ""
    assert not list(tmp_path.iterdir())


def test_report_says_where_the_files_are(tmp_path, capsys):
    fit(healthy(), [doctor()], batches(6, 64), default_root_dir=tmp_path / "root")
    out = capsys.readouterr().out
    assert "Healthy so far: no fault found in 6 steps, too early to tell whether it learns." in out
    folder = tmp_path / "root" / "lightning_logs" / "version_0" / "doctor"
    assert f"Page, pictures and history: {folder}" in out
    assert (folder / "history.csv").exists()


@pytest.mark.parametrize(("arguments", "shown", "written"), [
    ({"table": False}, False, True), ({"files": False}, True, False), ({"table": True, "report": False}, True, False),
    ({"files": True, "report": False}, False, True), ({"table": None, "files": None, "report": False}, False, False),
])  # fmt: skip
def test_the_table_and_the_files_each_have_a_switch(arguments, shown, written, tmp_path, capsys):
    fit(healthy(), [doctor(**arguments)], batches(6, 64))
    assert ("Healthy so far" in capsys.readouterr().out) is shown
    assert bool(list(tmp_path.rglob("history.csv"))) is written


def test_same_findings_from_the_history_alone():
    callback = doctor(on_problem="log")
    fit(equal_weights(), [callback])
    assert lt.diagnose(callback.history).findings == callback.diagnosis.findings


@pytest.mark.parametrize(("arguments", "message"), [
    ({"on_problem": "scream"}, "on_problem must be one of warn, stop, raise, log, got 'scream'"),
    ({"ignore": ("typo",)}, r"unknown problem to ignore 'typo'; known are linearity, "),
])  # fmt: skip
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        lt.TrainingDoctor(**arguments)


# --- batches and models of every kind --------------------------------------------------------------------------------


def test_a_monitor_from_configure_callbacks():
    class WithDoctor(Classifier):
        def configure_callbacks(self):
            return [own]

    own, replaced, beside = doctor(), doctor(), lt.ActivationMonitor(every_n_steps=1)
    fit(WithDoctor(), [replaced, beside])
    assert replaced.history == []  # Lightning's rule: those of the module take the place of the Trainer's
    assert len(own.history) == len(beside.history) == 6


def test_the_other_class_tree():
    """A Trainer and a module of the package pytorch_lightning, which is not the same code object."""
    pytorch_lightning = pytest.importorskip("pytorch_lightning", reason="an installation may lack the second name")

    class Other(pytorch_lightning.LightningModule):
        training_step = Classifier.training_step
        loss = Classifier.loss

        def __init__(self):
            super().__init__()
            self.net, self.losses = network(), []

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    callback = doctor()
    assert not issubclass(Other, L.LightningModule)
    trainer = fit(Other(), [callback], trainer_class=pytorch_lightning.Trainer)
    assert [snapshot.step for snapshot in callback.history] == list(range(6))
    assert "doctor/severity" in trainer.callback_metrics
    assert len(lt.checkup(Other(), batches(2), num_batches=3).history) == 3


def test_layers_limit_what_is_shown_and_not_what_is_judged(capsys, tmp_path):
    """The second of three layers is no input, and the fault of a layer that is not shown is found."""
    scaled = [(200.0 * x, y) for x, y in batches(12)]  # the input of the network, not of what is shown
    limited, whole = doctor(layers="net.3", on_problem="log"), doctor(on_problem="log")
    fit(Classifier(), [limited, whole], scaled, default_root_dir=tmp_path)
    assert limited.diagnosis.findings == whole.diagnosis.findings
    assert (limited.diagnosis.state, limited.diagnosis.findings[0].layer) == ("sick", "net.0")
    assert [len(each.history[0].weighted) for each in (limited, whole)] == [3, 3]
    rows = (tmp_path / "lightning_logs" / "version_0" / "doctor" / "history.csv").read_text(encoding="utf-8")
    assert ",net.3," in rows
    assert ",net.0," not in rows


def test_log_per_layer_logs_the_severity_of_every_layer(tmp_path):
    def logged(**options):
        symmetric = mlp()
        for parameter in symmetric.parameters():
            torch.nn.init.constant_(parameter, 0.5)
        doctor = lt.TrainingDoctor(every_n_steps=1, on_problem="log", report=False, **options)
        logger = CSVLogger(str(tmp_path), version=str(options))
        fit(Classifier(symmetric), [doctor], logger=logger, log_every_n_steps=1)
        *_, row = csv.DictReader(Path(logger.log_dir, "metrics.csv").read_text().splitlines())
        sick = {finding.layer for finding in doctor.diagnosis.findings if finding.rank == 2}
        return {key: value for key, value in row.items() if "/" in key}, sick

    assert set(logged()[0]) == {"doctor/findings", "doctor/severity", "doctor/healthy"}
    found, sick = logged(log_per_layer=True)
    assert sick
    assert all(float(found[f"doctor.severity/{layer}"]) == 2.0 for layer in sick)
    assert {"doctor.severity/net.1", "doctor.severity/net.5.bias"} <= set(found)
