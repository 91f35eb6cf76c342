"""What is logged, where and when; arguments; and that a monitor's own error ends the monitor only."""

import collections
import csv
import dataclasses
import inspect
import math
import pathlib

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

import lightning_tricks as lt
from lightning_tricks._compat import trainer as trainer_names
from lightning_tricks.callbacks.monitoring import shared_probe
from tests.callbacks.trainings import Classifier, Gan, batches, fit, mlp, monitors

MONITORS = (lt.ActivationMonitor, lt.GradientFlowMonitor, lt.TrainingDoctor)


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
