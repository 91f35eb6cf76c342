"""A long training with all callbacks: is its memory flat, and what a step costs, and is the history bounded?

    python tests/benchmarks/soak.py [--steps 20000]

A small network is trained with the three monitors, whose rules judge at every look, with batch augmentation and
precise batch norm. At ten times that are evenly apart are printed: the processor time of a step since the time before,
the memory of the process, and how many snapshots are kept.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from machine import describe
from torch import nn

import lightning_tricks as lt


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
    """Prints what a step costs and what is kept."""

    def __init__(self, every: int, doctor: lt.TrainingDoctor | None) -> None:
        self.every, self.doctor, self.begun = every, doctor, time.process_time()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step % self.every == 0:
            cost = (time.process_time() - self.begun) / self.every * 1e3
            gc.collect()
            kept = 0 if self.doctor is None else len(self.doctor.history)
            memory = f"{resident():7.1f} MB   {kept:4} snapshots"
            print(f"step {trainer.global_step:6}   {cost:6.3f} ms a step   {memory}", flush=True)
            self.begun = time.process_time()


def resident() -> float:
    """Memory of this process in MB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def soak(steps: int, watched: bool) -> None:
    torch.manual_seed(0)
    doctor = lt.TrainingDoctor(on_problem="log", report=False) if watched else None
    callbacks: list[Any] = [Meter(steps // 10, doctor)]
    if doctor is not None:
        augmentation = lt.BatchAugmentation(lt.nn.AdditiveNoise(0.1))
        callbacks += [lt.ActivationMonitor(), lt.GradientFlowMonitor(), doctor, augmentation, lt.PreciseBatchNorm()]
        for monitor in callbacks[1:3]:
            monitor.files = False
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "logger"), False)
    trainer = L.Trainer(accelerator="cpu", devices=1, max_steps=steps, callbacks=callbacks, **quiet)
    trainer.fit(Network(), Batches(1000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    print(describe())
    with tempfile.TemporaryDirectory():
        for watched in (False, True):
            print("\nwith all callbacks" if watched else "\nplain")
            soak(steps, watched)


if __name__ == "__main__":
    main()
