"""Which units? The lecture's table, measured: linearity, vanishing gradient, bias problem and final loss of each kind.

Eight hidden layers on scikit-learn's digits, started as fits the unit (lt.init.initialize), plain and with batch norm:

    linearity            corr(a, g(a))^2, mean over units: at 1 a layer is a linear filter on every pattern
    vanishing gradient   error signal at the first hidden layer over that at the last
    bias problem         of what one update changes in a unit's pre-activation, the share that is a shift of its mean
    final loss           training loss of the last epoch

    python examples/08_choice_of_units.py            (about a minute on a CPU)
    python examples/08_choice_of_units.py --fast     (some seconds)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import lightning_tricks as lt

WIDTH = 64
UNITS: dict[str, Callable[[], nn.Module]] = {
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "leaky ReLU": lambda: nn.LeakyReLU(0.1),
    "shifted ReLU": lt.nn.ShiftedReLU,
    "ELU": nn.ELU,
    "SELU": nn.SELU,
}
MEASURES = {  # and what their numbers are
    "linearity": "of a layer; 1: a linear filter",
    "vanishing gradient": "error signal, first layer over last",
    "bias problem": "share of an update that is a shift",
    "final loss": "of the last epoch's training",
}


def device_of(name: str) -> torch.device:
    cuda = torch.cuda.is_available() and name in ("auto", "gpu", "cuda")
    return torch.device("cuda" if cuda else "cpu")


def network(unit: Callable[[], nn.Module], depth: int, norm: bool, x: Tensor) -> nn.Sequential:
    layers: list[nn.Module] = [lt.nn.Standardize.fit(x)]
    for _ in range(depth):
        layers += [nn.Linear(WIDTH, WIDTH), *([nn.BatchNorm1d(WIDTH)] if norm else []), unit()]
    return lt.init.initialize(nn.Sequential(*layers, nn.Linear(WIDTH, 10)))


def preactivations(net: nn.Sequential, kind: type, x: Tensor) -> list[Tensor]:
    """What enters the units of each hidden layer."""
    found: list[Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach().clone()))
        for module in net
        if isinstance(module, kind)
    ]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return found


def shift_share(before: list[Tensor], after: list[Tensor]) -> float:
    """Of the change of the pre-activations over all patterns, the share that is a change of their mean."""
    shares = []
    for one, two in zip(before, after, strict=True):
        change = (two - one).double()
        whole = change.square().mean(0)
        moved = whole > 1e-20
        shares.append(float((change.mean(0).square()[moved] / whole[moved]).mean()) if bool(moved.any()) else 0.0)
    return float(np.mean(shares))


def train(name: str, norm: bool, seed: int, options: argparse.Namespace) -> dict[str, float]:
    device = device_of(options.accelerator)
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32, device=device)
    y = torch.tensor(labels, device=device)
    torch.manual_seed(seed)
    net = network(UNITS[name], options.depth, norm, x).to(device)
    kind = type(UNITS[name]())
    optimizer = torch.optim.SGD(net.parameters(), lr=options.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[float]] = {measure: [] for measure in MEASURES}
    losses: list[Tensor] = []
    for epoch in range(options.epochs):
        losses = []
        for step, index in enumerate(torch.randperm(len(x), generator=generator).split(64)):
            looked_at = epoch == 0 and step % 4 == 0  # the beginning decides whether it learns
            if looked_at:
                before = preactivations(net, kind, x)
                probe = lt.probe(net, optimizer).open()
            loss = F.cross_entropy(net(x[index.to(device)]), y[index.to(device)])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            if looked_at:
                probe.close()
                records = probe.snapshot().activations
                found["linearity"].append(float(np.mean([record.linearity for record in records])))
                found["vanishing gradient"].append(records[0].error_signal / records[-1].error_signal)
                found["bias problem"].append(shift_share(before, preactivations(net, kind, x)))
    found["final loss"].append(float(torch.stack(losses).mean()))
    return {measure: float(np.mean(values)) for measure, values in found.items()}


def one_unit(act: Callable[[Tensor], Tensor], mean: float, std: float) -> float:
    """Linearity of a unit whose pre-activation is a Gaussian."""
    a = mean + std * torch.special.ndtri((torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000)
    return float(torch.corrcoef(torch.stack([a, act(a)]))[0, 1] ** 2)


def draw_table(axes: Any, table: dict[tuple[str, bool], dict[str, float]]) -> None:
    columns = [(measure, norm) for measure in MEASURES for norm in (False, True)]
    numbers = np.array([[table[unit, norm][measure] for measure, norm in columns] for unit in UNITS])
    badness = np.zeros_like(numbers)
    for j, (measure, _) in enumerate(columns):
        value = numbers[:, j]
        if measure == "vanishing gradient":
            badness[:, j] = np.clip(np.abs(np.log10(value)) / 3, 0, 1)
        elif measure == "final loss":
            badness[:, j] = np.clip((np.log10(value) + 3) / 3.4, 0, 1)
        elif measure == "linearity":
            badness[:, j] = np.clip(np.log10(0.3 / (1.0001 - value)) / 2, 0, 1)
        else:
            badness[:, j] = np.clip(value / 0.3, 0, 1)
    axes.imshow(badness, cmap="RdYlBu_r", vmin=-0.25, vmax=1.25, aspect="auto")
    for i in range(numbers.shape[0]):
        for j in range(numbers.shape[1]):
            axes.text(j, i, f"{numbers[i, j]:.2g}", ha="center", va="center", fontsize=9.5)
    axes.set_xticks(range(len(columns)), ["with batch norm" if norm else "plain" for _, norm in columns], fontsize=8)
    axes.set_yticks(range(len(UNITS)), list(UNITS))
    axes.tick_params(length=0)
    for k, (measure, meaning) in enumerate(MEASURES.items()):
        axes.text(2 * k + 0.5, -0.92, measure, ha="center", fontweight="bold")
        axes.text(2 * k + 0.5, -0.62, meaning, ha="center", fontsize=8, color="0.3")
        axes.axvline(2 * k - 0.5, color="white", lw=4)
    axes.spines[:].set_visible(False)


def draw(table: dict[tuple[str, bool], dict[str, float]], options: argparse.Namespace) -> Any:
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(11, 8.4), height_ratios=[1.5, 1], layout="constrained")
    draw_table(top, table)
    figure.suptitle(
        f"Digits, {options.depth} hidden layers of {WIDTH}, SGD at {options.learning_rate}, {options.seeds} seeds "
        "(blue: as it should be; red: a problem)"
    )
    bottom.axis("off")
    left, right = bottom.inset_axes([0.05, 0.08, 0.4, 0.8]), bottom.inset_axes([0.57, 0.08, 0.4, 0.8])
    means = np.linspace(-3, 3, 61)
    left.plot(means, [one_unit(torch.relu, mean, 1.0) for mean in means], color="#c2410c", lw=2)
    left.axvline(0, color="0.6", ls=":")
    left.set(xlabel="mean of the pre-activation (variance 1)", ylabel="linearity")
    left.set_title("one ReLU: at mean 0 it uses both of its regions", fontsize=10)
    variances = np.geomspace(0.01, 30, 50)
    right.semilogx(variances, [one_unit(torch.sigmoid, 0.0, v**0.5) for v in variances], color="#4f46e5", lw=2)
    right.axvline(2, color="0.6", ls=":")
    right.set(xlabel="variance of the pre-activation (mean 0)", ylabel="linearity")
    right.set_title("one logistic unit: from a variance of 2 on it uses both", fontsize=10)
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--accelerator", default="auto", help="auto, cpu or gpu")
    parser.add_argument("--fast", action="store_true", help="one epoch of one seed, to see that it runs")
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    options = parser.parse_args(arguments)
    if options.fast:
        options.epochs, options.seeds, options.depth = 1, 1, 3

    table: dict[tuple[str, bool], dict[str, float]] = {}
    print(f"{'':14}{'':17}" + "".join(f"{measure:>20}" for measure in MEASURES))
    for name in UNITS:
        for norm in (False, True):
            runs = [train(name, norm, seed, options) for seed in range(options.seeds)]
            table[name, norm] = {measure: float(np.mean([run[measure] for run in runs])) for measure in MEASURES}
            row = "".join(f"{table[name, norm][measure]:20.3g}" for measure in MEASURES)
            print(f"{name:14}{'with batch norm' if norm else 'plain':17}{row}", flush=True)

    relu, logistic = one_unit(torch.relu, 0.0, 1.0), one_unit(torch.sigmoid, 0.0, 2**0.5)
    print(f"one ReLU at mean 0: linearity {relu:.3f}; one logistic unit at variance 2: {logistic:.3f}")
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "choice_of_units.png"
    draw(table, options).savefig(path, dpi=110)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
