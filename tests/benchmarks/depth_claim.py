"""The depth claim: final training loss on digits, by depth and start. The networks are those of example 02.

python tests/benchmarks/depth_claim.py [--depths 32] [--seeds 3] [--epochs 60]
python tests/benchmarks/depth_claim.py --dropout       accuracy of 32 SELU layers with 5 % dropout after each
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from lightning_tricks.nn import AlphaDropout, SelfNormalizingMLP


def compare_dropout(example: ModuleType, epochs: int, depth: int = 32) -> None:
    """What 5 % of dropout after every layer leaves of a deep stack: accuracy on the training data, in eval."""
    x, y = example.digits()
    for name, layer in (("none", nn.Identity), ("Dropout", nn.Dropout), ("AlphaDropout", AlphaDropout)):
        torch.manual_seed(0)
        net = SelfNormalizingMLP(example.WIDTH, [example.WIDTH] * depth, 10)
        for block in net.hidden:
            block.dropout = layer(0.05)
        example.train(net, x, y, epochs=epochs, seed=0)
        with torch.no_grad():
            accuracy = float((net.eval()(x).argmax(1) == y).double().mean())
        print(f"{depth} SELU layers, 5 % {name:14s} accuracy {accuracy:.3f}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depths", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--dropout", action="store_true", help="compare kinds of dropout instead")
    options = parser.parse_args(arguments)
    path = Path(__file__).parents[2] / "examples" / "02_self_normalizing_networks.py"
    spec = importlib.util.spec_from_file_location("self_normalizing_networks", path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)

    if options.dropout:
        compare_dropout(example, options.epochs)
        return
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
