"""A long training with all callbacks: is its memory flat, and what a step costs, and is the history bounded?

    python tests/benchmarks/soak.py [--steps 20000] [--looks 50] [--trace]

A small network is trained with the three monitors, whose rules judge at every look, with batch augmentation and
precise batch norm. At ten times that are evenly apart are printed: the processor time of a step since the time before,
the memory of the process before and after malloc_trim has given back what is free, the blocks that Python has
allocated, and how many snapshots are kept. At the end: which objects became more since the history was full (half of
the steps where it never is), by type, and with --trace, which takes time and memory itself, which lines allocated them.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import os
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from machine import describe
from torch import nn

import lightning_tricks as lt
from lightning_tricks.watch.selection import MOST


class Network(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        first = nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU()
        self.net = nn.Sequential(*first, nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 4))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-3)


class Batches:
    def __init__(self, count: int) -> None:
        self.count, self.generator = count, torch.Generator().manual_seed(0)
        self.labels = torch.randn(20, 4, generator=self.generator)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.count):
            x = torch.randn(32, 20, generator=self.generator)
            yield x, (x @ self.labels).argmax(1)


class Meter(L.Callback):
    """Prints what a step costs and what is kept; in the end, of what there is more."""

    def __init__(self, steps: int, doctor: lt.TrainingDoctor | None) -> None:
        self.every, self.half, self.doctor, self.begun = steps // 10, steps // 2, doctor, time.process_time()
        self.then: Kept | None = None

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step % self.every:
            return
        step, cost = trainer.global_step, (time.process_time() - self.begun) / self.every * 1e3
        gc.collect()
        before, history = resident(), [] if self.doctor is None else self.doctor.history
        trim()
        memory = f"{before:7.1f} MB   trimmed {resident():7.1f} MB   {sys.getallocatedblocks():8} blocks"
        print(f"step {step:6}   {cost:6.3f} ms a step   {memory}   {len(history):4} snapshots", flush=True)
        if self.then is None and (len(history) >= MOST or step >= self.half):
            self.then = Kept(step)
        self.begun = time.process_time()

    def on_train_end(self, trainer: Any, module: Any) -> None:
        if self.then is not None:
            Kept(trainer.global_step).print_growth(self.then)


class Kept:
    """How many objects of each type there are, and which lines have allocated how much, where that is traced."""

    def __init__(self, step: int) -> None:
        gc.collect()
        self.step = step
        self.types = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())
        self.traced = tracemalloc.take_snapshot() if tracemalloc.is_tracing() else None

    def print_growth(self, then: Kept) -> None:
        more = {name: self.types[name] - then.types[name] for name in self.types}
        most = sorted(more, key=lambda name: -more[name])[:8]
        print(f"from step {then.step} to {self.step}, objects that the collector knows: {sum(more.values()):+}")
        print("  " + ", ".join(f"{name} {more[name]:+}" for name in most if more[name] > 0))
        if self.traced is not None and then.traced is not None:
            lines = self.traced.compare_to(then.traced, "lineno")
            print(f"  traced: {sum(line.size_diff for line in lines) / 1024:+.1f} kB, the most of it in")
            for line in sorted(lines, key=lambda line: -line.size_diff)[:8]:
                frame = line.traceback[0]
                place = "/".join(Path(frame.filename).parts[-3:])
                print(f"  {line.size_diff / 1024:+9.1f} kB {line.count_diff:+7} blocks  {place}:{frame.lineno}")


def resident() -> float:
    """Memory of this process in MB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def trim() -> None:
    """Give back to the system what the C library holds free; elsewhere than with glibc nothing."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def soak(steps: int, looks: int, watched: bool) -> None:
    torch.manual_seed(0)
    doctor = lt.TrainingDoctor(on_problem="log", report=False, every_n_steps=looks) if watched else None
    callbacks: list[Any] = [Meter(steps, doctor)]
    if doctor is not None:
        monitors = [lt.ActivationMonitor(every_n_steps=looks), lt.GradientFlowMonitor(every_n_steps=looks)]
        for monitor in monitors:
            monitor.files = False
        augmentation = lt.BatchAugmentation(lt.nn.AdditiveNoise(0.1))
        callbacks += [*monitors, doctor, augmentation, lt.PreciseBatchNorm()]
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "logger"), False)
    trainer = L.Trainer(accelerator="cpu", devices=1, max_steps=steps, max_epochs=-1, callbacks=callbacks, **quiet)
    trainer.fit(Network(), Batches(1000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--looks", type=int, default=50, help="a look every so many steps")
    parser.add_argument("--trace", action="store_true", help="Python's allocations by line")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(describe())
    if options.trace:
        tracemalloc.start()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for watched in (False, True):
            print("\nwith all callbacks" if watched else "\nplain")
            soak(options.steps, options.looks, watched)


if __name__ == "__main__":
    main()
