"""Every test runs in a folder of its own, and leaves nothing attached to torch."""

import os
import sys

import pytest
import torch
from torch.nn.modules import module as torch_module
from torch.overrides import _get_current_function_mode_stack

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start
torch.set_num_threads(1)  # the suite runs in several processes already


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="also the long parts of the oracles (marked all)")


def pytest_collection_modifyitems(config, items):
    """Leaves out what is marked ``all``; without a line for each."""
    if not config.getoption("--all"):
        left = [item for item in items if item.get_closest_marker("all")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("all")]


def attached():
    """What of a probe is global while it looks."""
    hooks = (torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks)
    return [
        *(dict(hook) for hook in (*hooks, torch_module._global_forward_hooks_with_kwargs)),
        len(_get_current_function_mode_stack()),
    ]


@pytest.fixture
def nothing_left():
    """Fails a test that leaves hooks or function modes in torch."""
    before = attached()
    yield
    assert attached() == before
    assert torch.is_grad_enabled()


@pytest.fixture(autouse=True)
def _same_numbers():
    """The same random numbers in every run, whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture
def usual_trials():
    """For a test of what is tried by short trainings: these are as long as they are for users."""


@pytest.fixture(autouse=True)
def _short_trials(request, monkeypatch):
    """Else what a checkup tries takes very few steps."""
    if "usual_trials" in request.fixturenames:
        return
    from lightning_tricks.experiments import memorise
    from lightning_tricks.experiments.arms import training_run, trials

    monkeypatch.setattr(trials, "SORT", 5)
    monkeypatch.setattr(trials, "DECLARE", 10)
    monkeypatch.setattr(training_run, "EVERY", 5)
    monkeypatch.setattr(sys.modules[memorise.__module__], "STEPS", 20)
