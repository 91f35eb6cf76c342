"""The lecture's quiz, answered by measurement: every statement, its verdict, and the number that decides.

python examples/09_lecture_quiz.py [--fast]
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import lightning.pytorch as L
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import lightning_tricks as lt

DEPTH, WIDTH, MODELS = 8, 64, 10


class Answer(NamedTuple):
    """A statement, whether it holds, and by what number."""

    statement: str
    holds: bool
    measured: str


def digits(device: torch.device) -> tuple[Tensor, Tensor]:
    x, y = load_digits(return_X_y=True)
    images = torch.tensor(x, dtype=torch.float32, device=device)
    return lt.nn.Standardize.fit(images)(images), torch.tensor(y, device=device)


def network(unit: Callable[[], nn.Module], scale: float = 1.0, depth: int = DEPTH) -> nn.Sequential:
    """Hidden layers started as fits the unit; ``scale`` makes the weights larger or smaller than that."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(64 if not layers else WIDTH, WIDTH), unit()]
    net = lt.init.initialize(nn.Sequential(*layers, nn.Linear(WIDTH, 10)))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(scale)
    return net


def layers_of(net: nn.Sequential, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Pre-activations and outputs of the hidden layers."""
    before, after = [], []
    for module in net:
        if not isinstance(module, nn.Linear):
            before.append(x)
        x = module(x)
        if not isinstance(module, nn.Linear):
            after.append(x)
    return before, after


def train_ten(x: Tensor, y: Tensor, epochs: int) -> lt.BaggingEnsemble:
    """Ten networks that differ in their first weights and in the order of their patterns."""

    def member() -> lt.Classifier:
        return lt.Classifier(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), 10, learning_rate=3e-3)

    ensemble = lt.BaggingEnsemble(member, MODELS, task="classification", seed=int(torch.randint(2**31, ())))
    data = lt.BootstrapDataModule(TensorDataset(x.cpu(), y.cpu()), MODELS, batch_size=25)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    L.Trainer(max_epochs=epochs, accelerator="cpu", devices=1, **quiet).fit(ensemble, data)
    return ensemble


def accuracies(ensemble: lt.BaggingEnsemble, x: Tensor, y: Tensor) -> tuple[Tensor, float]:
    """Of each network, and of their average."""
    found, truth = ensemble.predict(x.cpu()), y.cpu()
    members = (found.members.argmax(-1) == truth).double().mean(1)
    return members, float((found.mean.argmax(-1) == truth).double().mean())


def many_models(x: Tensor, y: Tensor, options: argparse.Namespace) -> list[Answer]:
    """Both statements about ten models, on many draws of training, validation and two test sets."""
    rows = []
    for repeat in range(options.repeats):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(repeat)).to(x.device)
        train, *others = order[:150], order[150:250], order[250:450], order[450:]  # validation, first and second test
        torch.manual_seed(repeat)
        ensemble = train_ten(x[train], y[train], options.epochs)
        scores = [accuracies(ensemble, x[part], y[part]) for part in others]
        (on_valid, _), (on_first, _), (on_second, together) = scores
        lucky = on_first.max() - on_first.mean(), on_second[on_first.argmax()] - on_second.mean()
        rows.append([together, float(on_second[on_valid.argmax()]), *map(float, lucky)])
    average, chosen, at_first, again = torch.tensor(rows, dtype=torch.float64).T
    (gain, error), (luck, luck_error), (rest, rest_error) = map(_mean, (average - chosen, at_first, again))
    return [
        Answer(
            "it is better to average ten models than to take the one that is best on validation",
            gain > 2 * error,
            f"accuracy {100 * gain:+.1f} ± {100 * error:.1f} points ({average.mean():.3f} against "
            f"{chosen.mean():.3f}), {options.repeats} draws of the data",
        ),
        Answer(
            "handing in ten contributions beats handing in one",
            luck > 2 * luck_error,
            f"the best of ten: {100 * luck:+.1f} ± {100 * luck_error:.1f} points on the test set that chose it; on a "
            f"second test set {100 * rest:+.1f} ± {100 * rest_error:.1f} are left: the rest was luck",
        ),
    ]


def _mean(values: Tensor) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def active_paths(x: Tensor, y: Tensor) -> list[Answer]:
    """A path is active where all of its units are; the error signal passes the same ones."""
    net = network(nn.ReLU)
    before, after = layers_of(net, x)
    signals = torch.autograd.grad(F.cross_entropy(net[-1](after[-1]), y, reduction="sum"), before)

    def share_of_paths(active: list[Tensor]) -> float:
        return float(torch.stack([units.double().mean(1) for units in active]).prod(0).mean())

    share, back = share_of_paths([out > 0 for out in after]), share_of_paths([signal != 0 for signal in signals])
    units = float(torch.stack([(out > 0).double().mean() for out in after]).mean())
    return [
        Answer(
            "forward propagation with ReLU leaves only a few active paths",
            share < 0.1,
            f"{100 * share:.2g} % of the paths through {DEPTH} layers, though {100 * units:.0f} % of the units "
            "are active",
        ),
        Answer(
            "backpropagation with ReLU leaves only a few active paths",
            back < 0.1,
            f"the error signal is not zero on {100 * back:.2g} % of the paths: the same ones",
        ),
    ]


def mean_shifts(unit: Callable[[], nn.Module], x: Tensor, y: Tensor) -> tuple[float, float]:
    """Updates by single patterns: how often most of what changes in a pre-activation over all patterns is its mean."""
    net = network(unit)
    inputs = layers_of(net, x)[1][:-1]  # of the hidden layers but the first
    shares = []
    for pattern in range(100):
        net.zero_grad()
        F.cross_entropy(net(x[pattern : pattern + 1]), y[pattern : pattern + 1]).backward()
        for given, layer in zip(inputs, list(net)[2:-1:2], strict=True):
            moved = layer.weight.grad.square().sum(1) > 0
            change = given.detach() @ layer.weight.grad[moved].T + layer.bias.grad[moved]
            shares.append(change.mean(0).square() / change.square().mean(0))
    found = torch.cat(shares).double()
    return float((found > 0.5).double().mean()), float(found.mean())


def updates(x: Tensor, y: Tensor) -> list[Answer]:
    found = [(*mean_shifts(nn.ReLU, x, y), "ReLU shifts most often"), (*mean_shifts(nn.SELU, x, y), "SELU shifts")]
    return [
        Answer(
            f"a non-zero update step of {shifts} the mean",
            often > 0.5,
            f"in {100 * often:.0f} % of the updates most of the change is a shift of the mean ({share:.2f} of it "
            "on average)",
        )
        for often, share, shifts in found
    ]


def spread_of_filters(net: nn.Sequential, x: Tensor) -> float:
    """How far two patterns' linear filters, d output / d input, are apart, against their size: 0 where all are one."""
    found = torch.func.vmap(torch.func.jacrev(lambda one: net(one[None])[0]))(x).flatten(1)
    return float((found - found.mean(0)).detach().norm() / found.detach().norm())


def linear_filters(x: Tensor) -> list[Answer]:
    relu, few = network(nn.ReLU), x[:200]
    with torch.no_grad():
        masks = [(out > 0).to(x) for out in layers_of(relu, few)[1]]

        def on_paths(given: Tensor) -> Tensor:
            for layer, mask in zip(list(relu)[:-1:2], masks, strict=True):
                given = layer(given) * mask
            return relu[-1](given)

        zero, other = on_paths(torch.zeros_like(few)), few.flip(0)
        together = on_paths(2 * few + 3 * other) - zero
        apart = 2 * (on_paths(few) - zero) + 3 * (on_paths(other) - zero)
        nonlinear = float((together - apart).norm() / together.norm())
        same = float((on_paths(few) - relu(few)).abs().max())
    patterns = len({tuple(row.tolist()) for row in torch.cat([mask.bool() for mask in masks], 1)})
    spread = spread_of_filters(relu, few)
    sigmoidal = network(nn.Sigmoid, 0.03, depth=3)
    small, size = spread_of_filters(sigmoidal, few), float(layers_of(sigmoidal, few)[0][0].std().detach())
    return [
        Answer(
            "forward propagation with ReLU is always linear on the active paths",
            nonlinear < 1e-5 and same < 1e-4,
            f"with its active paths held fixed, the network departs from linearity by {nonlinear:.0e} (rounding)",
        ),
        Answer(
            "in a ReLU network all patterns are processed with the same linear filter",
            spread < 0.01,
            f"{patterns} sets of active paths for {len(few)} patterns; filters differ by {100 * spread:.0f} % of "
            "their size",
        ),
        Answer(
            "in a sigmoidal network with small weights and normalised inputs all patterns are processed with the same "
            "linear filter",
            small < 0.01,
            f"filters differ by {100 * small:.2g} % of their size (pre-activations of standard deviation {size:.2f})",
        ),
    ]


def active_without_gradient(net: nn.Sequential, x: Tensor, limit: float) -> list[float]:
    """Of the active units (an output of size 0.5 and more) the share whose slope is under 5 % of the largest, and that
    share among those whose output is positive."""
    a = torch.cat([before.detach().flatten() for before in layers_of(net, x)[0]]).requires_grad_()
    out = net[1](a)
    (slope,) = torch.autograd.grad(out.sum(), a)
    return [float((slope[on] < 0.05 * limit).double().mean()) for on in (out.abs() >= 0.5, out >= 0.5)]


def vanishing(x: Tensor) -> list[Answer]:
    big, _ = active_without_gradient(network(nn.Sigmoid, 10.0, depth=3), x, 0.25)
    selu, above = active_without_gradient(network(nn.SELU), x, 1.7581)
    return [
        Answer(
            "in a sigmoidal network with big weights there are active units in the forward pass that contribute a "
            "vanishing gradient in the backward path",
            big > 0.01,
            f"{100 * big:.0f} % of the active units have a slope under 5 % of the largest (weights ten times the "
            "usual)",
        ),
        Answer(
            "in a network with SELU there are active units in the forward path which contribute a vanishing gradient "
            "in the backward path",
            selu > 0.0,
            f"{100 * selu:.2g} % of the units with an output of size 0.5 and more: those near the floor of -1.76; of "
            f"those with a positive output {100 * above:.2g} %",
        ),
    ]


def draw(answers: list[Answer]) -> Any:
    figure, axes = plt.subplots(figsize=(13, 0.62 * len(answers) + 0.8), layout="constrained")
    axes.set(xlim=(0, 1), ylim=(len(answers), -0.6))
    axes.axis("off")
    for x, text in ((0.0, "statement"), (0.475, "verdict"), (0.55, "measured")):
        axes.text(x, -0.35, text, fontsize=10, fontweight="bold", va="center")
    for row, answer in enumerate(answers):
        if row % 2 == 0:
            axes.axhspan(row - 0.02, row + 0.98, color="#f3f4f6", lw=0)
        axes.text(0.0, row + 0.48, textwrap.fill(answer.statement, 78), fontsize=9, va="center")
        colour = "#0f766e" if answer.holds else "#c2410c"
        axes.text(0.475, row + 0.48, "true" if answer.holds else "false", fontsize=11, color=colour, va="center",
                  fontweight="bold")  # fmt: skip
        axes.text(0.55, row + 0.48, textwrap.fill(answer.measured, 74), fontsize=9, va="center", color="#374151")
    return figure


def main(arguments: list[str] | None = None) -> list[Answer]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20, help="draws of the data for the statements about ten models")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--accelerator", default="auto", help="auto, cpu or gpu")
    parser.add_argument("--fast", action="store_true", help="two draws of the data, to see that it runs")
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    options = parser.parse_args(arguments)
    if options.fast:
        options.repeats, options.epochs = 2, 3
    cuda = torch.cuda.is_available() and options.accelerator in ("auto", "gpu", "cuda")
    x, y = digits(torch.device("cuda" if cuda else "cpu"))

    torch.manual_seed(0)
    with x.device:
        relu, selu = updates(x, y)
        answers = [*active_paths(x, y), relu, *linear_filters(x), *vanishing(x), selu]
    answers = [*many_models(x, y, options), *answers]
    for number, answer in enumerate(answers, 1):
        print(f"{number:2}. {answer.statement}\n    {'TRUE ' if answer.holds else 'FALSE'}  {answer.measured}")

    options.output.mkdir(parents=True, exist_ok=True)
    draw(answers).savefig(options.output / "lecture_quiz.png", dpi=110)
    print(f"picture: {options.output / 'lecture_quiz.png'}")
    return answers


if __name__ == "__main__":
    main()
