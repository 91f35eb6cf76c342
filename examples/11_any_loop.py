"""A doctor in any loop: plain PyTorch, Lightning Fabric and the Trainer of transformers.

The same network, whose first units are dead from the start, in three loops that know nothing of Lightning's Trainer.
The doctor says so in each of them; the loop is the one that anybody would write. The last one needs
``pip install 'transformers[torch]'`` and is left out without.

    python examples/11_any_loop.py [--steps 60] [--output outputs]       # about half a minute
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import lightning_tricks as lt


class Points(Dataset[dict[str, Tensor]]):
    """Points of eight dimensions in four classes: the signs of the first two."""

    def __init__(self, count: int = 2048) -> None:
        self.x = torch.randn(count, 8, generator=torch.Generator().manual_seed(0))
        self.labels = (self.x[:, 0] > 0).long() + 2 * (self.x[:, 1] > 0).long()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "labels": self.labels[index]}


class Network(nn.Module):
    """Three layers; with a large negative bias no unit of the first is ever active."""

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
        nn.init.constant_(self.net[0].bias, bias)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.net(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def loader() -> DataLoader[dict[str, Tensor]]:
    return DataLoader(Points(), batch_size=64, shuffle=True)


def moved(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: values.to(device) for name, values in batch.items()}


def plain_loop(bias: float, steps: int, accelerator: str) -> lt.LoopDoctor:
    """PyTorch, with a validation of its own every 20 steps."""
    device = Fabric(accelerator=accelerator, devices=1).device
    model, batches = Network(bias).to(device), iter(loader())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    held_out = {"x": Points(256).x, "labels": Points(256).labels}
    with lt.watch(model, optimizer, every_n_steps=10, report=False) as doctor:
        for step in range(steps):
            batch = next(batches, None)
            if batch is None:
                batches = iter(loader())
                batch = next(batches)
            optimizer.zero_grad()
            model(**moved(batch, device))["loss"].backward()
            optimizer.step()
            if step % 20 == 19:
                model.eval()
                with torch.no_grad():
                    doctor.validated(model(**moved(held_out, device))["loss"])
                model.train()
    return doctor


def fabric_loop(bias: float, steps: int, accelerator: str) -> lt.LoopDoctor:
    """Fabric in bfloat16, each step over two batches."""
    fabric = Fabric(accelerator=accelerator, devices=1, precision="bf16-mixed")
    network = Network(bias)
    model, optimizer = fabric.setup(network, torch.optim.Adam(network.parameters(), lr=1e-2))
    batches = fabric.setup_dataloaders(loader())
    with lt.watch(model, optimizer, every_n_steps=10, report=False) as doctor:
        while doctor.step < steps:
            for number, batch in enumerate(batches):
                last = number % 2 == 1
                with fabric.no_backward_sync(model, enabled=not last):
                    fabric.backward(model(**batch)["loss"] / 2)
                if last:
                    optimizer.step()
                    optimizer.zero_grad()
                if doctor.step >= steps:
                    break
    return doctor


def transformers_loop(bias: float, steps: int, accelerator: str, folder: Path) -> lt.TransformersDoctor:
    """The Trainer of transformers, which takes the doctor as a callback."""
    from transformers import Trainer, TrainingArguments

    doctor = lt.TransformersDoctor(every_n_steps=10, report=False)
    arguments: dict[str, Any] = {"report_to": [], "save_strategy": "no", "disable_tqdm": True}
    arguments["use_cpu"] = accelerator == "cpu"
    training = TrainingArguments(
        str(folder / "trainer"), max_steps=steps, per_device_train_batch_size=64, learning_rate=1e-2, **arguments
    )
    Trainer(model=Network(bias), args=training, train_dataset=Points(), callbacks=[doctor]).train()
    return doctor


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps of each training")
    parser.add_argument("--accelerator", default="auto", help="auto, cpu or gpu")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder for the picture")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    how: tuple[Any, ...] = (options.steps, options.accelerator)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*dead.*")  # the doctors' own, told at once: printed below instead
        found: dict[str, lt.LoopDoctor | lt.TransformersDoctor] = {
            "plain": plain_loop(-100.0, *how),
            "fabric": fabric_loop(-100.0, *how),
        }
        if importlib.util.find_spec("transformers") and importlib.util.find_spec("accelerate"):
            found["transformers"] = transformers_loop(-100.0, *how, options.output)
        else:
            print("transformers is not installed: its Trainer is left out")
    for name, doctor in found.items():
        print(f"{name}: {doctor.diagnosis.verdict}")

    print("\nWith ordinary biases, in plain PyTorch:")
    mended = plain_loop(0.0, *how)
    print(mended.diagnosis)
    lt.report.ladder(mended.history).savefig(options.output / "ladder.png")


if __name__ == "__main__":
    main()
