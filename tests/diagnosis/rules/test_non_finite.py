"""Where the first NaN is, and so where to look."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lightning_tricks.diagnosis import Finding
from lightning_tricks.diagnosis.rules.non_finite import find_non_finite
from lightning_tricks.probes import ParameterRecord, Snapshot

from ..trainings import deep, digits, sgd, train


class Calls(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def named(network: nn.Module, **options: object) -> Finding:
    torch.manual_seed(0)
    (finding,) = find_non_finite(train(network, steps=3, **options))  # type: ignore[arg-type]
    return finding


def test_a_gradient_that_is_the_first_is_to_be_looked_for_behind_the_layer() -> None:
    rooted = Calls(lambda x: x + (0.0 * x).abs().sqrt())  # at zero the root is finite and its slope is not
    finding = named(nn.Sequential(deep(nn.ReLU, 2), rooted))
    assert (finding.layer, finding.evidence["tensor"]) == ("0.4", "gradient")
    assert finding.remedies[0].text.startswith("look behind 0.4")
    assert "before" not in finding.remedies[0].text


@pytest.mark.parametrize(
    ("network", "layer", "words"),
    [
        (lambda: nn.Sequential(Calls(lambda x: x / 0.0 * 0.0), deep(nn.ReLU, 2)), "1.0", "in the data"),
        (lambda: nn.Sequential(nn.Linear(64, 64), Calls(torch.log), nn.Linear(64, 10)), "2", "before and 2"),
        (lambda: nn.Sequential(nn.Linear(64, 64), Calls(torch.log), nn.ReLU(), nn.Linear(64, 10)), "2", "before and 2"),
        (lambda: nn.Sequential(deep(nn.ReLU, 2), Calls(lambda x: x + (x.detach() * 0 - 1).log())), None, "the loss"),
    ],
    ids=["data", "between", "before an activation", "loss"],
)
def test_the_remedy_names_the_place(network: Callable[[], nn.Module], layer: str | None, words: str) -> None:
    finding = named(network())
    assert finding.layer == layer
    assert words in finding.remedies[0].text
    assert len(finding.remedies) == 1  # before the first step no step has brought it about


def test_a_rate_that_threw_the_weights_far_is_lowered_first() -> None:
    torch.manual_seed(0)
    x, y = digits()
    history = train(deep(nn.ReLU, 5), steps=60, optimizer=sgd(1e5), every=1, batches=[(x[:64], y[:64])])
    (finding,) = find_non_finite(history)
    assert [remedy.action for remedy in finding.remedies[:2]] == ["lower_learning_rate", "clip_gradients"]


@pytest.mark.parametrize(("scale", "looks", "found"), [(1.0, 1, True), (2.0**16, 2, False), (2.0**16, 3, True)])
def test_a_loss_scaler_may_overflow_while_it_looks_for_its_scale(scale: float, looks: int, found: bool) -> None:
    overflow = ParameterRecord("0.weight", layer="0", nonfinite_gradient=True)
    history = [Snapshot(step, 2.3, loss_scale=scale, parameters=(overflow,)) for step in range(looks)]
    assert bool(list(find_non_finite(history))) is found
