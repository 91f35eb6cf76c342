"""Ghost batch norm, forward and backward: one kernel call against the loop over chunks, and against nn.BatchNorm.

    python tests/benchmarks/ghost_batch_norm.py [--rounds 25] [--device cpu]

The loop is what TabNet and Composer do: ``torch.cat([norm(part) for part in x.chunk(n)])`` with one shared layer.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from machine import describe
from race import race
from torch import Tensor, nn

from lightning_tricks.nn import GhostBatchNorm1d, GhostBatchNorm2d

# kind, shape, ghost size
CASES = [
    ("table", (1024, 64), 32),
    ("table", (4096, 64), 128),
    ("table", (4096, 256), 64),
    ("table", (16384, 128), 256),
    ("table, remainder", (4100, 64), 128),
    ("image", (64, 32, 32, 32), 16),
    ("image", (256, 64, 16, 16), 32),
    ("image", (128, 256, 8, 8), 16),
    ("image, remainder", (250, 64, 16, 16), 32),
    ("image, channels last", (256, 64, 16, 16), 32),
    ("image, channels last", (64, 32, 16, 16), 16),
    ("image, channels last", (64, 32, 8, 8), 32),
    ("image, channels last", (32, 16, 8, 8), 8),
]


def step(apply: Callable[[Tensor], Tensor], x: Tensor, upstream: Tensor, norm: nn.Module) -> Callable[[], None]:
    parameters = list(norm.parameters())

    def run() -> None:
        torch.autograd.grad(apply(x), [x, *parameters], upstream)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(describe())
    print(
        f"{'':22}{'shape':20}{'ghost':>6}{'ours ms':>9}{'loop ms':>9}{'plain ms':>9}{'loop/ours':>11}{'ours/plain':>11}"
    )
    for kind, shape, size in CASES:
        table = len(shape) == 2
        x = torch.randn(shape, device=options.device)
        if "last" in kind:
            x = x.contiguous(memory_format=torch.channels_last)
        x.requires_grad_()
        upstream = torch.randn_like(x)
        ghost = (GhostBatchNorm1d if table else GhostBatchNorm2d)(shape[1], ghost_size=size, device=options.device)
        shared = (nn.BatchNorm1d if table else nn.BatchNorm2d)(shape[1], device=options.device)
        plain = (nn.BatchNorm1d if table else nn.BatchNorm2d)(shape[1], device=options.device)
        chunks = -(-shape[0] // size)

        def loop(x: Tensor, norm: nn.Module = shared, chunks: int = chunks) -> Tensor:
            return torch.cat([norm(part) for part in x.chunk(chunks)])

        repeats = max(1, 2_000_000 // x.numel())
        times = race(
            {
                "ours": step(ghost, x, upstream, ghost),
                "loop": step(loop, x, upstream, shared),
                "plain": step(plain, x, upstream, plain),
            },
            options.rounds,
            repeats,
        )
        print(
            f"{kind:22}{'x'.join(map(str, shape)):20}{size:6}{times['ours']:9.2f}{times['loop']:9.2f}"
            f"{times['plain']:9.2f}{times['loop'] / times['ours']:11.2f}{times['ours'] / times['plain']:11.2f}"
        )


if __name__ == "__main__":
    main()
