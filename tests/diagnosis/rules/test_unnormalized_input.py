"""Features that do not vary at all are a fault of the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import lightning_tricks as lt
from lightning_tricks.diagnosis import find
from lightning_tricks.diagnosis.rules.unnormalized_input import find_unnormalized_input

from ..trainings import deep, digits, train


def test_patterns_that_are_all_the_same_are_named_and_nothing_else() -> None:
    x, y = digits()
    torch.manual_seed(0)
    history = train(deep(nn.ReLU, 3), batches=[(x[:1].expand(64, 64), y[i : i + 64]) for i in range(0, 640, 64)])
    (finding,) = (finding for finding in find(history) if finding.rank)
    assert (finding.problem, finding.layer, finding.consequences) == ("unnormalized_input", "0", ())
    assert finding.remedies[0].action == "check_data"
    assert all(criterion.holds for criterion in finding.decided_by)
    assert lt.diagnose(history).verdict == "Sick: the input is the same for every pattern at layer 0."


def test_a_branch_whose_input_is_constant_by_design_is_none() -> None:
    class Conditioned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time, self.body = nn.Linear(1, 64), deep(nn.ReLU, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x + self.time(torch.full((len(x), 1), 0.5)))

    assert [finding for finding in find(train(Conditioned())) if finding.problem == "unnormalized_input"] == []


def test_one_pattern_at_a_time_is_none() -> None:
    x, y = digits()
    history = train(deep(nn.ReLU, 2), steps=20, every=1, batches=[(x[i : i + 1], y[i : i + 1]) for i in range(20)])
    assert [finding for finding in find(history) if finding.problem == "unnormalized_input"] == []


def test_an_input_that_is_far_too_small_is_named() -> None:
    x, y = digits()
    history = train(
        deep(nn.ReLU, 2), steps=20, batches=[(0.01 * x[i : i + 64], y[i : i + 64]) for i in range(0, 640, 64)]
    )
    (finding,) = find_unnormalized_input(history)
    assert (finding.severity, finding.evidence["root mean square"] < 0.02) == ("warning", True)
