"""Population statistics: errors and time of ours, torch's update_bn and fvcore's precise batch norm.

    python tests/benchmarks/population.py [--rounds 9]

The errors are those of one batch-norm layer against the data in float64: the mean in standard deviations, the variance
relative to the unbiased one. The times are those of one pass: of ResNet-18 over 8 batches of 16 images of 64 x 64, of
two convolutions over 40 of 32 of 16 x 16, of three linear layers over 100 batches of 64 x 64.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable, Sequence

import torch
import torchvision.models
from fvcore.nn.precise_bn import update_bn_stats
from machine import describe
from race import race
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from lightning_tricks.surgery import update_population_statistics


def fvcore(model: nn.Module, batches: Sequence[Tensor]) -> None:
    update_bn_stats(model, batches, len(batches))


COMPETITORS: dict[str, Callable[[nn.Module, Sequence[Tensor]], object]] = {
    "ours": update_population_statistics,
    "update_bn": lambda model, batches: update_bn(batches, model),
    "fvcore": fvcore,
}


def errors(batches: Sequence[Tensor]) -> dict[str, tuple[float, float]]:
    data = torch.cat(list(batches)).double()
    mean, variance = data.mean(0), data.var(0)
    found = {}
    for name, run in COMPETITORS.items():
        model = nn.Sequential(nn.BatchNorm1d(data.shape[1]))
        run(model, batches)
        off = ((model[0].running_mean - mean) / variance.sqrt()).abs().max().item()
        found[name] = off, (model[0].running_var / variance - 1).abs().max().item()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    print(describe())
    uneven = torch.cat([torch.randn(500, 8), torch.randn(2, 8) * 3 + 10])
    cases = {
        "uneven: 5 x 100 and 2": uneven.split(100),
        "sorted data": torch.randn(4000, 8).sort(0).values.split(40),
        "mean/std = 1000": (torch.randn(8000, 8) + 1000).split(100),
        "even, shuffled": torch.randn(4000, 8).split(100),
    }
    print(f"{'':24}" + "".join(f"{name + ': mean, var':>24}" for name in COMPETITORS))
    for case, batches in cases.items():
        row = "".join(f"{mean:14.1e},{variance:9.1e}" for mean, variance in errors(batches).values())
        print(f"{case:24}{row}")

    for name, (model, batches) in networks().items():
        times = race(passes(model.train(), batches), options.rounds)
        print(
            f"one pass of {name}, ms:  " + ", ".join(f"{who} {value:.1f}" for who, value in times.items()), flush=True
        )


def networks() -> dict[str, tuple[nn.Module, list[Tensor]]]:
    def convolution(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]

    def linear(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]

    convolutions = nn.Sequential(*convolution(3, 16), nn.MaxPool2d(2), *convolution(16, 32), nn.Flatten())
    dense = nn.Sequential(*linear(64, 128), *linear(128, 128), nn.Linear(128, 10))
    return {
        "ResNet-18": (torchvision.models.resnet18(weights=None), [torch.randn(16, 3, 64, 64) for _ in range(8)]),
        "two convolutions": (convolutions, [torch.randn(32, 3, 16, 16) for _ in range(40)]),
        "three linear layers": (dense, [torch.randn(64, 64) for _ in range(100)]),
    }


def passes(model: nn.Module, batches: Sequence[Tensor]) -> dict[str, Callable[[], object]]:
    models = {name: copy.deepcopy(model) for name in COMPETITORS}

    def run(name: str) -> Callable[[], object]:
        @torch.no_grad()
        def one_pass() -> object:
            return COMPETITORS[name](models[name], batches)

        return one_pass

    return {name: run(name) for name in COMPETITORS}


if __name__ == "__main__":
    main()
