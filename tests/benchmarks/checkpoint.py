"""What a checkpoint holds of a history: bytes against the numbers recorded, seconds against those of one training step.

    python tests/benchmarks/checkpoint.py [--looks 256]

densenet121 on 8 images of 32 x 32, looked at in every step; the history of three monitors, packed look by look as in a
training that writes checkpoints, saved after every 32 looks, as after an epoch of 1600 steps, and all of it at once, as
if it had never been packed before.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import pickle
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from machine import describe
from torch.nn.functional import cross_entropy

from lightning_tricks.probes import Snapshot, probe
from lightning_tricks.probes.packed import pack, prepare
from lightning_tricks.probes.snapshot import KINDS


def seconds(act: Callable[[], Any]) -> float:
    start = time.process_time()
    act()
    return time.process_time() - start


def save(history: list[Snapshot]) -> int:
    """Bytes of what is saved of a history that three monitors have."""
    file = io.BytesIO()
    torch.save(pack([history, history, history]), file)
    return file.tell()


def numbers_in(value: Any) -> int:
    if isinstance(value, (list, tuple)):
        return sum(map(numbers_in, value))
    return int(isinstance(value, (int, float)) and not isinstance(value, bool))


def values_of(snapshot: Snapshot) -> int:
    """The numbers in its records."""
    records = [record for kind in KINDS for record in getattr(snapshot, kind)]
    return sum(numbers_in([getattr(record, f.name) for f in dataclasses.fields(record)]) for record in records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--looks", type=int, default=256)
    options = parser.parse_args()
    print(describe())
    torch.manual_seed(0)
    network = torchvision.models.densenet121(num_classes=10)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)

    def step() -> None:
        x, y = torch.randn(8, 3, 32, 32), torch.randint(10, (8,))
        optimizer.zero_grad()
        cross_entropy(network(x), y).backward()
        optimizer.step()

    steps = [seconds(step) for _ in range(5)]
    history: list[Snapshot] = []
    saves, packs = [], []
    for index in range(options.looks):
        with probe(network, optimizer) as looking:
            step()
        history.append(dataclasses.replace(looking.snapshot(), step=index).light())
        packs.append(seconds(lambda: prepare([[*history[:1], *history[-2:]]] * 3)))
        if index % 32 == 31:
            saves.append(seconds(lambda: save(history)))
    size, values = save(history), sum(map(values_of, history))
    again, fresh = seconds(lambda: save(history)), pickle.loads(pickle.dumps(history))
    print(f"{size / 1e6:.2f} MB for {values} numbers: {size / 4 / values:.2f} x 4 bytes")
    print(f"one step {1e3 * statistics.median(steps):.0f} ms; medians of processor time:")
    print(f"  packing a look when it comes {1e3 * statistics.median(packs):.1f} ms")
    print(
        f"  saving with 32 new looks {1e3 * statistics.median(saves):.0f} ms, with none {1e3 * again:.0f} ms, ", end=""
    )
    print(f"all at once, never packed before, {1e3 * seconds(lambda: save(fresh)):.0f} ms")


if __name__ == "__main__":
    main()
