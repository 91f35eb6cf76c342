"""A fault of the package's own, wherever it lies, never touches the training that it looks at."""

from __future__ import annotations

import sys

import pytest
import torch

import lightning_tricks as lt
from lightning_tricks.callbacks.monitoring import checkpoints
from lightning_tricks.callbacks.monitoring.output.files import FitFiles
from lightning_tricks.diagnosis import Rule
from lightning_tricks.probes.measure.parameters import ParameterReader
from lightning_tricks.probes.records.activations import ActivationRecord
from lightning_tricks.probes.watch.module_stack import ModuleStack
from lightning_tricks.probes.watch.observer import Observer
from lightning_tricks.stats import ActivationSums
from tests.callbacks.trainings import Classifier, batches, fit, mlp, same

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("nothing_left")]


def place(name):
    """A module of the package, also where its package has a function of the same name."""
    return sys.modules[f"lightning_tricks.{name}"]


# what raises: where it is looked up, and its name there
FAULTS = {
    "a rule": (Rule, "__call__"),
    "attribution": (place("diagnosis.diagnose"), "fold"),
    "a measure": (ActivationRecord.MEASURES["linearity"], "function"),
    "sums of an activation": (ActivationSums, "of"),
    "a sample": (place("probes.measure.weighted"), "sample"),
    "whose weight it is": (Observer, "parameter_name"),
    "the running module's name": (ModuleStack, "name"),
    "a module that is entered": (ModuleStack, "enter"),
    "gradients": (ParameterReader, "before"),
    "updates": (ParameterReader, "after"),
    "a snapshot": (place("probes.probe"), "build_snapshot"),
    "an experiment": (place("watch.first_step"), "preflight"),
    "a summary": (lt.ActivationMonitor, "summary"),
    "the table": (lt.Diagnosis, "show"),
    "the page": (place("callbacks.training_doctor"), "save_page"),
    "the CSV file": (place("callbacks.monitoring.monitor"), "write_csv"),
    "pictures": (FitFiles, "save_pictures"),
    "a module that is left": (ModuleStack, "_leave"),
    "a checkpoint": (checkpoints, "state_of"),
}


def train(callbacks):
    torch.manual_seed(0)
    module = Classifier(mlp())
    options = {"logger": True, "log_every_n_steps": 1, "enable_checkpointing": True}
    trainer = fit(module, callbacks, batches(3), max_epochs=2, **options)
    return module.losses, module.state_dict(), torch.get_rng_state(), trainer.global_step


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_inside_leaves_the_training_as_it_is(fault, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    without = train([])
    hits = []

    def broken(*given, **named):
        hits.append(fault)
        raise ZeroDivisionError("a fault of the package's own")

    monkeypatch.setattr(FitFiles, "save_pictures", lambda *given: [])  # they take most of the time
    monkeypatch.setattr(*FAULTS[fault], broken)
    looking = [
        lt.ActivationMonitor(every_n_steps=1),
        lt.GradientFlowMonitor(every_n_steps=1),
        lt.TrainingDoctor(every_n_steps=1),
    ]
    assert same(without, train(looking))
    assert hits
