"""Pictures and tables at the end of a training: where they go, and that they never matter more than the training."""

import pathlib
import sys

import lightning.pytorch as L
import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger

import lightning_tricks as lt
from lightning_tricks._compat import lightning as compat
from lightning_tricks.callbacks.monitoring.output import files as files_of_fits
from lightning_tricks.callbacks.monitoring.output.files import FitFiles
from lightning_tricks.diagnosis.diagnosis import Diagnosis
from tests.callbacks.trainings import Classifier, Loader, batches, fit, monitors

FILES = {
    "activations": {"ladder.png", "histograms_over_time.png", "dead_and_linear.png", "history.csv"},
    "gradients": {"gradient_flow.png", "history.csv"},
    "doctor": {
        "ladder.png",
        "histograms_over_time.png",
        "dead_and_linear.png",
        "gradient_flow.png",
        "history.csv",
        "diagnosis.html",
    },
}


RUN = pathlib.Path("lightning_logs/version_0")


def files(folder):
    return {name: {path.name for path in (folder / name).iterdir()} for name in FILES}


def test_files_and_tensorboard_images(drawn, tmp_path):
    logger = TensorBoardLogger("logs")
    fit(Classifier(), monitors(), logger=[CSVLogger("csv"), logger])
    assert files(tmp_path / "csv" / "lightning_logs" / "version_0") == FILES  # beside those of the first logger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(logger.log_dir)
    events.Reload()
    pictures = {
        f"{folder}/{name.removesuffix('.png')}" for folder, names in FILES.items() for name in names if "png" in name
    }
    assert set(events.Tags()["images"]) == {each for each in pictures if "doctor" not in each}  # it has the same ones
    assert events.Images("gradients/gradient_flow")[0].step == 5


def test_without_a_logger_in_a_version_of_its_own_under_the_root(drawn, tmp_path):
    options = {"default_root_dir": tmp_path / "root"}
    trainer = fit(Classifier(), [lt.GradientFlowMonitor(every_n_steps=1)], **options)
    runs = tmp_path / "root" / "lightning_logs"
    assert {path.name for path in (runs / "version_0" / "gradients").iterdir()} == FILES["gradients"]
    assert (runs / "version_0" / ".gitignore").read_text().splitlines()[-1] == "*"
    before = (runs / "version_0" / "gradients" / "history.csv").read_text()
    trainer.fit_loop.max_epochs = 2
    trainer.fit(Classifier(), Loader(batches(2)))
    fit(Classifier(), monitors(), **options)
    assert {path.name for path in runs.iterdir()} == {"version_0", "version_1", "version_2"}
    assert files(runs / "version_2") == FILES  # those of one fit stand together
    assert (runs / "version_0" / "gradients" / "history.csv").read_text() == before


def test_folders_of_a_logger_are_its_own(tmp_path):
    fit(Classifier(), monitors(), logger=CSVLogger("csv"))
    assert not list(tmp_path.rglob(".gitignore"))


def test_each_picture_is_drawn_once(drawn, monkeypatch):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    drawings, draw = [], FigureCanvasAgg.draw
    monkeypatch.setattr(FigureCanvasAgg, "draw", lambda canvas: (drawings.append(canvas), draw(canvas)))
    fit(Classifier(), monitors(), logger=[TensorBoardLogger("one"), TensorBoardLogger("two")])
    assert len(drawings) == 4
    assert files(pathlib.Path("one/lightning_logs/version_0")) == FILES


def test_without_matplotlib_one_warning(drawn, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(compat, "_said", type(compat._said)())
    with pytest.warns(UserWarning, match="no pictures") as told:
        fit(Classifier(), monitors())
    assert sum("no pictures: install matplotlib" in str(warning.message) for warning in told) == 1
    written = {name: {"history.csv"} for name in FILES}
    assert files(tmp_path / RUN) == written | {"doctor": {"history.csv", "diagnosis.html"}}


def test_a_picture_that_fails_is_a_warning(drawn, tmp_path, monkeypatch):
    def broken(history):
        raise ZeroDivisionError("my fault")

    monkeypatch.setattr(lt.report, "gradient_flow", broken)
    with pytest.warns(UserWarning, match="the picture gradient_flow could not be made: ZeroDivisionError: my fault"):
        fit(Classifier(), [lt.GradientFlowMonitor(every_n_steps=1)])
    assert (tmp_path / RUN / "gradients" / "history.csv").exists()


class Remote(Logger):
    """A logger without a folder of its own for each run, as those of web services are."""

    name, version, save_dir = "project", "run7", "somewhere"

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, *args, **kwargs):
        pass


def test_loggers_without_a_folder(tmp_path):
    fit(Classifier(), [lt.ActivationMonitor(every_n_steps=1)], logger=Remote())
    assert (tmp_path / "somewhere" / "project" / "run7" / "activations" / "history.csv").exists()


def test_history_as_a_table(tmp_path):
    monitor = lt.ActivationMonitor(every_n_steps=1)
    fit(Classifier(), [monitor])
    path = monitor.to_csv(tmp_path / "elsewhere" / "all.csv")
    assert path.read_text() == (tmp_path / RUN / "activations" / "history.csv").read_text()
    lines = path.read_text().splitlines()
    assert lines[0] == "step,kind,layer,function_or_operation,measure,value"
    assert f"0,activation,net.1,relu,linearity,{monitor.history[0].activations[0].linearity!r}" in lines


def test_nothing_is_drawn_without_a_step(drawn, tmp_path):
    fit(Classifier(), monitors(), limit_train_batches=0)
    assert not list(tmp_path.rglob("*.png"))


def test_folders(tmp_path):
    class Asks(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.folder = FitFiles().folder_of(trainer, "name")

    def folder(**options):
        callback = Asks()
        fit(Classifier(), [callback], batches(1), **options)
        return callback.folder

    assert folder() == tmp_path / "lightning_logs" / "version_0" / "name"
    assert folder(default_root_dir="root") == pathlib.Path("root/lightning_logs/version_0/name")
    assert folder(logger=CSVLogger("logs")) == pathlib.Path("logs/lightning_logs/version_0/name")
    assert folder(fast_dev_run=True) is None


def test_a_page_that_fails_is_a_warning(tmp_path, monkeypatch):
    def broken(diagnosis, path, trials=()):
        raise ZeroDivisionError("my fault")

    monkeypatch.setattr(Diagnosis, "to_html", broken)
    with pytest.warns(UserWarning, match="the page could not be made: ZeroDivisionError: my fault"):
        fit(Classifier(), [lt.TrainingDoctor(every_n_steps=1)])
    assert (tmp_path / RUN / "doctor" / "history.csv").exists()


def test_drawing_has_an_end(drawn, tmp_path, monkeypatch):
    clock = iter(range(0, 10**6, 6))  # seconds pass at every look at it
    monkeypatch.setattr(files_of_fits.time, "monotonic", lambda: next(clock))
    doctor = lt.TrainingDoctor(every_n_steps=1, on_problem="log", table=False)
    with pytest.warns(UserWarning, match="not drawn, as pictures took 12 s already: dead_and_linear, gradient_flow"):
        fit(Classifier(), [doctor])
    assert {path.name for path in (RUN / "doctor").glob("*.png")} == {"ladder.png", "histograms_over_time.png"}
    assert (RUN / "doctor" / "diagnosis.html").exists()


def test_a_long_training_has_longer_to_draw(drawn, tmp_path):
    made = FitFiles()
    made._drawing = 60.0
    assert not made._has_time
    made._began -= 2000.0
    assert made._has_time
