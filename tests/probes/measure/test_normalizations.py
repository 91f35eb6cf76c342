"""Batch normalisations: the gap between batch and running statistics by hand, and what comes before them."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lightning_tricks as lt
from lightning_tricks.probes import probe


def look(model, x, passes=1, **options):
    with probe(model, **options) as p:
        for part in x.chunk(passes):
            p.new_batch()
            model(part).sum().backward()
    snapshot = p.snapshot()
    assert not [reason for reason in snapshot.not_seen.values() if "could not be read" in reason]
    return snapshot.normalizations


def by_hand(x, mean, variance, eps):
    """x: [patterns, channels]."""
    unbiased = x.var(0, ddof=1) + eps
    logs = np.log(unbiased / (variance + eps))
    gap = (x.mean(0) - mean) / np.sqrt(variance + eps)
    return np.sqrt((gap**2).mean()), np.sqrt((logs**2).mean()), np.exp(logs.mean())


def gaps(record):
    return record.mean_gap, record.log_variance_gap, record.variance_ratio


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("before", [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Identity()], ids=["conv", "relu", "nothing"])
def test_gaps_by_hand(before, training):
    torch.manual_seed(0)
    channels = 4 if isinstance(before, nn.Conv2d) else 3
    norm = nn.BatchNorm2d(channels, eps=0.01, momentum=0.3)
    norm.running_mean.uniform_(-1, 1), norm.running_var.uniform_(0.5, 2)
    norm.train(training)
    mean, variance = norm.running_mean.numpy().copy(), norm.running_var.numpy().copy()
    x = 3 * torch.randn(5, 3, 6, 6, requires_grad=True) + 1
    (record,) = look(nn.Sequential(before, norm), x)
    values = before(x).detach().movedim(1, -1).reshape(-1, channels).numpy()
    assert gaps(record) == pytest.approx(by_hand(values, mean, variance, 0.01), rel=1e-4)
    assert (record.name, record.channels, record.samples, record.patterns) == ("1", channels, 5, len(values))
    assert (record.training, record.momentum) == (training, 0.3)
    assert record.follows == ("0" if channels == 4 else None)
    assert bool(np.array_equal(mean, norm.running_mean.numpy())) is not training  # those from before the update


def test_vectors_and_sequences():
    x = torch.randn(40, 3, 7)
    net = nn.Sequential(nn.Conv1d(3, 4, 1, bias=False), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(28, 6),
                        nn.BatchNorm1d(6))  # fmt: skip
    first, second = look(net, x)
    assert (first.follows, first.follows_bias, first.patterns) == ("0", False, 280)
    assert (second.follows, second.follows_bias, second.patterns) == ("3", True, 40)
    values = net[0](x).detach().movedim(1, -1).reshape(-1, 4).numpy()
    assert gaps(first) == pytest.approx(by_hand(values, 0.0, 1.0, 1e-5), rel=1e-4)


class Functional(nn.Module):
    def __init__(self, between):
        super().__init__()
        self.conv, self.norm, self.between = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), between

    def forward(self, x):
        return self.norm(self.between(self.conv(x)))


@pytest.mark.parametrize(("between", "follows", "dropout"), [
    (lambda x: x, "conv", 0.0),
    (F.relu, None, 0.0),
    (lambda x: F.dropout(x, 0.3), "conv", 0.3),
    (lambda x: F.dropout(x, 0.3, inplace=True), "conv", 0.3),
    (lambda x: F.dropout2d(F.relu(x), 0.3), None, 0.3),
    (lambda x: torch.dropout(x.exp(), 0.3, True), None, 0.3),
    (lambda x: F.dropout(x, 0.3, training=False), "conv", 0.0),
    (lambda x: F.relu(F.dropout(x, 0.3)), None, 0.0),
    (nn.Dropout(0.4), "conv", 0.4),
    (nn.Dropout(0.4).eval(), "conv", 0.0),
    (nn.AlphaDropout(0.4), "conv", 0.0),
])  # fmt: skip
def test_what_comes_before(between, follows, dropout):
    torch.manual_seed(0)
    (record,) = look(Functional(between), torch.randn(6, 3, 4, 4))
    assert (record.name, record.follows, record.follows_bias) == ("norm", follows, follows is not None)
    assert record.dropout == dropout


def test_what_has_no_running_statistics_is_left_out():
    scratch = torch.zeros(3), torch.ones(3)
    assert look(nn.BatchNorm1d(3, track_running_stats=False), torch.randn(8, 3, requires_grad=True)) == ()

    class Scratch(nn.Module):
        def forward(self, x):
            return F.batch_norm(x, *scratch, None, None, True)

    assert look(Scratch(), torch.randn(8, 3, requires_grad=True)) == ()


@pytest.mark.parametrize("kind", [lt.nn.GhostBatchNorm1d, lt.nn.BatchRenorm1d, lt.nn.MeanOnlyBatchNorm1d])
@pytest.mark.parametrize("training", [True, False])
def test_the_packages_own(kind, training):
    torch.manual_seed(0)
    options = {"ghost_size": 8} if kind is lt.nn.GhostBatchNorm1d else {}
    net = nn.Sequential(nn.Linear(5, 4), kind(4, **options), nn.Linear(4, 2)).train(training)
    for record in look(net, torch.randn(32, 5)):
        assert record.name == "1"
        assert not record.training
        assert math.isfinite(record.mean_gap)


def test_cumulative_average_tells_its_momentum():
    norm = nn.BatchNorm1d(3, momentum=None)
    x = torch.randn(8, 3, requires_grad=True)
    assert [look(norm, x)[0].momentum for _ in range(3)] == pytest.approx([1, 1 / 2, 1 / 3])


def test_constant_channels_are_finite():
    (record,) = look(nn.BatchNorm1d(2), torch.ones(8, 2, requires_grad=True))
    assert record.variance_ratio == pytest.approx(1e-5 / (1 + 1e-5))
    assert record.mean_gap == pytest.approx(1.0, rel=1e-4)


def test_micro_batches_are_normalised_one_by_one():
    torch.manual_seed(0)
    norm, x = nn.BatchNorm1d(3), 2 * torch.randn(24, 3) + 1
    (record,) = look(norm, x, passes=2)
    one, two = x.detach().chunk(2)
    first = by_hand(one.numpy(), 0.0, 1.0, 1e-5)
    second = by_hand(two.numpy(), 0.1 * one.mean(0).numpy(), 0.9 + 0.1 * one.var(0).numpy(), 1e-5)
    assert record.mean_gap == pytest.approx(math.sqrt((first[0] ** 2 + second[0] ** 2) / 2), rel=1e-5)
    assert record.log_variance_gap == pytest.approx(math.sqrt((first[1] ** 2 + second[1] ** 2) / 2), rel=1e-5)
    assert record.variance_ratio == pytest.approx(math.sqrt(first[2] * second[2]), rel=1e-5)
    assert (record.samples, record.patterns) == (12, 12)


def test_globs():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    assert [record.name for record in look(net, torch.randn(8, 3), layers=["3"])] == ["3"]


def test_a_thin_sample_is_enough():
    torch.manual_seed(0)
    norm, x = nn.BatchNorm2d(2), torch.randn(16, 2, 32, 32, requires_grad=True) + 0.5
    (thin,), (full,) = look(norm, x, max_patterns=1024), look(nn.BatchNorm2d(2), x, max_patterns=None)
    assert thin.patterns == full.patterns == 16384
    assert thin.mean_gap == pytest.approx(full.mean_gap, abs=0.1)
