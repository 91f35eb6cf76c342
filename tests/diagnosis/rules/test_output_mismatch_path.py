"""A view in place of a permutation is named with the line to write; right ways to lay out classes are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.diagnosis.rules.output_mismatch import find_output_mismatch
from tests.diagnosis.custom import Loss, fit


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


MIXED_AXES: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor], str]] = {
    "a map": (nn.Conv2d(8, 5, 1), lambda out: out.reshape(-1, 5), "out.permute(0, 2, 3, 1).reshape(-1, 5)"),
    "its log-softmax": (nn.Conv2d(8, 5, 1), lambda out: out.view(-1, 5).log_softmax(1), "out.permute(0, 2, 3, 1)"),
    "a map as a series": (nn.Conv2d(8, 5, 1), lambda out: out.view(len(out), 64, 5).transpose(1, 2), "out.flatten(2)"),
    "a series": (
        nn.Sequential(nn.Flatten(2), nn.Linear(64, 5)),
        lambda out: out.view(len(out), 5, 8),
        "out.transpose(1, 2)",
    ),
}


def of_positions(view: Callable[[Tensor], Tensor]) -> Loss:
    """Every position of an image is to be told the image's class."""

    def loss(output: Tensor, y: Tensor) -> Tensor:
        viewed = view(output)
        positions = viewed[0, 0].numel() if viewed.dim() > 2 else len(viewed) // len(y)
        target = (y // 2)[:, None].repeat(1, positions)
        return F.cross_entropy(viewed, target if viewed.dim() == 3 else target.flatten())

    return loss


@pytest.mark.parametrize("name", MIXED_AXES)
def test_a_view_in_place_of_a_permutation_is_named_with_the_line_to_write(name: str) -> None:
    head, view, line = MIXED_AXES[name]
    network = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), head)
    history = fit(network, of_positions(view), steps=1, batch=4)
    (found,) = find_output_mismatch(history)
    assert (found.severity, found.layer) == ("warning", history[0].weighted[-1].name)
    assert line in found.remedies[0].text
    assert found.decided_by[0].holds


RIGHT_AXES: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]] = {
    "a map": (nn.Conv2d(8, 5, 1), lambda out: out.permute(0, 2, 3, 1).reshape(-1, 5)),
    "a map as a series": (nn.Conv2d(8, 5, 1), lambda out: out.flatten(2)),
    "a series": (nn.Sequential(nn.Flatten(2), nn.Linear(64, 5)), lambda out: out.view(-1, 5)),
    "a series turned": (nn.Sequential(nn.Flatten(2), nn.Linear(64, 5)), lambda out: out.transpose(1, 2)),
    "several predictions a position": (
        nn.Conv2d(8, 10, 1),
        lambda out: out.view(len(out), 2, 5, -1).transpose(2, 3).reshape(-1, 5),
    ),
}


@pytest.mark.parametrize("name", RIGHT_AXES)
def test_classes_that_stay_the_units_are_silent(name: str) -> None:
    head, view = RIGHT_AXES[name]
    network = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), head)
    assert find_output_mismatch(fit(network, of_positions(view), steps=1, batch=4)) == []
