"""Self-normalising networks: how deep can a plain network be?

Trains plain networks of 8, 16 and 32 layers on the handwritten digits of scikit-learn and draws three pictures:

    depth.png       training loss: SELU with LeCun weights against ReLU with He weights, with batch norm, and what
                    torch does by default
    ladder.png      the activations of every eighth layer before training: which networks hand a signal on
    moment_map.png  why: the map of mean and variance through a SELU layer, with its fixed point, and the maps of the
                    second moment for the others

Run it:  python examples/02_self_normalizing_networks.py            (some minutes on a CPU)
         python examples/02_self_normalizing_networks.py --fast     (some seconds)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from sklearn.datasets import load_digits
from torch import Tensor, nn

import lightning_tricks.init as lt_init
from lightning_tricks.nn import SelfNormalizingMLP, Standardize
from lightning_tricks.report.figures import style

WIDTH = 64
INK, MUTED, GRID = "#1f2430", "#6b7280", "#e5e7eb"
COLOURS = {
    "SELU, LeCun": style.GREEN,
    "ReLU, He": style.VERMILLION,
    "ReLU, batch norm": style.BLUE,
    "ReLU, torch default": style.PURPLE,
    "SELU, torch default": style.GREY,
}
SELU = COLOURS["SELU, LeCun"]


def stack(depth: int, activation: Callable[[], nn.Module], norm: bool = False) -> nn.Sequential:
    """``depth`` hidden layers and the output, started as torch starts them."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(WIDTH, WIDTH), *([nn.BatchNorm1d(WIDTH)] if norm else []), activation()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "SELU, LeCun": lambda depth: SelfNormalizingMLP(WIDTH, [WIDTH] * depth, 10),
    "ReLU, He": lambda depth: lt_init.initialize(stack(depth, nn.ReLU)),
    "ReLU, batch norm": lambda depth: lt_init.initialize(stack(depth, nn.ReLU, norm=True)),
    "ReLU, torch default": lambda depth: stack(depth, nn.ReLU),
    "SELU, torch default": lambda depth: stack(depth, nn.SELU),
}


