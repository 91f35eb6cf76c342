"""Nothing that a monitor says, logs or writes ends a training."""

import logging
import warnings

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn

import lightning_tricks as lt
from tests.callbacks.trainings import Classifier, batches, fit, mlp, monitors

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory")


KEYS = [
    *(f"activations/{key}" for key in ("linearity", "saturation", "dead_share", "mean_energy", "std_last_over_first")),
    *(f"gradients/{key}" for key in ("first_over_last", "decades_lost_per_layer", "norm")),
    *(f"gradients/{key}" for key in ("transmission", "update_ratio", "mean_drift")),
    *(f"doctor/{key}" for key in ("findings", "severity", "healthy")),
]


class Still(Classifier):
    """Its learning rate is 0 at first, as in a warm-up."""

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step > 2))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def no_hard_zero():
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def without_activations():
    return nn.Sequential(nn.Linear(6, 3))


MADE = {
    "mlp": lambda: Classifier(mlp()),
    "tanh only": lambda: Classifier(no_hard_zero()),
    "no activation": lambda: Classifier(without_activations()),
    "warm-up": lambda: Still(mlp()),
}
ABSENT = {
    "mlp": set(),
    "warm-up": set(),
    "tanh only": set(),
    "no activation": {f"activations/{key}" for key in ("linearity", "mean_energy", "std_last_over_first")}
    | {f"gradients/{key}" for key in ("transmission", "first_over_last", "decades_lost_per_layer")},
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_every_advertised_key_can_be_watched(name):
    present = [key for key in KEYS if key not in ABSENT[name]]
    watching = [EarlyStopping(key, patience=99, check_on_train_epoch_end=True) for key in present]
    saving = [ModelCheckpoint(f"saved/{i}", monitor=key, save_top_k=1) for i, key in enumerate(present)]
    trainer = fit(MADE[name](), [*monitors(), *watching, *saving], max_epochs=3, enable_checkpointing=True)
    assert trainer.current_epoch == 3
    assert all(each.best_model_path for each in saving)
    keys = {key for key in trainer.callback_metrics if "/" in key}
    assert keys == set(present)
    assert all(torch.isfinite(trainer.callback_metrics[key]) for key in present)


@pytest.mark.filterwarnings("error::UserWarning")
def test_findings_are_logged_where_warnings_are_errors(caplog):
    symmetric = mlp()
    for parameter in symmetric.parameters():
        nn.init.constant_(parameter, 0.5)
    with caplog.at_level(logging.WARNING, logger="lightning_tricks"):
        trainer = fit(Classifier(symmetric), [lt.TrainingDoctor(every_n_steps=1, report=False)])
    assert trainer.global_step == 6
    assert any("symmetric_weights" in record.message for record in caplog.records)


@pytest.mark.filterwarnings("error::UserWarning")
def test_what_a_guard_says_is_logged_where_warnings_are_errors(monkeypatch, caplog):
    def broken(*args):
        raise ZeroDivisionError("my fault")

    monkeypatch.setattr(lt.ActivationMonitor, "summary", broken)
    assert fit(Classifier(), [lt.ActivationMonitor(every_n_steps=1)]).global_step == 6
    assert "ActivationMonitor stopped, the training goes on: ZeroDivisionError: my fault" in caplog.text


def test_a_warning_has_no_line_of_the_package_before_it(capsys):
    symmetric = mlp()
    for parameter in symmetric.parameters():
        nn.init.constant_(parameter, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = lambda *given: print(warnings.formatwarning(*given[:4]))
        fit(Classifier(symmetric), [lt.TrainingDoctor(every_n_steps=1, report=False)])
    said = capsys.readouterr().out
    assert "lightning_tricks: critical: symmetric_weights" in said
    assert ".py:" not in "".join(line for line in said.splitlines() if "symmetric" in line)


@pytest.mark.parametrize("cls", [lt.ActivationMonitor, lt.GradientFlowMonitor, lt.TrainingDoctor])
def test_a_folder_that_cannot_be_written_is_named(cls, tmp_path):
    (tmp_path / "taken").write_text("a file where the folder is to be")
    monitor = cls(every_n_steps=1)
    with pytest.warns(UserWarning, match=r"cannot write to .*taken.*(Not a directory|File exists)") as told:
        fit(Classifier(), [monitor], default_root_dir=str(tmp_path / "taken"))
    said = [str(warning.message) for warning in told if "cannot write" in str(warning.message)]
    assert len(said) == 1
    assert "to_csv(path) writes the latter elsewhere" in said[0]
    assert "report this" not in said[0]
    assert len(monitor.history) == 6


def test_a_full_disk_is_said_once_and_not_for_every_picture(drawn, monkeypatch):
    pytest.importorskip("matplotlib")
    import matplotlib.image

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(matplotlib.image, "imsave", full)
    with pytest.warns(UserWarning, match="TrainingDoctor cannot write to .*: No space left on device") as told:
        fit(Classifier(), [lt.TrainingDoctor(every_n_steps=1)], batches(3))
    assert len([warning for warning in told if "No space" in str(warning.message)]) == 1
