"""Batches of one source each are named at the first norm that meets them; the same sources in every batch are not."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from lightning_tricks.diagnosis import find
from lightning_tricks.diagnosis.rules.batch_norm_mismatch import find_batch_norm_mismatch
from lightning_tricks.probes import Snapshot
from tests.diagnosis.trainings import digits, train

SOURCES, SIZE = 14, 48


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def run(strength: float, *, mixed: bool, size: int = SIZE) -> list[Snapshot]:
    x, y = digits()
    source = torch.randint(SOURCES, (len(x),))
    x = x + strength * torch.randn(SOURCES, 1)[source] * torch.ones(64) / 8.0
    batches: list[tuple[Tensor, Tensor]] = []
    for _ in range(300):
        among = torch.arange(len(x)) if mixed else (source == torch.randint(SOURCES, ())).nonzero().flatten()
        chosen = among[torch.randint(len(among), (size,))]
        batches.append((x[chosen], y[chosen]))
    network = nn.Sequential(
        *(nn.Linear(64, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU()),
        *(nn.Linear(32, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU()),
        nn.Linear(32, 10),
    )
    return train(network, 300, batches=batches)


def test_one_source_for_a_batch_is_named_at_the_first_norm() -> None:
    history = run(12.0, mixed=False)
    (found,) = [finding for finding in find_batch_norm_mismatch(history) if finding.rank]
    assert (found.layer, found.severity, found.remedies[0].action) == ("1", "warning", "shuffle")
    assert found.evidence["variance of batch means over that within"] > 0.1
    assert next(each for each in find(history) if each.rank).problem == "batch_norm_mismatch"


@pytest.mark.parametrize(("strength", "mixed", "size"), [(12.0, True, SIZE), (1.0, False, SIZE), (12.0, True, 16)])
def test_all_sources_in_a_batch_and_sources_that_are_alike_are_none(strength: float, mixed: bool, size: int) -> None:
    history = run(strength, mixed=mixed, size=size)
    for looks in range(1, len(history) + 1):
        assert not any(finding.rank for finding in find_batch_norm_mismatch(history[:looks]))


def test_a_norm_that_runs_twice_a_step_has_a_mixture_by_design() -> None:
    """As that of a discriminator, which is given real and made patterns one after the other."""
    history = [
        dataclasses.replace(
            s,
            normalizations=tuple(
                dataclasses.replace(r, name=f"{r.name}{again}") for r in s.normalizations for again in ("", "_2")
            ),
        )
        for s in run(12.0, mixed=False)
    ]
    assert not any(finding.rank for finding in find_batch_norm_mismatch(history))


def test_running_statistics_that_had_no_time_to_follow_are_no_proof() -> None:
    history = [snapshot for snapshot in run(12.0, mixed=False) if snapshot.step < 30]
    assert not any(finding.rank for finding in find_batch_norm_mismatch(history))
