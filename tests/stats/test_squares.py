import math

import pytest
import torch

from lightning_tricks.stats import SquareSums


@pytest.mark.parametrize("size", [1e-30, 1e-22, 1e-3, 1e15, 1e25])
def test_rms_holds_from_a_vanished_to_an_exploded_signal(size):
    x = torch.randn(64, 7, generator=torch.Generator().manual_seed(0)) * size
    assert SquareSums.of(x, precise=True).rms == pytest.approx(x.double().square().mean().sqrt().item(), rel=1e-6)


def test_nothing_has_no_rms_and_nan_stays():
    assert math.isnan(SquareSums.of(torch.empty(0, 3)).rms)
    assert math.isnan(SquareSums.of(torch.tensor([1.0, math.nan])).rms)
    assert math.isinf(SquareSums.of(torch.tensor([1.0, math.inf])).rms)
