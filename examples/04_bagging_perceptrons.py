"""Bagging in one picture: many perceptrons, each with a straight border, make a curved one together.

Two classes that no straight line divides, with noise. Every perceptron is trained on its own bootstrap set and draws
one line; the mean of their outputs has a curved border and says where it is unsure.

    python examples/04_bagging_perceptrons.py [--members 400] [--output outputs]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.colors import LinearSegmentedColormap
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lightning_tricks.ensemble import BaggingEnsemble, BootstrapDataModule

QUIET = {"enable_progress_bar": False, "enable_model_summary": False}
ONE, TWO = "#d55e00", "#0072b2"  # told apart with every kind of colour blindness, and by their shapes
CLASSES = ((ONE, "o", "outer arc"), (TWO, "^", "inner arc"))


class Perceptron(L.LightningModule):
    """One unit with a logistic output, trained on few patterns: its line depends much on which ones."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.unit(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.binary_cross_entropy_with_logits(self(x).squeeze(-1), y.float())
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


def noisy_arc(size: int, generator: torch.Generator) -> TensorDataset:
    """One class inside an arc, the other around it."""
    angle = (0.1 + 0.8 * torch.rand(size, generator=generator)) * torch.pi
    label = torch.arange(size) % 2
    radius = torch.where(label == 1, 0.5, 1.3) + 0.2 * torch.randn(size, generator=generator)
    return TensorDataset(torch.stack([radius * angle.cos(), radius * angle.sin()], 1), label)


def grid(points: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    low, high = points.min(0).values - 0.3, points.max(0).values + 0.3
    across = torch.linspace(float(low[0]), float(high[0]), steps)
    up = torch.linspace(float(low[1]), float(high[1]), steps)
    first, second = torch.meshgrid(across, up, indexing="xy")
    return first, second, torch.stack([first.flatten(), second.flatten()], 1)


def scatter(ax: Any, dataset: TensorDataset) -> None:
    x, y = dataset.tensors
    for label, (color, marker, name) in enumerate(CLASSES):
        ax.scatter(*x[y == label].T, s=14, color=color, marker=marker, edgecolor="white", lw=0.4, zorder=3, label=name)


def draw(ensemble: BaggingEnsemble, dataset: TensorDataset, steps: int) -> Any:
    first, second, points = grid(dataset.tensors[0], steps)
    found = ensemble.predict(points.to(ensemble.device)).to("cpu")
    single = found.members[..., 1].view(-1, *first.shape)
    mean, spread = found.mean[:, 1].view(first.shape), found.variance[:, 1].sqrt().view(first.shape)
    figure, axes = plt.subplots(1, 3, figsize=(14.5, 3.9), layout="constrained", sharex=True, sharey=True)
    for border in single[:100]:
        axes[0].contour(first, second, border, levels=[0.5], colors="0.25", linewidths=0.6, alpha=0.4)
    axes[0].set_title(f"{min(100, len(single))} of {len(single)} perceptrons: a straight border each")
    between = LinearSegmentedColormap.from_list("between", [ONE, "white", TWO])
    colours = axes[1].contourf(first, second, mean, levels=torch.linspace(0, 1, 21), cmap=between, alpha=0.75)
    figure.colorbar(
        colours, ax=axes[1], shrink=0.7, label="mean output: inner arc", ticks=[0, 0.25, 0.5, 0.75, 1], format="{x:.0%}"
    )
    axes[1].contour(first, second, mean, levels=[0.5], colors="black", linewidths=2.2)
    axes[1].set_title("their mean: a curved border")
    shades = axes[2].contourf(first, second, spread, levels=20, cmap="Greys", alpha=0.9)
    axes[2].contour(first, second, mean, levels=[0.5], colors="black", linewidths=2.2)
    axes[2].set_title("how much they disagree")
    figure.colorbar(
        shades, ax=axes[2], shrink=0.7, label="standard deviation of the output", ticks=[0, 0.1, 0.2, 0.3, 0.4]
    )
    for ax in axes:
        scatter(ax, dataset)
        ax.set(xlabel="first feature", aspect="equal")
        ax.plot([], [], color="black", linewidth=2.2, label="border of the mean")
    axes[0].set_ylabel("second feature")
    axes[1].legend(loc="upper right", fontsize=8, framealpha=0.9)
    figure.suptitle(f"Bagging: {len(single)} straight borders make a curved one", x=0.01, ha="left", fontweight="bold")
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=400)
    parser.add_argument("--patterns", type=int, default=300)
    parser.add_argument("--draws", type=int, default=6, help="patterns in each perceptron's bootstrap set")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--steps", type=int, default=250, help="points of the picture along each side")
    parser.add_argument("--accelerator", default="auto", help="auto, cpu or gpu")
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    options = parser.parse_args(arguments)

    generator = torch.Generator().manual_seed(0)
    train, test = noisy_arc(options.patterns, generator), noisy_arc(2000, generator)
    ensemble = BaggingEnsemble(Perceptron, options.members, task="classification")
    data = BootstrapDataModule(train, options.members, batch_size=32, max_samples=options.draws)
    where = {"accelerator": options.accelerator, "devices": 1}
    trainer = L.Trainer(max_epochs=options.epochs, logger=False, enable_checkpointing=False, **where, **QUIET)
    trainer.fit(ensemble, data)

    x, y = test.tensors
    found = ensemble.predict(x.to(ensemble.device)).to("cpu")
    alone = (found.members.argmax(-1) == y).double().mean(1)
    together = float((found.mean.argmax(-1) == y).double().mean())
    print(
        f"one perceptron, mean of {options.members}: {float(alone.mean()):.3f} right, the best {float(alone.max()):.3f}"
    )
    print(f"all together: {together:.3f} right; out of bag {ensemble.out_of_bag.score:.3f}")

    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "bagging_perceptrons.png"
    draw(ensemble, train, options.steps).savefig(path, dpi=110)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
