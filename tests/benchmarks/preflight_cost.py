"""What the preflight costs once: the first probed step's call run again, in plain training steps.

    python tests/benchmarks/preflight_cost.py [--rounds 15]

The same networks as in monitor_overhead.py, in a loop by hand: of each round a plain step and, after a step that was
probed, the preflight alone; medians over the rounds, in one run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from machine import describe
from monitor_overhead import mlp, resnet18, transformer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_tricks.probes import Probe
from lightning_tricks.watch.first_step import FirstStep


def measured(make: Callable[[], tuple[nn.Module, Tensor]], rounds: int) -> tuple[float, float]:
    """Seconds of a plain step and of the preflight."""
    torch.manual_seed(0)
    network, x = make()
    y = torch.randint(10, (len(x),))
    loader = DataLoader(TensorDataset(x, y), len(x))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()

    plain, asked = list[float](), list[float]()
    for _ in range(rounds):
        begun = time.perf_counter()
        step()
        plain.append(time.perf_counter() - begun)
        first, probe = FirstStep(wanted=True), Probe(network, optimizer)
        first.begin(probe, (x, y), loader, 1)
        with probe:
            step()
        begun = time.perf_counter()
        first.run(probe)
        asked.append(time.perf_counter() - begun)
        assert first.enter(probe.snapshot()).preflight is not None
    return statistics.median(plain), statistics.median(asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(describe())
    for make in (mlp, resnet18, transformer):
        plain, asked = measured(make, rounds)
        shown = f"plain step {1e3 * plain:8.2f} ms, preflight {1e3 * asked:8.2f} ms, {asked / plain:.2f} steps"
        print(f"{make.__name__:12}{shown}", flush=True)


if __name__ == "__main__":
    main()
