"""What a module holds, however deep, is as before it ran in place; what cannot be put back is refused before."""

from __future__ import annotations

import functools
import io
import random
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_tricks.experiments.preflight.kept import kept
from lightning_tricks.experiments.preflight.patterns import NotAskedError


def holding(value: Any) -> nn.Module:
    model = nn.Sequential(nn.LSTM(2, 3), nn.Linear(3, 3))
    model[1].value = value  # type: ignore
    return model


def test_what_objects_hold_is_put_back() -> None:
    notes = SimpleNamespace(calls=0, seen=[1], deep={"a": [torch.zeros(2)]}, lock=threading.Lock())

    def change() -> None:
        notes.calls += 1
        notes.seen.append(2)
        notes.deep["a"][0].add_(1.0)
        notes.deep["a"].append(3)

    with pytest.raises(NotAskedError, match="changes what it keeps"), kept(holding(notes)):
        change()
    assert (notes.calls, notes.seen) == (0, [1])
    assert len(notes.deep["a"]) == 1
    assert torch.equal(notes.deep["a"][0], torch.zeros(2))


@pytest.mark.parametrize("wrap", ["closure", "partial", "method", "reference"])
def test_what_functions_and_references_reach_is_put_back(wrap: str) -> None:
    class Notes:
        def __init__(self) -> None:
            self.seen: list[int] = []

        def note(self) -> None:
            self.seen.append(1)

    notes = Notes()
    reach = {
        "closure": lambda: notes,
        "partial": functools.partial(list, notes.seen),
        "method": notes.note,
        "reference": weakref.ref(notes),
    }[wrap]
    with pytest.raises(NotAskedError, match="changes what it keeps"), kept(holding([reach])):
        notes.note()
    assert notes.seen == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: random.Random(0),
        lambda: SimpleNamespace(rng=np.random.default_rng(0)),
        lambda: [torch.Generator()],
        io.StringIO,
        lambda: [nn.BatchNorm1d(2)],
    ],
)
def test_what_cannot_be_put_back_is_refused(make: Any) -> None:
    with pytest.raises(NotAskedError, match="that it holds"), kept(holding(make())):
        pytest.fail("it was to be refused before it runs")


def test_what_never_changes_is_no_hindrance() -> None:
    with kept(holding([threading.RLock(), Path(), np, len, nn.ReLU, {"a": (1, None, torch.float)}, torch.relu])):
        pass


def test_a_trainer_is_out_of_reach_meanwhile() -> None:
    """A forward may log by it."""
    model = holding(None)
    model._trainer = trainer = SimpleNamespace(rng=random.Random(0))  # type: ignore
    with kept(model):
        assert model._trainer is None
    assert model._trainer is trainer


def test_weights_that_a_forward_changes_are_put_back() -> None:
    """An embedding with max_norm changes them again after every step."""
    model = nn.Embedding(4, 2, max_norm=0.1)
    before = model.weight.detach().clone()

    def run() -> None:
        model(torch.arange(4))
        model.weight.data.mul_(0.5)

    with torch.no_grad(), pytest.raises(NotAskedError, match="changes what it keeps"), kept(model):
        run()
    assert torch.equal(model.weight, before)
    with pytest.raises(NotAskedError, match="max_norm"), kept(model, weights=False):
        pytest.fail("there is no room to put them back")