def digits() -> tuple[Tensor, Tensor]:
    """The 1797 digits, 8 x 8 pixels, standardised pixel by pixel."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32)
    return Standardize.fit(x)(x), torch.tensor(labels)


def train(net: nn.Module, x: Tensor, y: Tensor, *, epochs: int, seed: int, lr: float = 1e-2) -> list[float]:
    """Plain SGD with batches of 64; the mean training loss of each epoch."""
    net.to(x.device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    losses = []
    for _ in range(epochs):
        total = torch.zeros((), device=x.device)
        for index in torch.randperm(len(x), generator=generator).split(64):
            loss = F.cross_entropy(net(x[index]), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(index)
        losses.append(float(total) / len(x))
    return losses


def compare(
    depths: list[int], seeds: int, epochs: int, size: int | None = None, accelerator: str = "cpu"
) -> dict[tuple[str, int], np.ndarray]:
    """(network, depth) -> training losses, (seeds, epochs)."""
    x, y = digits()
    device = "cuda" if torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda") else "cpu"
    x, y = x[:size].to(device), y[:size].to(device)
    curves = {}
    for depth in depths:
        for name, make in NETWORKS.items():
            runs = []
            for seed in range(seeds):
                torch.manual_seed(seed)
                runs.append(train(make(depth), x, y, epochs=epochs, seed=seed))
            curves[name, depth] = np.array(runs)
            print(
                f"{depth:3d} layers  {name:20s} final training loss {curves[name, depth][:, -1].mean():.4g}", flush=True
            )
    return curves


def plain(axes: Axes) -> Axes:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=8)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def title(figure: plt.Figure, head: str, line: str) -> None:
    figure.text(0.02, 0.975, head, fontsize=13, fontweight="bold", color=INK, va="top")
    figure.text(0.02, 0.915, line, fontsize=9.5, color=MUTED, va="top")


def draw_depth(curves: dict[tuple[str, int], np.ndarray], path: Path) -> None:
    depths = sorted({depth for _, depth in curves})
    figure, panels = plt.subplots(1, len(depths), figsize=(11, 4.4), sharey=True, squeeze=False)
    for axes, depth in zip(panels[0], depths, strict=True):
        plain(axes).set_title(f"{depth} hidden layers", fontsize=10, color=INK, loc="left")
        for name, colour in COLOURS.items():
            runs = curves[name, depth]
            epochs = np.arange(1, runs.shape[1] + 1)
            middle = np.exp(np.log(runs).mean(0))
            axes.fill_between(epochs, runs.min(0), runs.max(0), color=colour, alpha=0.15, linewidth=0)
            axes.plot(epochs, middle, color=colour, linewidth=2, label=name)
        axes.axhline(np.log(10), color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_yscale("log")
        axes.set_xlabel("epoch", fontsize=9, color=MUTED)
    panels[0][0].set_ylabel("training loss", fontsize=9, color=MUTED)
    panels[0][0].annotate("chance", (1, np.log(10)), (0, 3), textcoords="offset points", fontsize=8, color=MUTED)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=5, frameon=False, fontsize=9)
    line = "Digits, 64 units a layer, plain SGD at 0.01. Line: geometric mean; band: all seeds."
    title(figure, "How deep can a plain network be?", line)
    figure.tight_layout(rect=(0, 0.07, 1, 0.9))
    figure.savefig(path, dpi=150)
    plt.close(figure)


@torch.no_grad()
def activations(net: nn.Module, x: Tensor) -> list[Tensor]:
    """The output of every activation module, in order."""
    outputs: list[Tensor] = []
    kinds = (nn.ReLU, nn.SELU)
    handles = [
        module.register_forward_hook(lambda m, a, out: outputs.append(out))
        for module in net.modules()
        if isinstance(module, kinds)
    ]
    net(x)
    for handle in handles:
        handle.remove()
    return outputs


def draw_ladder(depth: int, path: Path) -> None:
    x, _ = digits()
    rungs = sorted({0, *range(depth // 4 - 1, depth, max(1, depth // 4))})
    figure, panels = plt.subplots(len(rungs), len(COLOURS), figsize=(11, 6.2), sharex=True, squeeze=False)
    edges = np.linspace(-3, 3, 121)
    centres = 0.5 * (edges[1:] + edges[:-1])
    for column, (name, colour) in enumerate(COLOURS.items()):
        torch.manual_seed(0)
        outputs = activations(NETWORKS[name](depth), x)
        for row, layer in enumerate(rungs):
            axes = panels[row][column]
            counts, _ = np.histogram(outputs[layer].numpy(), edges)
            heights = np.sqrt(counts / counts.max()) if counts.max() else counts
            axes.fill_between(centres, heights, color=colour, alpha=0.85, linewidth=0, step="mid")
            axes.set_ylim(0, 1.35)
            axes.set_yticks([])
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.spines["bottom"].set_color(GRID)
            axes.tick_params(colors=MUTED, labelsize=8)
            axes.text(
                0.98,
                0.95,
                f"std {outputs[layer].var(0).mean().sqrt():.2g}",
                transform=axes.transAxes,
                ha="right",
                va="top",
                fontsize=8,
                color=INK,
            )
            if column == 0:
                axes.set_ylabel(f"layer {layer + 1}", fontsize=9, color=MUTED, rotation=0, ha="right", va="center")
            if row == 0:
                axes.set_title(name, fontsize=10, color=INK)
    title(
        figure,
        "The activation ladder before training",
        f"Outputs of the activations in a net of {depth} layers (square root of the frequency); std over the digits.",
    )
    figure.tight_layout(rect=(0, 0, 1, 0.9))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_selu_map(axes: Axes) -> None:
    """Where a SELU layer of unit weights takes each mean and variance, and some paths to the fixed point."""
    omega, tau = 0.1, 1.0
    means, variances = np.meshgrid(np.linspace(-0.5, 0.5, 9), np.linspace(0.3, 2.2, 11))
    new_mean, new_variance = lt_init.selu_moments(torch.tensor(means), torch.tensor(variances), omega, tau)
    axes.quiver(
        means, variances, new_mean.numpy() - means, new_variance.numpy() - variances,
        angles="xy", scale_units="xy", scale=4.5, width=0.003, headwidth=4, color="#a3aebd",
    )  # fmt: skip
    axes.add_patch(Rectangle((-0.1, 0.8), 0.2, 0.7, facecolor=SELU, alpha=0.14, edgecolor="none"))
    label = {"fontsize": 8.5, "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.9}}
    axes.text(0.12, 1.36, "theorem 1 holds:\nsteps get shorter", color=SELU, va="center", **label)
    for start in ((-0.45, 2.1), (0.45, 2.0), (0.42, 0.4), (-0.4, 0.45)):
        path = [start]
        for _ in range(25):
            path.append(tuple(float(t) for t in lt_init.selu_moments(*path[-1], omega, tau)))
        axes.plot(*zip(*path, strict=True), color=SELU, linewidth=1.4, marker="o", markersize=2.5)
    point = lt_init.selu_fixed_point(omega, tau)
    axes.plot(*point, marker="o", markersize=9, color=INK, markerfacecolor="white", markeredgewidth=2)
    axes.text(point.mean - 0.04, point.variance + 0.09, "fixed point", color=INK, ha="right", va="center", **label)
    axes.set(xlim=(-0.55, 0.55), ylim=(0.2, 2.3))
    axes.set_xlabel("mean of a layer's input", fontsize=9, color=MUTED)
    axes.set_ylabel("variance of a layer's input", fontsize=9, color=MUTED)
    axes.set_title("SELU pulls mean and variance back", fontsize=10, color=INK, loc="left")


def draw_second_moments(axes: Axes) -> None:
    """q' over q for activations at the gain that keeps q = 1, and for SELU as torch starts it."""
    q = np.linspace(0.02, 2.5, 80)
    lines = {
        "SELU, gain 1": ("selu", 1.0, SELU, "-"),
        "ReLU, gain 1.414": ("relu", lt_init.gain("relu"), style.VERMILLION, "-"),
        "GELU, gain 1.468": ("gelu", lt_init.gain("gelu"), style.BLUE, "-"),
        "SELU, torch's default": ("selu", 3**-0.5, style.GREY, "--"),
    }
    axes.plot([0, 2.5], [0, 2.5], color=GRID, linewidth=3, zorder=1)
    for label, (name, factor, colour, stroke) in lines.items():
        values = [lt_init.moments(name, 0.0, factor**2 * value).second_moment for value in q]
        axes.plot(q, values, color=colour, linewidth=2, linestyle=stroke, label=label)
    axes.plot(1, 1, marker="o", markersize=9, color=INK, markerfacecolor="white", markeredgewidth=2, zorder=5)
    slopes = {name: lt_init.stability(name).slope for name in ("selu", "relu", "gelu")}
    shown = {"selu": "SELU", "relu": "ReLU", "gelu": "GELU"}
    text = "slope at 1:  " + ",  ".join(f"{shown[name]} {slope:.3f}" for name, slope in slopes.items())
    axes.text(0.98, 0.04, text, transform=axes.transAxes, ha="right", fontsize=8, color=MUTED)
    axes.set(xlim=(0, 2.5), ylim=(0, 2.7))
    axes.set_xlabel("second moment of a layer's input", fontsize=9, color=MUTED)
    axes.set_ylabel("of its output", fontsize=9, color=MUTED)
    axes.set_title("Flatter than the diagonal is stable", fontsize=10, color=INK, loc="left")
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")


