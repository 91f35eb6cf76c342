"""The outermost call that leads to a loss is kept with what it was given, and no other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks.probes import Probe
from lightning_tricks.probes.watch.outermost import OutermostCall

F = nn.functional


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.drop = nn.Linear(4, 3), nn.Linear(3, 2), nn.Dropout(0.5)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        return scale * self.second(self.drop(self.first(x)))  # type: ignore[no-any-return]


def kept(model: nn.Module, step: Any) -> OutermostCall | None:
    probe = Probe(model)
    probe.keep_call()
    with probe:
        step()
    call = probe.kept_call
    probe.snapshot()
    return call


X, Y = torch.randn(5, 4), torch.tensor([0, 1, 0, 1, -100])


def test_the_call_of_the_whole_model_with_its_arguments() -> None:
    model = Two()
    call = kept(model, lambda: F.cross_entropy(model(X, scale=2.0), Y).backward())
    assert call is not None
    assert call.module is model
    assert call.path == ""
    assert call.args[0] is not X
    assert call.args[0].data_ptr() == X.data_ptr()
    assert call.kwargs == {"scale": 2.0}
    assert call.drew
    (target,) = call.targets
    assert torch.equal(target.numbers, Y)
    assert (target.ignored, target.classes) == (-100, 2)
    assert call.autocast is None


def test_of_several_networks_the_first_that_the_loss_depends_on() -> None:
    model = Two()

    def step() -> None:
        with torch.no_grad():
            model.drop(X)
        model.second(torch.randn(5, 3))  # leads nowhere
        h = model.first(X)
        model.second(h).square().mean().backward()
        model(X).sum().backward()

    call = kept(model, step)
    assert call is not None
    assert (call.path, call.drew) == ("first", False)
    assert not call.args[0].requires_grad


def test_what_autocast_was_is_known() -> None:
    model = Two()

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(X)
        output.float().sum().backward()

    call = kept(model, step)
    assert call is not None
    assert call.autocast == ("cpu", torch.bfloat16)


def test_another_network_is_not_the_models() -> None:
    model, other = Two(), nn.Linear(4, 2)
    assert kept(model, lambda: other(X).sum().backward()) is None


def test_without_a_backward_pass_nothing_is_kept(nothing_left: None) -> None:
    model = Two()
    assert kept(model, lambda: model(X)) is None


def test_only_who_asks_keeps_a_call(nothing_left: None) -> None:
    model = Two()
    with Probe(model) as probe:
        model(X).sum().backward()
    assert probe.kept_call is None


def test_calls_inside_of_a_transform_are_left() -> None:
    model = nn.Linear(4, 2)

    def step() -> None:
        torch.func.vmap(model)(X[:, None]).sum().backward()

    assert kept(model, step) is None
