"""Images of another scale than the weights were trained with are found where the batch norm does not adapt."""

from __future__ import annotations

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lightning_tricks as lt

G = torch.Generator().manual_seed(0)
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
RAW = (0.45 + 0.25 * F.interpolate(torch.randn(32, 3, 8, 8, generator=G), (24, 24), mode="bilinear")).clamp(0, 1)
PREPARED = (RAW - MEAN) / STD
Y = torch.arange(32) % 2


def backbone():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 5, bias=False), nn.BatchNorm2d(8, momentum=None), nn.ReLU())
    net(PREPARED)
    return net


class Tuned(L.LightningModule):
    """A head on a trained backbone, which stays in evaluation mode or not."""

    def __init__(self, frozen=True):
        super().__init__()
        self.backbone, self.head, self.frozen = backbone(), nn.Linear(8, 2), frozen
        if frozen:
            self.backbone.requires_grad_(False)
        self.train()

    def train(self, mode=True):
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.head(self.backbone(batch[0]).mean((2, 3))), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.head.parameters(), 0.1)


def found(x, **options):
    diagnosis = lt.checkup(Tuned(**options), [(x, Y)] * 2, num_batches=2, experiments="input_statistics")
    (made,) = diagnosis.experiments
    return made, [each for each in diagnosis.findings if each.proof is made and each.rank]


@pytest.mark.parametrize(
    ("x", "line"), [(RAW, "transforms.Normalize((0.485, "), ((PREPARED - MEAN) / STD, "no Normalize((0.485, ")]
)
def test_another_scale_than_that_of_the_weights(x, line):
    made, (finding,) = found(x)
    assert f"it fits with {line}" in made.answer
    assert (finding.problem, finding.layer) == ("unnormalized_input", "backbone.1")
    assert line in finding.remedies[0].text


def test_bytes_are_told():
    made, _ = found(RAW * 255)
    assert "it fits with x = x / 255, then Normalize" in made.answer


@pytest.mark.parametrize(
    "x", [PREPARED, PREPARED + 0.5, 0.2 * PREPARED - 1.5, torch.full_like(PREPARED, -2.1) + 0.05 * PREPARED]
)
def test_other_pictures_of_the_same_scale(x):
    assert not found(x)[1]


def test_a_norm_that_adapts_is_no_alarm():
    made, findings = found(RAW, frozen=False)
    assert made.numbers["as_set"] == 0
    assert not findings


def test_a_new_network_is_not_asked():
    new = nn.Sequential(nn.Conv2d(3, 8, 5), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(3200, 2))
    diagnosis = lt.checkup(new, [(RAW, Y)] * 2, F.cross_entropy, num_batches=2, experiments="input_statistics")
    assert diagnosis.experiments == []
