"""Batch normalisation at batches of 4, 16 and 256: variants, the train-evaluation gap, folding.

A plain ReLU network is given its batch norm by surgery (steps 1 to 5 of Algorithm 2 of Ioffe & Szegedy 2015), trained
with each variant at each batch size, given its population statistics (steps 7 to 10), and folded (step 11) back into
the plain network that it was.

    python examples/03_batch_normalization.py             # scikit-learn's digits, about half a minute
    python examples/03_batch_normalization.py --fast      # a look at it
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import lightning_tricks as lt
from lightning_tricks.report.figures import style

BATCHES = (4, 16, 256)
RENORM = {"momentum": 0.1, "warmup_steps": 30, "r_max_step": 150, "d_max_step": 100}
VARIANTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "none": lambda model: model,
    "batch norm": lambda model: lt.surgery.insert_batch_norm(model),
    "ghost, groups of 16": lambda model: lt.surgery.insert_batch_norm(model, cls=lt.nn.GhostBatchNorm1d, ghost_size=16),
    "renorm": lambda model: lt.surgery.insert_batch_norm(model, cls=lt.nn.BatchRenorm1d, **RENORM),
}
COLOURS = dict(zip(VARIANTS, (style.GREY, style.BLUE, style.GREEN, style.VERMILLION), strict=True))


@dataclass
class Outcome:
    """What one trained network is worth."""

    accuracy: float  # on held-out digits, in eval mode with the moving averages
    exact_accuracy: float  # the same with population statistics
    train_loss: float  # training data, normalised by the batches, as in training
    eval_loss: float  # training data, eval mode, moving averages
    exact_loss: float  # training data, eval mode, population statistics
    gap: float  # how far eval mode is from a normalised activation, with moving averages
    exact_gap: float  # the same with population statistics
    model: nn.Module


def load() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    digits = load_digits()
    x = torch.tensor(digits.data, dtype=torch.float32)
    y = torch.tensor(digits.target)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    train, valid = order[:1437], order[1437:]
    x = lt.nn.Standardize.fit(x[train])(x)
    return x[train], y[train], x[valid], y[valid]


def network(depth: int, width: int) -> nn.Module:
    """ReLU units, He initialisation: nothing in it knows of batch norm."""
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Linear(64 if index == 0 else width, width), nn.ReLU()]
    layers.append(nn.Linear(width, 10))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            lt.init.he_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def train(model: nn.Module, x: Tensor, y: Tensor, batch: int, steps: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    model.train()
    for _ in range(steps):
        chosen = torch.randint(len(y), (batch,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x[chosen]), y[chosen]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()


@torch.no_grad()
def loss_in_training_mode(model: nn.Module, x: Tensor, y: Tensor, batch: int) -> float:
    twin = copy.deepcopy(model).train()  # a copy: each batch moves the running statistics
    parts = [part for part in torch.arange(len(y)).split(batch) if len(part) == batch]
    return statistics.fmean(float(F.cross_entropy(twin(x[part]), y[part])) for part in parts)


@torch.no_grad()
def evaluate(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    output = model.eval()(x)
    return float(F.cross_entropy(output, y)), float((output.argmax(1) == y).float().mean())


@torch.no_grad()
def train_evaluation_gap(model: nn.Module, x: Tensor) -> float:
    """|variance - 1| of what eval mode takes for normalised: the median over all units of all layers.

    In training every batch leaves batch norm with mean 0 and variance 1; in eval only if the running statistics are
    those of what the layer meets.
    """
    off: list[Tensor] = []

    def look(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        normalized = (inputs[0] - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        off.append((normalized.square().mean(0) - 1).abs())

    norms = [module for name, module in model.named_modules() if name.endswith("batch_norm")]
    handles = [norm.register_forward_pre_hook(look) for norm in norms]
    model.eval()(x)
    for handle in handles:
        handle.remove()
    return float(torch.cat(off).median())


def experiment(name: str, batch: int, data: tuple[Tensor, ...], options: argparse.Namespace) -> Outcome:
    x, y, x_valid, y_valid = data
    torch.manual_seed(0)
    model = VARIANTS[name](network(options.depth, options.width)).to(x.device)
    train(model, x, y, batch, options.steps)
    train_loss = loss_in_training_mode(model, x, y, batch)
    eval_loss, _ = evaluate(model, x, y)
    accuracy = evaluate(model, x_valid, y_valid)[1]
    if name == "none":
        return Outcome(accuracy, accuracy, train_loss, eval_loss, eval_loss, 0.0, 0.0, model)
    gap = train_evaluation_gap(model, x)
    lt.surgery.update_population_statistics(model, x.split(256), consistent=True)
    exact_loss, _ = evaluate(model, x, y)
    exact_accuracy = evaluate(model, x_valid, y_valid)[1]
    exact_gap = train_evaluation_gap(model, x)
    return Outcome(accuracy, exact_accuracy, train_loss, eval_loss, exact_loss, gap, exact_gap, model)


@torch.no_grad()
def fold(model: nn.Module, x: Tensor, rounds: int) -> tuple[float, dict[str, float]]:
    """The relative difference of the outputs, and milliseconds for one pattern at a time, unfolded and folded.

    Both take turns pattern by pattern, each first every other time, and the median over all calls counts: what else
    the machine does meets both alike.
    """
    model.eval()
    folded = lt.surgery.fold_batch_norm(copy.deepcopy(model))
    expected = model(x)
    difference = float((folded(x) - expected).abs().max() / expected.abs().max())
    times: dict[str, list[float]] = {"unfolded": [], "folded": []}
    nets = [("unfolded", model), ("folded", folded)]
    for pattern in x[:20].split(1) * rounds:
        for name, net in nets:
            start = time.perf_counter()
            net(pattern)
            times[name].append(1e3 * (time.perf_counter() - start))
        nets.reverse()
    return difference, {name: statistics.median(values) for name, values in times.items()}


@style.drawing
def draw(outcomes: dict[tuple[str, int], Outcome], times: dict[str, float], title: str, path: Path) -> None:
    figure = style.new_figure(12, 4.2)
    accuracy, gap, speed = figure.subplots(1, 3, width_ratios=[1.15, 1.35, 0.7])
    for name, colour in COLOURS.items():
        values = [100 * outcomes[name, batch].exact_accuracy for batch in BATCHES]
        broad = 5 if name == "batch norm" else 1.8  # to be seen below ghost batch norm, which is the same up to 16
        accuracy.plot(range(len(BATCHES)), values, marker="o", color=colour, label=name, linewidth=broad)
    accuracy.set_xticks(range(len(BATCHES)), [str(batch) for batch in BATCHES])
    accuracy.set(xlabel="batch size", ylabel="held-out accuracy, %", title="Which variant at which batch")
    accuracy.legend(loc="lower right")

    names = [name for name in VARIANTS if name != "none"]
    for i, batch in enumerate(BATCHES):
        for k, name in enumerate(names):
            outcome = outcomes[name, batch]
            at = i + (k - 1) * 0.26
            gap.bar(at - 0.055, outcome.gap, 0.1, color=COLOURS[name], alpha=0.4)
            gap.bar(at + 0.055, outcome.exact_gap, 0.1, color=COLOURS[name])
    gap.bar(0, 0, color=style.GREY, alpha=0.4, label="moving average")
    gap.bar(0, 0, color=style.GREY, label="population statistics")
    gap.set_yscale("log")
    gap.set_ylim(top=10 * max(outcome.gap for outcome in outcomes.values()))  # room for the legend
    gap.set_xticks(range(len(BATCHES)), [str(batch) for batch in BATCHES])
    gap.set(xlabel="batch size", ylabel="|variance - 1| in eval, median unit", title="Train-evaluation gap")
    gap.grid(axis="x", visible=False)
    gap.legend(loc="upper right")

    bars = speed.bar(list(times), list(times.values()), color=[style.GREY, style.BLUE], width=0.6)
    speed.bar_label(bars, fmt="%.2f", padding=2)
    speed.set(ylabel="ms per pattern", title="Folded: same output")
    speed.grid(axis="x", visible=False)
    style.heading(figure, title, "Batch norm, its variants and its statistics, put in and taken out by surgery")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=8, help="hidden layers")
    parser.add_argument("--width", type=int, default=64, help="units per hidden layer")
    parser.add_argument("--steps", type=int, default=600, help="optimiser steps of each training")
    parser.add_argument("--fast", action="store_true", help="fewer and smaller of everything")
    parser.add_argument("--accelerator", default="auto", help="auto, cpu or gpu")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="where the picture goes")
    options = parser.parse_args(arguments)
    if options.fast:
        options.depth, options.width, options.steps = 4, 32, 30

    cuda = torch.cuda.is_available() and options.accelerator in ("auto", "gpu", "cuda")
    data = tuple(part.to("cuda" if cuda else "cpu") for part in load())
    outcomes: dict[tuple[str, int], Outcome] = {}
    print("held-out accuracy, loss on the training data, train-evaluation gap; each with moving average -> population")
    print(f"{'':22}{'batch':>6}{'accuracy':>17}{'training':>10}{'eval':>18}{'gap':>18}")
    for batch in BATCHES:
        for name in VARIANTS:
            o = outcomes[name, batch] = experiment(name, batch, data, options)
            gap = "" if name == "none" else f"{o.gap:9.3f} ->{o.exact_gap:6.3f}"
            accuracy = f"{o.accuracy:8.3f} ->{o.exact_accuracy:6.3f}"
            print(f"{name:22}{batch:6}{accuracy}{o.train_loss:10.3f}{o.eval_loss:9.3f} ->{o.exact_loss:6.3f}{gap}")

    difference, times = fold(outcomes["batch norm", 256].model, data[2], 5 if options.fast else 25)
    speed = f"{times['unfolded']:.3f} ms -> {times['folded']:.3f} ms a pattern"
    print(f"\nfolded: outputs differ by {difference:.1e}; {speed}")
    picture = options.output / "batch_normalization.png"
    draw(outcomes, times, f"A ReLU network of {options.depth} layers on digits", picture)
    print(f"Picture: {picture}")


if __name__ == "__main__":
    main()
