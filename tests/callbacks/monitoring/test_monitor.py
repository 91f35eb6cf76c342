"""What is logged, where and when; arguments; and that a monitor's own error ends the monitor only."""

import collections
import dataclasses
import inspect
import math

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

import lightning_tricks as lt
from tests.callbacks.trainings import Classifier, Gan, batches, fit, mlp, monitors

MONITORS = (lt.ActivationMonitor, lt.GradientFlowMonitor, lt.TrainingDoctor)


def dying():
    net = mlp()
    torch.nn.init.constant_(net[0].bias, -100.0)
    return net


def test_early_stopping_and_checkpoints_watch_the_summaries():
    stop = EarlyStopping("activations/dead_share", mode="min", stopping_threshold=0.5, check_on_train_epoch_end=True)
    trainer = fit(Classifier(mlp()), [stop, lt.ActivationMonitor(every_n_steps=1)], max_epochs=4)
    assert trainer.current_epoch == 1
    never = EarlyStopping("activations/dead_share", mode="min", stopping_threshold=0.5, patience=9,
                          check_on_train_epoch_end=True)  # fmt: skip
    trainer = fit(Classifier(dying()), [never, lt.ActivationMonitor(every_n_steps=1)], max_epochs=4)
    assert trainer.current_epoch == 4
    assert float(never.best_score) == 1.0
    best = ModelCheckpoint("saved", monitor="activations/linearity", mode="max", save_on_train_epoch_end=True)
    monitor = lt.ActivationMonitor(every_n_steps=1)
    fit(Classifier(), [best, monitor], max_epochs=2, enable_checkpointing=True)
    ends = [monitor.summary(s)["linearity"] for s in monitor.history if s.step in (5, 11)]
    assert float(best.best_model_score) == pytest.approx(max(ends))


def test_of_a_validation_its_loss_and_its_data_alone_are_recorded():
    seen = []

    class Validated(Classifier):
        def validation_step(self, batch, batch_idx):
            seen.append(self.loss((50 * batch[0], batch[1])))
            self.log("val_loss", seen[-1])

    first, second = monitors(), monitors()
    torch.manual_seed(0)
    fit(Classifier(), first)
    torch.manual_seed(0)
    fit(Validated(), second, validation=batches(2), val_check_interval=2, num_sanity_val_steps=2)
    losses = torch.stack(seen[2:]).view(3, 2).mean(1).tolist()  # of two batches each, the sanity check left out
    for one, other in zip(first, second, strict=True):
        known = [snapshot.validation_loss for snapshot in other.history]
        assert math.isnan(known[0])
        assert known[1:] == pytest.approx([losses[0], losses[0], losses[1], losses[1], losses[2]])
        assert [snapshot.step for snapshot in other.history if snapshot.validation is not None] == [3]
        without = {"validation_loss": math.nan, "validation": None}
        other.history = [dataclasses.replace(snapshot, **without) for snapshot in other.history]
        assert [s.to_dict() for s in one.history] == [s.to_dict() for s in other.history]
    assert len(first[0].history) == 6


def test_barebones():
    looking = monitors(None)

    class Silent(Classifier):  # a step that logs is warned of in this mode
        def log(self, *args, **kwargs):
            raise AssertionError("nothing is logged")

        def training_step(self, batch, batch_idx):
            return self.loss(batch)

    fit(Silent(), looking, batches(3), barebones=True)
    assert [snapshot.step for snapshot in looking[0].history] == [0, 1, 2]


def test_fast_dev_run_leaves_no_files(tmp_path, capsys):
    fit(Classifier(), monitors(), fast_dev_run=True)
    assert not list(tmp_path.rglob("*.csv"))
    assert "Healthy" in capsys.readouterr().out


