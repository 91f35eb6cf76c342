"""Batch renormalisation, forward and backward: against the formula term by term, and against nn.BatchNorm.

python tests/benchmarks/batch_renorm.py [--rounds 25] [--device cpu]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from machine import describe
from race import race
from torch import Tensor, nn

from lightning_tricks.nn import BatchRenorm1d, BatchRenorm2d

SHAPES = [(256, 64), (4096, 64), (4096, 256), (32, 64, 28, 28), (256, 64, 16, 16), (128, 256, 8, 8)]
AT_ONCE = {"warmup_steps": 0, "r_max_step": 0, "d_max_step": 0}


class Naive(nn.Module):
    """Algorithm 1 of Ioffe 2017 as one writes it down."""

    def __init__(self, channels: int, dims: int, device: str) -> None:
        super().__init__()
        shape = (1, channels) + (1,) * (dims - 2)
        self.axes = [0, *range(2, dims)]
        self.weight = nn.Parameter(torch.ones(shape, device=device))
        self.bias = nn.Parameter(torch.zeros(shape, device=device))
        self.register_buffer("running_mean", torch.zeros(shape, device=device))
        self.register_buffer("running_std", torch.ones(shape, device=device))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(self.axes, keepdim=True)
        std = (x.var(self.axes, unbiased=False, keepdim=True) + 1e-5).sqrt()
        r = (std.detach() / self.running_std).clamp(1 / 3, 3)
        d = ((mean.detach() - self.running_mean) / self.running_std).clamp(-5, 5)
        with torch.no_grad():
            self.running_mean += 0.01 * (mean - self.running_mean)
            self.running_std += 0.01 * (std - self.running_std)
        return ((x - mean) / std * r + d) * self.weight + self.bias


def step(norm: nn.Module, x: Tensor, upstream: Tensor) -> Callable[[], None]:
    parameters = list(norm.parameters())

    def run() -> None:
        torch.autograd.grad(norm(x), [x, *parameters], upstream)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(describe())
    print(f"{'shape':20}{'ours ms':>9}{'naive ms':>9}{'plain ms':>9}{'naive/ours':>11}{'ours/plain':>11}")
    for shape in SHAPES:
        table = len(shape) == 2
        x = torch.randn(shape, device=options.device, requires_grad=True)
        upstream = torch.randn_like(x)
        ours = (BatchRenorm1d if table else BatchRenorm2d)(shape[1], device=options.device, **AT_ONCE)
        plain = (nn.BatchNorm1d if table else nn.BatchNorm2d)(shape[1], device=options.device)
        naive = Naive(shape[1], len(shape), options.device)
        competitors = {"ours": ours, "naive": naive, "plain": plain}
        runs = {name: step(norm, x, upstream) for name, norm in competitors.items()}
        times = race(runs, options.rounds, max(1, 2_000_000 // x.numel()))
        print(
            f"{'x'.join(map(str, shape)):20}{times['ours']:9.2f}{times['naive']:9.2f}{times['plain']:9.2f}"
            f"{times['naive'] / times['ours']:11.2f}{times['ours'] / times['plain']:11.2f}"
        )


if __name__ == "__main__":
    main()
