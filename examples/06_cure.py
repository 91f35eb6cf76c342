"""Detect, try, treat, train: a network that does not learn is cured by what is proven on copies of it.

Six layers of logistic units on raw pixels, a learning rate that somebody found on a page: the loss stays at that of a
guess. The TrainingDoctor says what it sees. ``lt.treat`` then tries one change after the other on copies of this
training, each for a few steps against the unchanged one, makes the least change that is proven to help in the network
itself, looks for another on top of it, and says which settings outside of the network to change. The same network is
trained again; ``undo()`` takes everything back.

    python examples/06_cure.py                     # scikit-learn's digits, under a minute
    python examples/06_cure.py --depth 12 --seconds 120
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightning.pytorch as L
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt


class Network(L.LightningModule):
    """A classifier as anybody would write it."""

    def __init__(self, depth: int, width: int, learning_rate: float) -> None:
        super().__init__()
        hidden: list[nn.Module] = []
        for index in range(depth):
            hidden += [nn.Linear(64 if index == 0 else width, width), nn.Sigmoid()]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, 10))
        self.learning_rate = learning_rate
        self.accuracies: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self.layers(x), y)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("accuracy", (self.layers(x).argmax(1) == y).float().mean())

    def on_validation_epoch_end(self) -> None:
        self.accuracies.append(float(self.trainer.callback_metrics["accuracy"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


def loaders() -> tuple[DataLoader[tuple[Tensor, ...]], DataLoader[tuple[Tensor, ...]]]:
    """Raw pixels from 0 to 16."""
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32), torch.tensor(digits.target)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    train, valid = order[:1437], order[1437:]
    return (
        DataLoader(TensorDataset(x[train], y[train]), batch_size=32, shuffle=True),
        DataLoader(TensorDataset(x[valid], y[valid]), batch_size=360),
    )


def train(network: Network, epochs: int, accelerator: str, *callbacks: L.Callback) -> list[float]:
    """The accuracy on the validation data after every epoch."""
    network.accuracies = []
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator=accelerator,
        devices=1,
        logger=False,
        callbacks=list(callbacks),
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(network, *loaders())
    return network.accuracies


def picture(sick: list[float], cured: list[float], treatment: lt.Treatment) -> plt.Figure:
    """Accuracy before and after; what every change alone would bring."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", width_ratios=(1, 1.25))
    for values, name, colour in ((sick, "as it was", "#b2182b"), (cured, "after the treatment", "#2166ac")):
        left.plot(range(1, len(values) + 1), values, marker="o", markersize=3, label=name, color=colour)
    left.axhline(0.1, color="grey", linewidth=0.8, linestyle=":")
    left.text(len(sick), 0.12, "a guess", ha="right", color="grey", fontsize=9)
    left.set(xlabel="epoch", ylabel="validation accuracy", ylim=(0, 1.02), title="One network, trained twice")
    left.legend(loc="center right", frameon=False)

    best = {}
    for trial in treatment.trials:
        first = trial.conclusive and trial.numbers["round"] == 1
        if first and trial.numbers["gain"] >= best.get(trial.name, trial).numbers["gain"]:
            best[trial.name] = trial
    trials = sorted(best.values(), key=lambda trial: trial.numbers["gain"])[-10:]
    names = [trial.name.replace("_", " ") for trial in trials]
    colours = ["#2166ac" if trial.numbers["proven"] else "#bbbbbb" for trial in trials]
    right.barh(names, [trial.numbers["share"] for trial in trials], color=colours)
    right.scatter([trial.numbers["unchanged"] for trial in trials], names, marker="|", s=160, color="#b2182b", zorder=3)
    right.set(xlim=(0, 1), xlabel="share of the way from the loss of a guess to the lowest one")
    right.set_title("Changed one thing (blue: proven; red: unchanged)")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--depth", type=int, default=6, help="hidden layers")
    parser.add_argument("--width", type=int, default=64, help="units per hidden layer")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--seconds", type=float, default=60, help="for the treatment at most")
    parser.add_argument("--accelerator", default="auto", help="auto, cpu or gpu")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder for the picture")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)

    L.seed_everything(0, verbose=False)
    network = Network(options.depth, options.width, options.learning_rate)
    doctor = lt.TrainingDoctor(on_problem="log", report=False)
    sick = train(network, options.epochs, options.accelerator, doctor)
    print(f"detect: {doctor.diagnosis.verdict}")

    treatment = lt.treat(network, doctor.diagnosis, loaders()[0], max_seconds=options.seconds)
    print(f"try and treat: {treatment}")

    network.learning_rate = treatment.advice.get("lr", network.learning_rate)
    L.seed_everything(0, verbose=False)
    cured = train(network, options.epochs, options.accelerator)
    print(f"train: accuracy {sick[-1]:.3f} before, {cured[-1]:.3f} after the treatment")

    path = options.output / "cure.png"
    picture(sick, cured, treatment).savefig(path, dpi=110)
    print(f"Picture: {path}")


if __name__ == "__main__":
    main()
