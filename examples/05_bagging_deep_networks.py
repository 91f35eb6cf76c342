"""Bagging deep networks: what it gains, why, and what it knows about its own errors.

On a regression (Friedman's first function) and on scikit-learn's digits: error against the number of members with the
law that the correlation of the members' errors predicts, the out-of-bag score beside the test score, and dropout as
approximate bagging beside the real thing.

    python examples/05_bagging_deep_networks.py [--members 32] [--output outputs]       # about half a minute
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lightning_tricks.ensemble import (
    BaggingEnsemble,
    BootstrapDataModule,
    Decomposition,
    MonteCarloDropout,
    Prediction,
    decompose,
    plot_error_by_size,
)


class Network(L.LightningModule):
    """A network as anybody would write it; nothing in it knows of the others."""

    def __init__(self, sizes: list[int], dropout: float, classes: bool, learning_rate: float, decay: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes[:-1]):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.net = nn.Sequential(*layers, nn.Linear(*sizes[-2:]))
        self.classes, self.learning_rate, self.decay = classes, learning_rate, decay

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x), y) if self.classes else F.mse_loss(self(x).squeeze(-1), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.decay)


def friedman(train: int = 400, test: int = 2000) -> tuple[TensorDataset, TensorDataset]:
    """Friedman 1991: 10 sin(pi x1 x2) + 20 (x3 - 1/2)^2 + 10 x4 + 5 x5 + noise; scaled by the training targets."""
    from sklearn.datasets import make_friedman1

    x, y = (
        torch.tensor(value, dtype=torch.float32) for value in make_friedman1(train + test, noise=1.0, random_state=0)
    )
    y = (y - y[:train].mean()) / y[:train].std()
    x = (x - 0.5) * 12**0.5
    return TensorDataset(x[:train], y[:train]), TensorDataset(x[train:], y[train:])


def digits() -> tuple[TensorDataset, TensorDataset]:
    from sklearn.datasets import load_digits

    loaded = load_digits()
    x, y = torch.tensor(loaded.data / 16, dtype=torch.float32), torch.tensor(loaded.target)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    return TensorDataset(x[:600], y[:600]), TensorDataset(x[600:], y[600:])


def trainer(epochs: int, accelerator: str = "auto") -> L.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    where = {"accelerator": accelerator, "devices": 1}
    return L.Trainer(max_epochs=epochs, logger=False, enable_checkpointing=False, **where, **quiet)


def predict(ensemble: BaggingEnsemble, x: Tensor) -> Prediction:
    return ensemble.predict(x.to(ensemble.device)).to("cpu")


def halves(found: Prediction, target: Tensor) -> tuple[Decomposition, Decomposition]:
    """The law is fitted on one half of the test patterns and looked up on the other."""
    middle = len(target) // 2
    return decompose(found.members[:, :middle], target[:middle]), decompose(found.members[:, middle:], target[middle:])


def regression(options: argparse.Namespace) -> tuple[Decomposition, Decomposition]:
    train, test = friedman()
    ensemble = BaggingEnsemble(
        lambda: Network([10, 64, 64, 1], 0.0, False, 3e-3, 0.01), options.members, task="regression"
    )
    trainer(options.epochs, options.accelerator).fit(ensemble, BootstrapDataModule(train, options.members, 64))
    x, y = test.tensors
    found = predict(ensemble, x)
    whole = decompose(found.members.squeeze(-1), y)
    r2 = 1 - float(whole.ensemble_error / y.double().var(unbiased=False))
    fitted, looked_up = halves(Prediction(found.members.squeeze(-1), "regression"), y)
    print(f"regression ({ensemble.used_backend}: {ensemble.reason})")
    print(f"  mean member error {float(whole.mean_member_error):.4f} - ambiguity {float(whole.ambiguity):.4f}"
          f" = ensemble error {float(whole.ensemble_error):.4f}")  # fmt: skip
    print(f"  ensemble / member {float(whole.ratio):.3f}, where 1/K is {1 / options.members:.3f}")
    print(f"  rho + (1 - rho)/K with rho of one half of the patterns: {float(fitted.predicted_ratio()):.3f},"
          f" measured on the other: {float(looked_up.ratio):.3f}")  # fmt: skip
    d = whole.mean_errors.squeeze()
    print(f"  mean errors d_k from {float(d.min()):.3f} to {float(d.max()):.3f}; "
          f"members' errors differ by {float(whole.inequality):.1%}")  # fmt: skip
    print(f"  R^2: out of bag {ensemble.out_of_bag.score:.3f}, test {r2:.3f}")
    return fitted, looked_up


def classification(options: argparse.Namespace) -> dict[str, tuple[Tensor, Tensor]]:
    """Accuracy and negative log-likelihood of one network, thinned networks, the scaled one, and bagging."""
    train, test = digits()
    (x, y), epochs = test.tensors, options.epochs
    torch.manual_seed(0)
    alone = Network([64, 128, 128, 10], 0.5, True, 3e-3, 0.0)
    single = BaggingEnsemble(lambda: alone, 1, task="classification")
    trainer(epochs, options.accelerator).fit(single, BootstrapDataModule(train, 1, 64, bootstrap=False))
    thinned = MonteCarloDropout(alone, options.members)
    results = {"one network, weights scaled": thinned.weight_scaling(x), "Monte Carlo dropout": thinned.predict(x)}
    for name, replace in (("bagging", True), ("members on all patterns", False)):
        ensemble = BaggingEnsemble(
            lambda: Network([64, 128, 128, 10], 0.0, True, 3e-3, 0.0), options.members, task="classification"
        )
        trainer(epochs, options.accelerator).fit(
            ensemble, BootstrapDataModule(train, options.members, 64, bootstrap=replace)
        )
        results[name] = predict(ensemble, x)
        if replace:
            bag = ensemble.out_of_bag
            right = float((results[name].mean.argmax(1) == y).double().mean())
            print(f"digits ({ensemble.used_backend}): accuracy out of bag {bag.score:.3f}, test {right:.3f}")
    measured = {}
    for name, found in results.items():
        wrong = found.mean.argmax(1) != y
        loss = F.nll_loss(found.mean.clamp_min(1e-12).log(), y)
        print(f"  {name:28s} {float(1 - wrong.double().mean()):.3f} right, negative log-likelihood {float(loss):.3f}")
        assert found.entropy is not None
        measured[name] = (found.entropy, wrong)
    return measured


def kept_share(entropy: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
    """Error rate of the patterns that are kept when the least certain ones are handed to somebody else."""
    order = entropy.argsort()
    count = torch.arange(1, len(order) + 1)
    return count / len(order), wrong[order].double().cumsum(0) / count


def draw(curves: tuple[Decomposition, Decomposition], measured: dict[str, tuple[Tensor, Tensor]]) -> Any:
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.4), layout="constrained")
    fitted, looked_up = curves
    plot_error_by_size(looked_up, ax=axes[0], law=fitted)
    axes[0].set_title("regression: correlated errors set the limit")
    for (name, (entropy, wrong)), style in zip(measured.items(), (":", "--", "-", "-."), strict=True):
        share, rate = kept_share(entropy, wrong)
        axes[1].plot(100 * share, 100 * rate, style, lw=2, label=name)
    axes[1].set(xlabel="patterns kept, the most certain first [%]", ylabel="errors among them [%]")
    axes[1].set(xlim=(65, 100), ylim=(0, None), title="digits: the uncertainty knows where the errors are")
    axes[1].legend(frameon=False)
    axes[1].spines[["top", "right"]].set_visible(False)
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--accelerator", default="auto", help="auto, cpu or gpu")
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    options = parser.parse_args(arguments)
    curves = regression(options)
    measured = classification(options)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "bagging_deep_networks.png"
    draw(curves, measured).savefig(path, dpi=110)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
