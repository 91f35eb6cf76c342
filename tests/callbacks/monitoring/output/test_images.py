"""Pictures for the loggers that take them: each is asked in its own way."""

import pytest
from lightning.pytorch.loggers.logger import Logger

import lightning_tricks as lt
from lightning_tricks.callbacks.monitoring.output.images import log_image
from tests.callbacks.trainings import Classifier, fit


class Recorder:
    """Notes every call, and stands for whatever is asked of it."""

    def __init__(self, calls=None, name=""):
        self.calls, self.name = [] if calls is None else calls, name

    def __getattr__(self, name):
        return Recorder(self.calls, name)

    def __getitem__(self, key):
        return Recorder(self.calls, key)

    def __call__(self, *args, **kwargs):
        self.calls.append((self.name, args, kwargs))


class Web(Logger):
    name, version, save_dir, run_id = "project", "run7", "somewhere", "abc"

    def __init__(self):
        self.experiment = Recorder()

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_image(self, key, images, step=None, **kwargs):
        self.experiment.calls.append(("wandb", (key, images), {}))


def logger(kind):
    return type(kind, (Web,), {})()


@pytest.mark.parametrize(("kind", "expected"), [
    ("WandbLogger", ("wandb", ("gradients/gradient_flow", ["{path}"]), {})),
    ("MLFlowLogger", ("log_artifact", ("abc", "{path}"), {"artifact_path": "gradients"})),
    ("CometLogger", ("log_image", ("{path}",), {"name": "gradients/gradient_flow", "step": 5})),
    ("NeptuneLogger", ("upload", ("{path}",), {})),
])  # fmt: skip
def test_each_logger_gets_the_file(drawn, tmp_path, kind, expected):
    pytest.importorskip("matplotlib")
    taking = logger(kind)
    fit(Classifier(), [lt.GradientFlowMonitor(every_n_steps=1)], logger=taking)
    path = "somewhere/project/run7/gradients/gradient_flow.png"
    calls = taking.experiment.calls
    name, args, kwargs = expected
    filled = tuple([path] if isinstance(each, list) else path if each == "{path}" else each for each in args)
    assert calls == [(name, filled, kwargs)]


def test_the_key_of_neptune(tmp_path):
    taking, keys = logger("NeptuneLogger"), []
    taking.experiment = type("Run", (), {"__getitem__": lambda self, key: (keys.append(key), Recorder())[1]})()
    assert log_image(taking, "doctor/ladder", tmp_path / "ladder.png", 3)
    assert keys == ["doctor/ladder"]


def test_a_logger_of_another_kind_is_left_alone(tmp_path):
    taking = logger("Another")
    assert not log_image(taking, "doctor/ladder", tmp_path / "ladder.png", 3)
    assert taking.experiment.calls == []


def test_a_logger_that_fails_is_a_warning(tmp_path):
    taking = logger("CometLogger")
    taking.experiment = None
    with pytest.warns(UserWarning, match=r"CometLogger did not take the picture .*ladder.png: AttributeError"):
        assert log_image(taking, "doctor/ladder", tmp_path / "ladder.png", 3)
