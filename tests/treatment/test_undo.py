"""Every change that a treatment can make in a model is taken back bit for bit."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks.experiments.arms import ARMS
from lightning_tricks.experiments.arms.batches import Batches
from lightning_tricks.experiments.arms.prepared import prepared
from lightning_tricks.experiments.training import Training
from lightning_tricks.experiments.training.deadline import Deadline
from lightning_tricks.nn.standardize import standardize_before
from lightning_tricks.treatment.saved import Saved
from tests.treatment.trained import (
    Whole,
    X,
    Y,
    mlp,
    same,
)

pytestmark = pytest.mark.usefixtures("usual_trials")


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(5, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gru(x.view(len(x), 4, 5))[0][:, -1]


CHANGED: list[tuple[str, Callable[[], nn.Module]]] = [
    ("no_dropout", lambda: nn.Sequential(nn.Linear(20, 8), nn.Dropout(0.9), nn.Linear(8, 10))),
    ("train_mode", lambda: nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8).eval(), nn.Linear(8, 10))),
    ("unfreeze", lambda: nn.Sequential(nn.Linear(20, 8).requires_grad_(False), nn.Linear(8, 10))),
    ("batch_first", lambda: Recurrent()),
    ("raise_momentum", lambda: nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8, momentum=1e-4), nn.Linear(8, 10))),
    ("average_statistics", lambda: nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))),
    ("insert_activation", lambda: nn.Sequential(nn.Linear(20, 8), nn.Linear(8, 10))),
    ("standardize_input", mlp),
    ("no_last_activation", lambda: nn.Sequential(nn.Linear(20, 10), nn.ReLU())),
    ("reset_biases", mlp),
    ("group_norm", lambda: nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))),
    ("initialize", mlp),
    ("lsuv", mlp),
    ("relu", lambda: mlp(nn.Tanh)),
    ("leaky_relu", mlp),
    ("self_normalize", mlp),
    ("insert_batch_norm", mlp),
]


@pytest.mark.parametrize(("name", "make"), CHANGED, ids=[name for name, _ in CHANGED])
def test_every_change_of_a_model_is_undone(name: str, make: Callable[[], nn.Module]) -> None:

    arm = next(arm for arm in ARMS if arm.name == name)
    model = make()
    model.register_forward_hook(lambda module, args, output: None)
    copied = copy.deepcopy(model)
    copied._forward_hooks.clear()
    batches = Batches.of([(5 + X[i : i + 32], Y[i : i + 32]) for i in range(0, 320, 32)])
    setting = prepared(Training.of(copied, F.cross_entropy), batches, False, Deadline(60)).setting
    whole, saved = Whole(model), Saved(model)
    described = repr(model)
    assert arm.on_model is not None
    state = torch.get_rng_state()
    arm.on_model(model, setting)
    torch.set_rng_state(state)
    changed = repr(model) != described or not same(whole.before, whole.now())
    saved.put_back()
    whole.check()
    assert repr(model) == described
    assert changed


def test_a_standardised_input_is_part_of_the_model() -> None:
    """Of a Sequential too, which calls whatever is registered in it; in a copy, a pickle and a state dict."""

    model = mlp()
    names = list(dict(model.named_parameters()))
    plain = model(X)
    standardize_before(model, torch.full((1, 20), 3.0), torch.full((1, 20), 2.0))
    assert torch.allclose(model(2.0 * X + 3.0), plain, atol=1e-5)
    assert list(dict(model.named_parameters())) == names
    copies = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        Training.of(model, F.cross_entropy).copy().module,
    ]
    for other in copies:
        assert torch.equal(other(X), model(X))
        assert float(other.state_dict()["input_scale"][0, 0]) == 2.0


def test_every_change_of_a_model_is_in_the_list() -> None:
    assert sorted(arm.name for arm in ARMS if arm.on_model) == sorted(
        [*(name for name, _ in CHANGED), "standardize_both"]
    )
