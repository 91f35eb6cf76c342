"""Regularisation on few and noisy patterns: early stopping, weight decay, augmentation, dropout, bagging side by side.

A network of two hidden layers learns scikit-learn's digits from 150 of them, a fifth with a label drawn by lot. One
figure with error bars over seeds:

    left     accuracy on 1497 other digits
    middle   forced feature sharing: accuracy when hidden units are deleted, trained with dropout and without
    right    dropout at inference: one forward with scaled weights, the mean of 50 thinned networks, and bagging

    python examples/07_regularization.py            (two to three minutes on two CPU cores)
    python examples/07_regularization.py --fast     (some seconds)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt

SHARES = (0.0, 0.25, 0.5, 0.75, 0.9)
Split = tuple[TensorDataset, TensorDataset, TensorDataset]


def digits(seed: int) -> Split:
    """150 digits to learn from, 150 to stop by, both with noisy labels; the others to test."""
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1)
    y = torch.tensor(data.target)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator)
    x, y = x[order], y[order]
    wrong, label = torch.rand(300, generator=generator) < 0.2, torch.randint(10, (300,), generator=generator)
    noisy = torch.where(wrong, label, y[:300])
    parts = (x[:150], noisy[:150]), (x[150:300], noisy[150:]), (x[300:], y[300:])
    train, valid, test = (TensorDataset(*part) for part in parts)
    return train, valid, test


def network(width: int = 128) -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


def augmentation() -> lt.BatchAugmentation:
    return lt.BatchAugmentation(
        [
            lt.nn.RandomAffine(degrees=10, translate=0.06, scale=(0.9, 1.1), shear=5),
            lt.nn.ElasticDeformation(alpha=3.0, sigma=2.0),
            lt.nn.AdditiveNoise(1.0),
        ]
    )


@dataclass
class Setting:
    """What differs from the plain training."""

    net: Callable[[], nn.Sequential] = network
    weight_decay: float = 0.0
    augment: bool = False
    stop: bool = False
    bag: bool = False


def dropout_network() -> nn.Sequential:
    """Twice the units, each dropped half of the time."""
    return lt.surgery.widen_for_dropout(network(), 0.5)


SETTINGS = {
    "plain": Setting(),
    "early stopping": Setting(stop=True),
    "weight decay": Setting(weight_decay=3.0),
    "augmentation": Setting(augment=True),
    "dropout": Setting(dropout_network),
    "bagging": Setting(bag=True),
    "augmentation, dropout": Setting(dropout_network, augment=True),
    "all": Setting(dropout_network, 0.1, augment=True, bag=True),
}


def trainer(options: argparse.Namespace, callbacks: list[L.Callback]) -> L.Trainer:
    checkpoints = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    return L.Trainer(
        max_epochs=options.epochs,
        accelerator=options.accelerator,
        devices=1,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=checkpoints,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def train(setting: Setting, data: Split, seed: int, options: argparse.Namespace) -> Any:
    """A trained Classifier, or an ensemble of them."""
    L.seed_everything(seed, verbose=False)

    def classifier() -> lt.Classifier:
        return lt.Classifier(
            setting.net(), 10, optimizer="AdamW", optimizer_options={"weight_decay": setting.weight_decay}
        )

    callbacks: list[L.Callback] = [augmentation()] if setting.augment else []
    if setting.bag:
        ensemble = lt.BaggingEnsemble(classifier, options.members, task="classification", seed=seed)
        trainer(options, callbacks).fit(ensemble, lt.BootstrapDataModule(data[0], options.members, batch_size=32))
        return ensemble
    model = classifier()
    best = ModelCheckpoint(options.output / "checkpoints", monitor="val_loss", enable_version_counter=False)
    if setting.stop:
        callbacks += [EarlyStopping("val_loss", patience=10), best]
    loaders = DataLoader(data[0], 32, shuffle=True), DataLoader(data[1], 256)
    trainer(options, callbacks).fit(model, *(loaders if setting.stop else loaders[:1]))
    if setting.stop:
        model.load_state_dict(torch.load(best.best_model_path)["state_dict"])
    return model


def probabilities(model: Any, x: Tensor) -> Tensor:
    found = model.predict(x.to(model.device))
    return (found.mean if isinstance(model, lt.BaggingEnsemble) else found).cpu()


def accuracy(found: Tensor, y: Tensor) -> float:
    return float((found.argmax(1) == y).double().mean())


def likelihood(found: Tensor, y: Tensor) -> float:
    """Mean negative log-likelihood, in nats."""
    return float(F.nll_loss(found.clamp_min(1e-12).log(), y))


def without_units(model: lt.Classifier, share: float, x: Tensor, y: Tensor, seed: int) -> float:
    """Accuracy with a share of the hidden units deleted; the others are louder by what is missing."""
    generator, masks = torch.Generator().manual_seed(seed), {}

    def delete(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if module not in masks:
            kept = torch.randperm(output.shape[1], generator=generator) >= round(share * output.shape[1])
            masks[module] = kept.to(output) / (1 - share)
        return output * masks[module]

    hooks = [m.register_forward_hook(delete) for m in model.network.modules() if isinstance(m, nn.ReLU)]
    found = accuracy(probabilities(model, x), y)
    for hook in hooks:
        hook.remove()
    return found


def one_seed(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    data = digits(seed)
    x, y = data[2].tensors
    models = {name: train(setting, data, seed, options) for name, setting in SETTINGS.items()}
    wide = train(Setting(lambda: network(256)), data, seed, options)
    found: dict[str, Any] = {
        "accuracy": {name: accuracy(probabilities(model, x), y) for name, model in models.items()},
        "deleted": {
            name: [np.mean([without_units(model, s, x, y, draw) for draw in range(5)]) for s in SHARES]
            for name, model in (("with dropout", models["dropout"]), ("without dropout", wide))
        },
    }
    thinned = lt.MonteCarloDropout(models["dropout"], num_samples=50)
    x_there = x.to(models["dropout"].device)
    answers = {
        "without dropout": probabilities(wide, x),
        "weight scaling": thinned.weight_scaling(x_there).mean.cpu(),
        "Monte Carlo": thinned.predict(x_there).mean.cpu(),
        "bagging": probabilities(models["bagging"], x),
    }
    found["inference"] = {name: (accuracy(p, y), likelihood(p, y)) for name, p in answers.items()}
    return found


def draw(runs: list[dict[str, Any]], options: argparse.Namespace) -> Any:
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.3), layout="constrained")
    names = list(SETTINGS)
    values = np.array([[run["accuracy"][name] for name in names] for run in runs])
    colours = ["#9ca3af", *["#0f766e"] * (len(names) - 2), "#c2410c"]
    spread = values.std(0, ddof=1) if len(runs) > 1 else np.zeros(len(names))
    left.barh(names, values.mean(0), xerr=spread, color=colours, error_kw={"lw": 1.2, "capsize": 3})
    for row, value in enumerate(values.mean(0)):
        left.text(0.505, row, f"{100 * value:.1f}", va="center", color="white", fontsize=9)
    left.invert_yaxis()
    left.set(xlim=(0.5, 1.0), xlabel="accuracy on new digits")
    left.set_title("learned from 150 digits, a fifth of the labels by lot", fontsize=10)
    for name, colour in (("with dropout", "#0f766e"), ("without dropout", "#9ca3af")):
        curves = np.array([run["deleted"][name] for run in runs])
        error = curves.std(0, ddof=1) if len(runs) > 1 else np.zeros(len(SHARES))
        middle.errorbar(
            SHARES, curves.mean(0), error, color=colour, lw=2, capsize=3, marker="o", label=f"trained {name}"
        )
    middle.set(xlabel="share of hidden units deleted", ylabel="accuracy")
    middle.set_title("forced feature sharing (both networks of 256 units a layer)", fontsize=10)
    middle.legend(frameon=False)
    ways = list(runs[0]["inference"])
    numbers = np.array([[run["inference"][way] for way in ways] for run in runs])
    error = numbers[..., 1].std(0, ddof=1) if len(runs) > 1 else np.zeros(len(ways))
    right.barh(ways, numbers[..., 1].mean(0), xerr=error, color="#4f46e5", error_kw={"lw": 1.2, "capsize": 3})
    for row, way in enumerate(numbers.mean(0)):
        right.text(0.01, row, f"accuracy {100 * way[0]:.1f}", va="center", color="white", fontsize=9)
    right.invert_yaxis()
    right.set(xlabel="negative log-likelihood of new digits")
    right.set_title("dropout at inference, and bagging", fontsize=10)
    figure.suptitle(f"Mean and standard deviation of {len(runs)} seeds, each with digits of its own")
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--accelerator", default="auto", help="auto, cpu or gpu")
    parser.add_argument("--fast", action="store_true", help="two epochs of one seed, to see that it runs")
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    options = parser.parse_args(arguments)
    if options.fast:
        options.seeds, options.epochs, options.members = 1, 2, 2
    options.output.mkdir(parents=True, exist_ok=True)

    runs = []
    for seed in range(options.seeds):
        runs.append(one_seed(seed, options))
        print(f"seed {seed}: " + ", ".join(f"{k} {100 * v:.1f}" for k, v in runs[-1]["accuracy"].items()), flush=True)
    for name in SETTINGS:
        values = [run["accuracy"][name] for run in runs]
        print(f"{name:22} accuracy {100 * np.mean(values):.1f} ± {100 * np.std(values):.1f}")
    half = SHARES.index(0.5)
    for name in ("with dropout", "without dropout"):
        print(f"half of the units deleted, {name}: {100 * np.mean([run['deleted'][name][half] for run in runs]):.1f}")
    for way in runs[0]["inference"]:
        right, loss = np.mean([run["inference"][way] for run in runs], 0)
        print(f"{way:22} accuracy {100 * right:.1f}, negative log-likelihood {loss:.3f}")

    path = options.output / "regularization.png"
    draw(runs, options).savefig(path, dpi=110)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
