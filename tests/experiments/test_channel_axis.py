"""Channels that lie last, or were brought to the front by a view, are found; images as they should be are not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lightning_tricks as lt

G = torch.Generator().manual_seed(0)
SMOOTH = F.interpolate(torch.randn(32, 3, 5, 5, generator=G), (16, 16), mode="bicubic")
IMAGES = SMOOTH + 0.1 * torch.randn(32, 3, 16, 16, generator=G)
GREY = IMAGES.mean(1, keepdim=True)
LAST = IMAGES.permute(0, 2, 3, 1).contiguous()
Y = torch.arange(32) % 2


def net(x, kernel=3):
    padding = kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)
    layers = nn.Conv2d(x.shape[1], 8, kernel, padding=padding), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(8 * x.shape[2] * x.shape[3], 2))


def alarms(x, kernel=3):
    torch.manual_seed(0)
    diagnosis = lt.checkup(net(x, kernel), [(x, Y)] * 2, F.cross_entropy, num_batches=2, experiments="channel_axis")
    return [each for each in diagnosis.findings if each.rank and each.proof and each.proof.name == "channel_axis"]


@pytest.mark.parametrize("x", [LAST, GREY.permute(0, 2, 3, 1)], ids=["colours", "grey"])
def test_channels_last(x):
    (finding,) = alarms(x)
    assert (finding.problem, finding.layer) == ("unnormalized_input", "0")
    assert "permute(0, 3, 1, 2)" in finding.remedies[0].text


@pytest.mark.parametrize(
    "x", [LAST, GREY.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).contiguous()], ids=["colours", "grey"]
)
def test_a_view_in_place_of_a_permutation(x):
    (finding,) = alarms(x.view(32, 3, 16, 16))
    assert "view" in finding.remedies[0].text


@pytest.mark.parametrize(
    "x",
    [
        IMAGES,
        GREY,
        IMAGES.to(memory_format=torch.channels_last),
        torch.randn(32, 3, 16, 16, generator=G),
        torch.randn(32, 16, 16, 3, generator=G),
        torch.randn(32, 3, 16, 16, generator=G).relu() * (torch.arange(16) % 3 == 0),
        F.interpolate(torch.randn(32, 12, 3, 3, generator=G), (9, 9), mode="bilinear"),
        IMAGES[:, :, :, :3],
    ],
    ids=["colours", "grey", "memory", "noise", "numbers", "stripes", "bands", "narrow"],
)
def test_images_as_they_should_be(x):
    assert not alarms(x)


def test_series_of_many_channels_are_no_images():
    series = GREY.permute(0, 2, 3, 1)
    assert not alarms(series, kernel=(3, 1))
    assert not alarms(series[:, :12])


def test_without_a_convolution_over_data_it_is_not_asked():
    assert not lt.experiments.channel_axis(nn.Linear(4, 2), (torch.rand(8, 4), Y[:8]), F.cross_entropy).conclusive
    upsampled = nn.Sequential(nn.Linear(4, 64), nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 2, 8), nn.Flatten())
    assert not lt.experiments.channel_axis(upsampled, (torch.rand(8, 4), Y[:8]), F.cross_entropy).conclusive
