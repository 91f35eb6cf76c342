"""Images that move alone are found; targets that move too, classes and photometric changes are right."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch.utils.data import Dataset

from lightning_tricks.experiments import paired_transforms

module = importlib.import_module("lightning_tricks.experiments.data.paired_transforms")


class Images(Dataset):
    """Bright blots, with a mask, key points or a class; a change of the image, and of the target where it is right."""

    def __init__(self, kind, change, both):
        self.kind, self.change, self.both = kind, change, both
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(40, 1, 24, 24, generator=generator)
        self.points = torch.randint(2, 22, (40, 3, 2), generator=generator).float()

    def __len__(self):
        return 40

    def __getitem__(self, i):
        image, points, mask = self.images[i], self.points[i], (self.images[i, 0] > 0.7).float()
        drawn = torch.rand(()) < 0.5
        if self.change == "flip" and drawn:
            image = image.flip(-1)
            if self.both:
                mask, points = mask.flip(-1), torch.stack([23 - points[:, 0], points[:, 1]], 1)
        if self.change == "shift":
            by = int(torch.randint(-4, 5, ()))
            image = image.roll(by, -1)
            if self.both:
                mask, points = mask.roll(by, -1), points + torch.tensor([by, 0])
        if self.change == "colour":
            image = image * (0.5 + torch.rand(())) + 0.1 * torch.randn(image.shape)
        return image, {"mask": mask, "points": points, "class": torch.tensor(i % 3), "age": torch.tensor([i / 40.0])}[
            self.kind
        ]


def alarms(kind, change, both):
    found = paired_transforms(Images(kind, change, both))
    return found.conclusive and list(module.judged(found))


@pytest.mark.parametrize("change", ["flip", "shift"])
@pytest.mark.parametrize("kind", ["mask", "points"])
def test_an_image_that_moves_alone(kind, change):
    (finding,) = alarms(kind, change, both=False)
    assert finding.problem == "target_mismatch"
    assert len(finding.evidence["examples"].split(", ")) == 12
    assert not alarms(kind, change, both=True)


@pytest.mark.parametrize("kind", ["mask", "points"])
def test_colours_may_change_alone(kind):
    assert not alarms(kind, "colour", both=False)
    assert not alarms(kind, None, both=False)


@pytest.mark.parametrize("kind", ["class", "age"])
def test_a_class_stays_where_the_image_moves(kind):
    assert not alarms(kind, "flip", both=False)
