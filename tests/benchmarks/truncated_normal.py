"""Truncated normal draws against torch's, and against an uncut normal, at 4 million weights.

python tests/benchmarks/truncated_normal.py
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from lightning_tricks.init import variance_scaling_

STD = 0.02


def main(rows: int = 2048, repeats: int = 15) -> None:
    weight = torch.empty(rows, 2048)
    cut = 2 * STD / 0.87962566
    contenders: dict[str, Callable[[], object]] = {
        "ours": lambda: variance_scaling_(weight, fan=1 / STD**2),
        "nn.init.trunc_normal_": lambda: nn.init.trunc_normal_(weight, 0.0, cut / 2, -cut, cut),
        "Tensor.normal_ (no cut)": lambda: weight.normal_(0.0, STD),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 2):
        for name, draw in contenders.items():
            start = time.perf_counter()
            draw()
            if repeat >= 2:
                times[name].append(time.perf_counter() - start)
    print(
        f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads, {weight.numel()} weights"
    )
    for name, values in times.items():
        print(f"{name:26s}{1e3 * median(values):9.2f} ms   {median(values) / median(times['ours']):6.2f} x ours")


if __name__ == "__main__":
    main()
