"""Inference with batch norm folded against the same network unfolded, and against torch.fx's own folding.

python tests/benchmarks/folding.py [--rounds 15] [--device cpu]
"""

from __future__ import annotations

import argparse
import copy
import warnings

import torch
import torchvision.models
from machine import describe
from race import race
from torch import nn
from torch.fx.experimental.optimization import fuse

from lightning_tricks.surgery import Report, fold_batch_norm

# name, arguments, batch, image size
NETWORKS = [
    ("resnet18", {}, 8, 112),
    ("mobilenet_v3_small", {}, 16, 112),
    ("densenet121", {}, 4, 112),
    ("inception_v3", {"init_weights": False}, 2, 149),
    ("regnet_y_400mf", {}, 8, 112),
]


def randomize(model: nn.Module) -> nn.Module:
    """Statistics that are not 0 and 1, so that a folding that does nothing would show."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.2, 3)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -1, 1)
    return model.eval()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    print(describe())
    columns = f"{'unfolded ms':>12}{'folded ms':>11}{'torch.fx ms':>12}{'unfolded/folded':>16}"
    print(f"{'network':20}{'folded':>7}{'left':>6}{'difference':>12}{columns}")
    for name, arguments, batch, size in NETWORKS:
        model = randomize(getattr(torchvision.models, name)(weights=None, **arguments)).to(options.device)
        x = torch.randn(batch, 3, size, size, device=options.device)
        report = Report()
        folded = fold_batch_norm(copy.deepcopy(model), report=report)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = fuse(copy.deepcopy(model))
        expected = model(x)
        difference = ((folded(x) - expected).abs().max() / expected.abs().max()).item()
        runs = {"unfolded": model, "folded": folded, "torch.fx": theirs}
        times = race({key: (lambda net=net, x=x: net(x)) for key, net in runs.items()}, options.rounds)
        print(
            f"{name:20}{len(report.changed):7}{len(report.left):6}{difference:12.1e}{times['unfolded']:12.1f}"
            f"{times['folded']:11.1f}{times['torch.fx']:12.1f}{times['unfolded'] / times['folded']:16.2f}"
        )


if __name__ == "__main__":
    main()
