"""What a diagnosis costs, in training steps: of a whole history, and of one more look for a doctor that judges each.

    python tests/benchmarks/diagnosis_cost.py [--rounds 5]

Networks of 100 layers are trained for 256 probed steps; of densenet121, whose batch norms and branches make many
records, eight steps are probed and repeated. Steps and diagnoses take turns, round by round, and are timed by the
processor time of this process, so that neighbours on the machine count little; given are medians. From scratch means
that nothing of the snapshots was worked out before; one more look is the k-th of a history whose others were judged.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchvision
from machine import describe
from torch import nn

import lightning_tricks as lt
from lightning_tricks.probes import Snapshot
from lightning_tricks.watch import selection

LOOKS = (16, 64, 256)
Step = Callable[[], None]


def mlp(activation: Callable[[], nn.Module], *, healthy: bool = False) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(99):
        layers += [nn.Linear(64, 64), activation()]
    network = nn.Sequential(*layers, nn.Linear(64, 10))
    for layer in network if healthy else ():
        if isinstance(layer, nn.Linear):
            lt.init.lecun_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return network


def training(network: nn.Module, *shape: int) -> tuple[Step, torch.optim.Optimizer]:
    x, y = torch.randn(*shape), torch.randint(10, shape[:1])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()

    return step, optimizer


def looks(network: nn.Module, step: Step, optimizer: torch.optim.Optimizer, probed: int) -> list[Snapshot]:
    """So many looks as a doctor keeps them; the probed ones are repeated where they are fewer."""
    seen: list[Snapshot] = []
    for _ in range(probed):
        with lt.probe(network, optimizer) as probe:
            step()
        seen.append(probe.snapshot())
    kept: list[Snapshot] = []
    for index in range(max(LOOKS)):
        selection.append(kept, dataclasses.replace(seen[index % probed], step=index))
    return kept


def seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def unseen(history: list[Snapshot]) -> list[Snapshot]:
    return [dataclasses.replace(snapshot) for snapshot in history]


def one_more(history: list[Snapshot]) -> float:
    """Seconds of the last look of a history whose others were judged."""
    *before, last = unseen(history)
    lt.diagnose(before[:-1])
    lt.diagnose(before)
    selection.append(before, last)
    return seconds(lambda: lt.diagnose(before))


def row(name: str, network: nn.Module, shape: tuple[int, ...], probed: int, rounds: int) -> None:
    step, optimizer = training(network, *shape)
    history = looks(network, step, optimizer, probed)
    steps, whole, more = [], [], {count: [] for count in LOOKS}  # type: ignore[var-annotated]
    for _ in range(rounds):
        steps += [seconds(step) for _ in range(3)]
        fresh = unseen(history)
        whole.append(seconds(lambda fresh=fresh: lt.diagnose(fresh)))  # type: ignore[misc]
        for count, times in more.items():
            times.append(one_more(history[:count]))
    unit = statistics.median(steps)
    found = lt.diagnose(history).findings
    numbers = [statistics.median(times) / unit for times in (whole, *more.values())]
    first = found[0].problem if found else "nothing"
    print(
        f"{name:22}{first:22}{unit * 1e3:8.1f}{numbers[0]:10.2f}" + "".join(f"{n:8.3f}" for n in numbers[1:]),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(describe())
    print(f"{'network':22}{'found first':22}{'step ms':>8}{'scratch':>10}" + "".join(f"{k:>8}" for k in LOOKS))
    row("100 layers, tanh", mlp(nn.Tanh), (64, 64), max(LOOKS), options.rounds)
    row("100 layers, ReLU", mlp(nn.ReLU), (64, 64), max(LOOKS), options.rounds)
    row("100 layers, SELU", mlp(nn.SELU, healthy=True), (64, 64), max(LOOKS), options.rounds)
    row("densenet121, 32 x 32", torchvision.models.densenet121(num_classes=10), (16, 3, 32, 32), 8, options.rounds)


if __name__ == "__main__":
    main()
