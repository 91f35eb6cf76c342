"""Wrong labels are counted; classes that overlap, rare ones and ones that no distance shows are none."""

from __future__ import annotations

import importlib

import pytest
import torch

import lightning_tricks as lt
from lightning_tricks.experiments import wrong_labels

module = importlib.import_module("lightning_tricks.experiments.data.wrong_labels")


def blobs(apart: float, classes: int = 3, count: int = 900, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    return apart * torch.eye(classes, 6)[y] + torch.randn(count, 6, generator=generator), y


def spoiled(y: torch.Tensor, share: float) -> tuple[torch.Tensor, set[int]]:
    generator = torch.Generator().manual_seed(1)
    which = torch.randperm(len(y), generator=generator)[: round(share * len(y))]
    classes = int(y.max()) + 1
    y = y.clone()
    y[which] = (y[which] + torch.randint(1, classes, (len(which),), generator=generator)) % classes
    return y, set(which.tolist())


def alarms(x, y):
    return list(module.judged(wrong_labels((x, y))))


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("share", [0.05, 0.2])
def test_the_share_is_within_a_third(share, classes):
    x, y = blobs(5.0, classes)
    y, which = spoiled(y, share)
    found = wrong_labels((x, y))
    assert abs(found.numbers["share"] - share) <= share / 3
    assert found.numbers["low"] <= share <= found.numbers["high"]
    named = [each.index for each in found.examples[:20]]
    assert sum(i in which for i in named) >= 0.9 * len(named)
    (finding,) = alarms(x, y)
    assert finding.problem == "target_mismatch"
    assert str(named[0]) in finding.remedies[0].text


@pytest.mark.parametrize("apart", [0.5, 1.0, 1.5, 2.0, 3.0, 5.0])
def test_overlap_is_no_noise(apart):
    assert not alarms(*blobs(apart))
    assert not alarms(*blobs(apart, 2))


def test_a_rare_class_without_a_place_of_its_own():
    x, y = blobs(6.0, 4)
    rare = torch.rand(len(y), generator=torch.Generator().manual_seed(2)) < 0.05
    assert not alarms(x, torch.where(rare, 4, y))
    assert not alarms(x, rare.long())  # clicks


def test_copies_do_not_hide_what_is_wrong():
    x, y = blobs(5.0)
    y, _ = spoiled(y, 0.1)
    assert abs(wrong_labels((torch.cat([x, x, x]), torch.cat([y, y, y]))).numbers["share"] - 0.1) < 0.03


def test_labels_of_other_patterns():
    x, y = blobs(5.0)
    found = wrong_labels((x, y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]))
    assert found.numbers["errors"] < 3
    assert "say nothing" in found.answer
    assert not list(module.judged(found))
    stuck = lt.Finding("not_learning", None, "warning", 0)
    assert module._proves(found, stuck)
    assert not module._proves(wrong_labels((x, y)), stuck)


@pytest.mark.parametrize("y", [torch.rand(200, 1), torch.arange(200), torch.zeros(200).long()])
def test_what_has_no_classes_is_not_judged(y):
    assert not wrong_labels((torch.randn(200, 4), y)).conclusive
