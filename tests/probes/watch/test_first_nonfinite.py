"""The call that makes the first NaN or Inf is named, with its line; what was written as an Inf is not."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_tricks.probes.watch.first_nonfinite import first_nonfinite

ROWS = torch.tensor([[0.5, 1.0], [2.0, 3.0]])
NEXT = torch.tensor([[False, True], [False, False]])


def attention(x: Tensor, mask: Tensor) -> Tensor:
    return x.masked_fill(mask, -math.inf).softmax(-1)


MADE: dict[str, tuple[Callable[[Tensor], Tensor], str | None]] = {
    "log": (lambda x: (x - 1).log().sum(), "log"),
    "division, though it is a product that makes it NaN": (lambda x: ((x / (x - x)) * 0.0).sum(), "div"),
    "row that is masked all over": (lambda x: attention(x, NEXT | ~NEXT).sum(), "softmax"),
    "masked row": (lambda x: attention(x, NEXT).sum(), None),
    "behind a mask": (lambda x: attention(x, NEXT).log().sum(), "log"),
    "what leads nowhere": (lambda x: ((x - 9).log(), x.sum())[1], None),
    "came in so": (lambda x: (x + torch.full_like(x, math.nan)).sum(), None),
    "root": (lambda x: (x - x).sqrt().sum(), "sqrt (backward)"),
    "branch that is not taken": (lambda x: torch.where(x > 0.7, x, (x - 0.5).log()).sum(), "log"),
    "its gradient": (lambda x: torch.where(x > 0.7, (x - 0.5).log(), x).sum(), "log (backward)"),
    "inside of a function": (lambda x: F.normalize(x - x, eps=0.0).nan_to_num().sum(), "normalize (backward)"),
}


@pytest.mark.parametrize("name", MADE)
def test_the_call_that_makes_it(name: str) -> None:
    compute, operation = MADE[name]
    x = ROWS.clone().requires_grad_(True)
    place = first_nonfinite(lambda: compute(x), [x])
    assert (None if place is None else place.operation.replace("true", "")) == operation
    assert place is None or place.line.startswith("test_first_nonfinite.py:")
    assert x.grad is None


def test_a_layer_of_torch_is_the_line_that_calls_it() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    huge = torch.full((4, 2), 3e38)
    with torch.no_grad():
        network[0].weight.fill_(10.0)  # type: ignore[operator,union-attr]
    place = first_nonfinite(lambda: network(huge).sum(), network.parameters())
    assert place is not None
    assert place.operation == "linear"
    assert "network(huge).sum()" in place.line
