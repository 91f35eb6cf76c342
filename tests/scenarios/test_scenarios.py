"""(callback, arguments) x (scenario): with monitors a training is the same bit for bit; with others it ends well."""

import contextlib
import warnings

import pytest
import torch

import lightning_tricks as lt
from tests.callbacks.trainings import same
from tests.scenarios.scenarios import SCENARIOS

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("nothing_left")]
QUIET = {"report": False}
MONITORS = {
    "all monitors": lambda: [
        lt.ActivationMonitor(every_n_steps=1),
        lt.GradientFlowMonitor(every_n_steps=1),
        lt.TrainingDoctor(every_n_steps=1, on_problem="log", **QUIET),
    ],
}
ALONE = {
    "ActivationMonitor": lambda: [lt.ActivationMonitor(every_n_steps=2, log_per_layer=True)],
    "GradientFlowMonitor": lambda: [lt.GradientFlowMonitor(every_n_steps=2, layers="net.0", max_patterns=4)],
    "TrainingDoctor": lambda: [lt.TrainingDoctor(**QUIET)],
}
CHANGING = {
    "InitializeWeights": lambda: [lt.InitializeWeights("lsuv")],
    "PreciseBatchNorm": lambda: [lt.PreciseBatchNorm()],
    "BatchAugmentation": lambda: [lt.BatchAugmentation(lt.nn.AdditiveNoise(0.1))],
}
# What cannot be done, and what the user is told.
REFUSED = {
    ("InitializeWeights", scenario): "optimises manually, .* give forward=lambda module, batch"
    for scenario in ("two optimisers by hand", "closure by hand")
}


@pytest.fixture(autouse=True)
def _apart(tmp_path, monkeypatch):
    from lightning_tricks.callbacks.monitoring.output.files import FitFiles

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FitFiles, "save_pictures", lambda *args: [])
    torch._dynamo.reset()


def cells(table, **marks):
    return [pytest.param(name, id=name, **marks) for name in table]


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("callbacks", [*cells(MONITORS), *cells(ALONE, marks=pytest.mark.all)])
def test_the_training_is_the_same_with_and_without(callbacks, scenario):
    run, looking = SCENARIOS[scenario], {**MONITORS, **ALONE}[callbacks]()
    torch.manual_seed(0)
    without = run([])
    torch.manual_seed(0)
    assert same(without, run(looking))
    assert not [monitor for monitor in looking if monitor.errors.failed]
    assert looking[0].history or "only" in scenario


@pytest.mark.parametrize("scenario", cells(SCENARIOS, marks=pytest.mark.all))
@pytest.mark.parametrize("callback", CHANGING)
def test_what_changes_a_training_runs_to_its_end(callback, scenario):
    message = REFUSED.get((callback, scenario))
    with warnings.catch_warnings(), pytest.raises(TypeError, match=message) if message else contextlib.nullcontext():
        warnings.simplefilter("ignore")
        assert SCENARIOS[scenario](CHANGING[callback]()) is not None