def test_two_monitors_of_a_class_keep_apart(tmp_path):
    looking = [lt.ActivationMonitor(every_n_steps=1, layers=name) for name in ("net.1", "net.4")]
    trainer = fit(Classifier(), looking)
    summaries = [monitor.summary(monitor.history[-1])["linearity"] for monitor in looking]
    keys = ("activations/linearity", "activations_2/linearity")
    assert [float(trainer.callback_metrics[key]) for key in keys] == pytest.approx(summaries)
    assert summaries[0] != summaries[1]
    assert (tmp_path / "lightning_logs" / "version_0" / "activations" / "history.csv").exists()
    assert (tmp_path / "lightning_logs" / "version_0" / "activations_2" / "history.csv").exists()


@pytest.mark.parametrize("cls", MONITORS)
@pytest.mark.parametrize(("name", "value", "error", "message"), [
    ("every_n_steps", 0, ValueError, "every_n_steps must be at least 1, or None for the Trainer's.*, got 0"),
    ("every_n_steps", 2.5, TypeError, "every_n_steps must be a whole number of at least 1, .*got 2.5"),
    ("max_patterns", -1, ValueError, "max_patterns must be at least 1, or None for all patterns, got -1"),
    ("max_patterns", True, TypeError, "max_patterns must be a whole number.*got True"),
    ("layers", [], ValueError, r"layers must be a glob such as 'encoder\.\*' or a list of them, got \[\]"),
    ("layers", 3, ValueError, "layers must be a glob.*got 3"),
])  # fmt: skip
def test_arguments_are_checked(cls, name, value, error, message):
    with pytest.raises(error, match=message):
        cls(**{name: value})


@pytest.mark.parametrize("cls", MONITORS)
def test_arguments_are_what_a_config_file_can_hold(cls):
    parameters = inspect.signature(cls).parameters.values()
    assert {"every_n_steps", "layers", "max_patterns", "log_per_layer"} <= {p.name for p in parameters}
    for parameter in parameters:
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.annotation is not parameter.empty
        assert isinstance(parameter.default, (str, int, bool, tuple, type(None)))
        assert f"\n        {parameter.name}: " in inspect.getdoc(cls).replace("\n    ", "\n        ")


@pytest.mark.parametrize("cls", MONITORS)
def test_lightning_cli_knows_the_arguments(cls):
    jsonargparse = pytest.importorskip("jsonargparse", reason="comes with lightning[pytorch-extra]")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "monitor")
    options = ["--monitor.every_n_steps=7", '--monitor.layers=["a.*", "b"]', "--monitor.max_patterns=null"]
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # the older name
    built = instantiate(parser.parse_args(options)).monitor
    assert (built.every_n_steps, built.layers, built.max_patterns) == (7, ["a.*", "b"], None)


def test_gan_summaries_have_numbers():
    looking = monitors()
    trainer = fit(Gan(), looking)
    numbers = {key: float(value) for key, value in trainer.callback_metrics.items()}
    assert not [key for key, value in numbers.items() if math.isnan(value)]


def test_its_key_is_made_once_a_fit(monkeypatch):
    made = []
    make = lt.TrainingDoctor.make_state_key
    monkeypatch.setattr(lt.TrainingDoctor, "make_state_key", lambda self: made.append(1) or make(self))
    doctor = lt.TrainingDoctor(every_n_steps=2, on_problem="log", report=False)
    before = doctor.state_key
    fit(Classifier(), [doctor])
    assert len(made) == 2  # a Trainer asks for it several times a step
    doctor.layers = "a.*"
    fit(Classifier(), [doctor])
    assert doctor.state_key != before


def test_a_list_of_another_kind_is_one(tmp_path):
    """As OmegaConf makes them of a configuration."""
    monitor = lt.ActivationMonitor(every_n_steps=1, layers=collections.UserList(["net.0", "net.1"]))
    fit(Classifier(), [monitor], batches(1))
    assert {record.name for record in monitor.history[0].records()} >= {"net.0", "net.1"}
    assert monitor.layers == ["net.0", "net.1"]
    assert lt.nn.AdditiveNoise(collections.UserList([0.1, 0.2])).std == (0.1, 0.2)
