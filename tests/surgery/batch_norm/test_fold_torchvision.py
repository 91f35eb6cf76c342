"""Whole networks from torchvision, without weights: the same outputs, and the batch norms that are left counted."""

import copy

import pytest
import torch

from lightning_tricks.init.report import Report
from lightning_tricks.nn.batch_norm import BatchNorm
from lightning_tricks.surgery.batch_norm.fold import fold_batch_norm

models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")

# name, arguments, image size, batch norms folded, left
NETWORKS = [
    ("resnet18", {}, 64, 20, 0),
    ("mobilenet_v3_small", {}, 64, 34, 0),
    ("densenet121", {}, 64, 59, 62),
    ("inception_v3", {"init_weights": False}, 96, 94, 2),
    ("regnet_y_400mf", {}, 64, 53, 0),
]


@pytest.mark.parametrize(("name", "arguments", "size", "folded", "left"), NETWORKS, ids=[n[0] for n in NETWORKS])
def test_whole_networks(name, arguments, size, folded, left):
    torch.manual_seed(0)
    model = getattr(models, name)(weights=None, **arguments).eval()
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, BatchNorm):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.2, 3)
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-1, 1)
        report = Report()
        other = fold_batch_norm(copy.deepcopy(model), report=report)
        expected = model(x)
        error = ((other(x) - expected).abs().max() / expected.abs().max()).item()
    print(f"{name}: {len(report.changed)} folded, {len(report.left)} left, difference {error:.1e}")
    assert error <= 1e-5
    assert (len(report.changed), len(report.left)) == (folded, left)
    assert sum(isinstance(module, BatchNorm) for module in other.modules()) == left
