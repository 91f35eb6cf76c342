"""Errors of monitors end what failed, and never the training."""

import pytest
from lightning.pytorch.loggers import CSVLogger

import lightning_tricks as lt
from lightning_tricks._compat import trainer as trainer_names
from lightning_tricks.callbacks.monitoring import shared_probe
from tests.callbacks.monitoring.test_monitor import MONITORS
from tests.callbacks.trainings import Classifier, batches, fit, monitors


@pytest.mark.parametrize("place", ["summary", "per_layer", "on_snapshot", "show"])
@pytest.mark.parametrize("cls", MONITORS)
def test_an_error_of_its_own_ends_the_monitor_only(cls, place, monkeypatch):
    def broken(*args):
        raise ZeroDivisionError("my fault")

    monkeypatch.setattr(cls, place, broken)
    looking = [
        cls(every_n_steps=1, log_per_layer=True),
        *(other(every_n_steps=1) for other in MONITORS if other is not cls),
    ]
    module = Classifier()
    with pytest.warns(UserWarning, match="my fault") as told:
        trainer = fit(module, looking, logger=CSVLogger("logs"), log_every_n_steps=1)
    ours = [str(warning.message) for warning in told if "my fault" in str(warning.message)]
    assert len(ours) == 1
    assert ours[0].startswith(f"{cls.__name__} stopped, the training goes on: ZeroDivisionError")
    assert trainer.global_step == len(module.losses) == 6
    assert all(len(monitor.history) == 6 for monitor in looking[1:])


@pytest.mark.parametrize(
    "method", ["open", "read_gradients", "read_updates", "close", "snapshot", "pause", "new_batch"]
)
def test_an_error_of_the_probe_ends_the_probing_only(method, monkeypatch):
    real = getattr(shared_probe.Probe, method)

    def broken(probe, *args):
        real(probe, *args)
        raise ZeroDivisionError("my fault")

    monkeypatch.setattr(shared_probe.Probe, method, broken)
    module = Classifier()
    with pytest.warns(UserWarning, match="my fault") as told:
        fit(module, monitors(), accumulate_grad_batches=2)
    assert sum("my fault" in str(warning.message) for warning in told) == 1
    assert len(module.losses) == 6


def test_an_error_of_what_lightning_is_asked_ends_the_monitor_only(monkeypatch):
    def broken(trainer):
        raise AttributeError("renamed")

    monkeypatch.setattr(trainer_names, "is_logging", broken)
    module = Classifier()
    with pytest.warns(UserWarning, match=r"ActivationMonitor stopped, the training goes on: AttributeError: renamed"):
        fit(module, [lt.ActivationMonitor(every_n_steps=4)], logger=CSVLogger("logs"))
    assert len(module.losses) == 6


@pytest.mark.parametrize("method", ["pause", "resume"])
def test_an_error_around_a_validation_amid_an_accumulation_ends_the_probing_only(method, monkeypatch):
    def broken(probe):
        raise ZeroDivisionError("my fault")

    class Validated(Classifier):
        def validation_step(self, batch, batch_idx):
            self.loss(batch)

    monkeypatch.setattr(shared_probe.Probe, method, broken)
    module, options = Validated(), {"val_check_interval": 1, "accumulate_grad_batches": 3}
    with pytest.warns(UserWarning, match="my fault"):
        fit(module, monitors(), validation=batches(1), **options)
    assert len(module.losses) == 6