def draw_moment_map(path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5))
    draw_selu_map(plain(left))
    draw_second_moments(plain(right))
    about = (
        "From one layer to the next, in the limit of many units. Shaded: mean within 0.1 and variance in 0.8 to 1.5, "
        "where theorem 1\nof Klambauer et al. (2017) shows that the map contracts: two inputs come nearer, and all "
        "come to one fixed point."
    )
    title(figure, "Why: the moment map", about)
    figure.tight_layout(rect=(0, 0, 1, 0.86))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> dict[tuple[str, int], np.ndarray]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--fast", action="store_true", help="few epochs on few digits, to see that it runs")
    parser.add_argument("--accelerator", default="auto", help="auto, cpu or gpu")
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    options = parser.parse_args(arguments)
    size = None
    if options.fast:
        options.depths, options.seeds, options.epochs, size = [2, 4], 1, 2, 256
    options.output.mkdir(parents=True, exist_ok=True)

    print(lt_init.predict(SelfNormalizingMLP(WIDTH, [WIDTH] * 2, 10)), "\n")
    curves = compare(options.depths, options.seeds, options.epochs, size, options.accelerator)
    draw_depth(curves, options.output / "depth.png")
    draw_ladder(max(options.depths), options.output / "ladder.png")
    draw_moment_map(options.output / "moment_map.png")
    print(f"pictures: {', '.join(str(options.output / n) for n in ('depth.png', 'ladder.png', 'moment_map.png'))}")
    return curves


if __name__ == "__main__":
    main()
