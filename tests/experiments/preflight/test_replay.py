"""A call that is made again leaves nothing behind, on a copy or in place."""

from __future__ import annotations

import copy
import functools
import random
import types
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lightning_tricks.experiments.preflight import replay
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.preflight.replay import replayable
from tests.conftest import attached


class Keeps(nn.Module):
    """Changes whatever a forward can change."""

    def __init__(self, *, appends: bool = False) -> None:
        super().__init__()
        self.linear, self.norm, self.drop = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)
        self.register_buffer("count", torch.zeros(1))
        self.state: Tensor | None = None
        self.notes: list[int] = []
        self.plain = torch.zeros(2)
        self.appends = appends
        self.drop.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.count = self.count + 1
        self.state = x
        self.plain.add_(1.0)
        self.extra = random.random() + np.random.rand()
        if self.appends:
            self.notes.append(1)
        return self.drop(self.norm(self.linear(x))) + torch.rand(1) * 0  # type: ignore[no-any-return]


def everything(model: nn.Module) -> list[Any]:
    found: list[Any] = [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # type: ignore
    for module in model.modules():
        for key, value in vars(module).items():
            kept = {k: id(v) for k, v in value.items()} if isinstance(value, dict) else copy.copy(value)
            found += [key, kept.tolist() if isinstance(kept, Tensor) else kept]
    found += [tensor.tolist() for tensor in model.state_dict().values()]
    return [*found, attached(), torch.is_grad_enabled()]


@pytest.fixture(params=["a copy", "in place"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "in place":
        monkeypatch.setattr(replay, "LARGEST_COPY", 0)
    return str(request.param)


def test_nothing_is_left_behind(way: str) -> None:
    model = Keeps()
    before = everything(model)
    with replayable(model) as (other, call):
        one, two = call(torch.ones(4, 3)), call(torch.ones(4, 3))
        assert (other is model) == (way == "in place")
        assert not other.training
        assert not one.requires_grad
        assert torch.equal(one, two)
    assert everything(model) == before


def test_an_error_leaves_nothing_behind_either(way: str) -> None:
    model = Keeps()
    before = everything(model)
    with pytest.raises(RuntimeError, match="shapes"), replayable(model) as (_, call):
        call(torch.ones(4, 7))
    assert everything(model) == before


def test_a_container_that_changes_is_put_back_and_said(way: str) -> None:
    model = Keeps(appends=True)
    before = everything(model)
    if way == "a copy":
        with replayable(model) as (_, call):
            call(torch.ones(4, 3))
    else:
        with pytest.raises(NotAskedError, match="changes what it keeps"), replayable(model) as (_, call):
            call(torch.ones(4, 3))
    assert everything(model) == before
    assert model.notes == []


def test_hooks_of_others_do_not_run(way: str) -> None:
    """They may note calls somewhere."""
    model, heard = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))), []
    model[0].register_forward_hook(lambda *given: heard.append(1))
    if way == "a copy":
        with replayable(model) as (_, call):
            call(torch.ones(4, 3))
    else:
        with pytest.raises(NotAskedError, match="hooks"), replayable(model):
            pass
    assert heard == []


def test_data_sets_are_not_copied() -> None:
    class Holds(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 3)
            self.data = {"train": TensorDataset(torch.zeros(9))}

    model = Holds()
    with replayable(model) as (other, _):
        assert other is not model
        assert other.data["train"] is model.data["train"]  # type: ignore


def test_what_cannot_be_copied_is_called_in_place() -> None:
    model = nn.Linear(3, 3)
    model.kept = (model.weight * 2,)  # type: ignore[assignment]  # a tensor with a graph
    with replayable(model) as (other, call):
        assert other is model
        assert call(torch.ones(2, 3)).shape == (2, 3)


def test_every_call_begins_with_the_same_random_numbers() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.RReLU())
    model[1].forward = lambda x: x + torch.randn_like(x)  # type: ignore
    with replayable(model) as (_, call):
        assert torch.equal(call(torch.ones(2, 3)), call(torch.ones(2, 3)))


def by_reference(norm: weakref.ref[nn.Module], x: Tensor) -> Any:
    found = norm()
    return None if found is None else found(x)


@pytest.mark.parametrize("reached_by", ["a function", "a reference", "the forward that was replaced"])
def test_a_copy_never_runs_a_module_of_the_training(reached_by: str) -> None:
    """What a function or a weak reference reaches is not copied: its batch norm would go on in training mode."""
    model = nn.Sequential(nn.BatchNorm1d(3))
    wrapped = nn.Sequential(nn.BatchNorm1d(3))
    norm, old = model[0], wrapped.forward
    if reached_by == "a function":
        model.forward = lambda x: norm(x)  # type: ignore[method-assign]
    elif reached_by == "a reference":
        model.forward = functools.partial(by_reference, weakref.ref(norm))  # type: ignore[method-assign]
    else:
        model[0].forward = lambda x: old(x) * 2  # type: ignore
    states = [model.state_dict(), wrapped.state_dict()]
    before = copy.deepcopy(states)
    with pytest.raises(NotAskedError, match="BatchNorm1d of the training"), replayable(model) as (_, call):
        call(torch.randn(4, 3))
    assert str(states) == str(before)


def test_a_child_that_copies_as_itself_does_not_run() -> None:
    class Itself(nn.Identity):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x

        def __deepcopy__(self, memo: Any) -> nn.Module:
            return self

    model = nn.Sequential(nn.Linear(3, 3), Itself())
    with pytest.raises(NotAskedError, match="Itself of the training"), replayable(model) as (_, call):
        call(torch.randn(4, 3))
    assert model[1].calls == 0


def test_a_forward_may_make_modules() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    model.forward = types.MethodType(lambda own, x: nn.Softmax(1)(own[1:](own[:1](x))), model)  # type: ignore
    with replayable(model) as (_, call):
        assert call(torch.randn(4, 3)).shape == (4, 3)


def test_modules_in_objects_are_copied_as_well() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    model.hidden = SimpleNamespace(teacher=nn.Linear(3, 3))  # type: ignore
    model.forward = types.MethodType(lambda self, x: self[0](x) + self.hidden.teacher(x), model)  # type: ignore
    with replayable(model) as (_, call):
        assert call(torch.randn(4, 3)).shape == (4, 3)


def test_what_a_forward_prints_is_printed_by_the_training_alone(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Linear(3, 3)
    model.forward = lambda x: print(x.shape) or x  # type: ignore
    with replayable(model) as (_, call):
        call(torch.ones(2, 3))
    print("on")
    assert capsys.readouterr().out == "on\n"
