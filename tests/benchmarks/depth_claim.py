"""The depth claim: final training loss on digits, by depth and start. The networks are those of example 02.

python tests/benchmarks/depth_claim.py [--depths 32] [--seeds 3] [--epochs 60]
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
from pathlib import Path

import torch


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depths", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args(arguments)
    path = Path(__file__).parents[2] / "examples" / "02_self_normalizing_networks.py"
    spec = importlib.util.spec_from_file_location("self_normalizing_networks", path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)

    curves = example.compare(options.depths, options.seeds, options.epochs)
    print(f"\ntorch {torch.__version__}, {platform.machine()}; {options.seeds} seeds, {options.epochs} epochs")
    print(f"{'layers':>6s}  {'network':20s}{'loss':>10s}{'lowest':>10s}{'highest':>10s}{'x SELU':>10s}")
    for depth in options.depths:
        selu = curves["SELU, LeCun", depth][:, -1].mean()
        for name in example.NETWORKS:
            last = curves[name, depth][:, -1]
            numbers = (last.mean(), last.min(), last.max())
            print(f"{depth:6d}  {name:20s}" + "".join(f"{n:10.4g}" for n in numbers) + f"{last.mean() / selu:10.1f}")


if __name__ == "__main__":
    main()
