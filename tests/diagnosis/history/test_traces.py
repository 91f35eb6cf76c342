"""What used a parameter, also where no module does."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.diagnosis.history.traces import traces_of
from lightning_tricks.diagnosis.rules.disconnected_parameters import find_disconnected_parameters

from ..custom import fit


class ByFunctions(nn.Module):
    """Weights that functions are given, the first two cut off."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(0.1 * torch.randn(*shape)) for shape in ((32, 64), (32, 32), (10, 32)))

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.linear(F.linear(x, self.a).relu(), self.b).relu()
        return F.linear(hidden.detach(), self.c)


def test_a_weight_is_used_by_the_call_that_was_given_it() -> None:
    torch.manual_seed(0)
    history = fit(ByFunctions(), steps=10)
    assert {trace.name: trace.layer for trace in traces_of(history)} == {
        "a": "linear",
        "b": "linear_2",
        "c": "linear_3",
    }
    (found,) = find_disconnected_parameters(history)
    assert (found.severity, found.layer) == ("critical", "linear")
    assert found.evidence["the cut lies between"] == "linear_2 and linear_3"
