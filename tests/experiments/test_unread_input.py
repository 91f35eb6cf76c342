"""An input that is hardly read is named by its axis, and is the cause where nothing else makes it learn."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lightning_tricks as lt
from lightning_tricks.experiments import never_read
from lightning_tricks.experiments.arms import trials as trials_module

pytestmark = [pytest.mark.usefixtures("usual_trials"), pytest.mark.filterwarnings("ignore")]
X = torch.randn(640, 12, 2, generator=torch.Generator().manual_seed(0))
LATE = (X[:, 6:, 0].sum(1) > 0).long()  # told by the later half alone


class Recurrent(nn.Module):
    def __init__(self, place: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.head, self.place = nn.LSTM(2, 16, batch_first=True), nn.Linear(16, 2), place

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, self.place])


@pytest.fixture(autouse=True)
def _shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials_module, "SORT", 40)
    monkeypatch.setattr(trials_module, "DECLARE", 40)


def test_the_axis_and_its_places_are_told() -> None:
    found = never_read(Recurrent(0), (X[:32], LATE[:32]), F.cross_entropy)
    assert found.numbers == {"features": 24.0, "never_read": 22.0}
    assert found.answer.endswith("along axis 1 only 0 of 12 is read")
    assert never_read(Recurrent(-1), (X[:32], LATE[:32]), F.cross_entropy).numbers["never_read"] == 0.0


@pytest.mark.parametrize(("place", "state"), [(0, "not_learning"), (-1, "healthy")])
def test_a_checkup_says_that_the_input_is_not_read(place: int, state: str) -> None:
    net = Recurrent(place)
    batches = list(zip(X.split(32), LATE.split(32), strict=True))
    optimizer = torch.optim.Adam(net.parameters(), 0.03)
    tried = ["free_outputs", "never_read", "changes"]
    found = lt.checkup(net, batches, F.cross_entropy, optimizer, experiments=tried)
    assert found.state == state
    if place == 0:
        assert "only 0 of 12 is read" in found.findings[0].explanation
        assert found.findings[0].remedies[0].action == "read_input"
