"""What the monitors cost: seconds per training step without them, at every step, and every 50 steps.

    python tests/benchmarks/monitor_overhead.py [--rounds 5] [--accelerator cpu] [--only mlp] [--memory] [--alone]

Beside ours stand others that are installed (peers.py), in the same rounds: ratios at every step. ``--memory``: the most
that a process of its own holds over 60 steps, and how much more with ours or another, in MiB; on a GPU what torch has
allocated there. ``--rounds 0 --memory`` measures that alone.

All three monitors are attached, with every measure on and a logger that writes every 50 steps. The three trainings
take turns, round by round; a step lasts from the start of its batch to the start of the next one. The step every 50
steps is (48 x the median other step + the probed step 50 + step 49, after which the loggers are written to) / 50, taken
from steps 33 to 82.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable

import lightning.pytorch as L
import peers
import torch
import torch.nn.functional as F
import torchvision
from lightning.pytorch.loggers import CSVLogger
from machine import describe
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt

SYNCHRONIZE = torch.cuda.is_available()  # asked once: it looks for a driver each time
FIRST, LAST = 33, 83  # of the timed steps: between them only step 50 is probed every 50 steps


class Clock(L.Callback):
    """Notes when each batch starts; first among the callbacks, so that a step holds the work of all others."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_batch_start(self, *args: object) -> None:
        if SYNCHRONIZE:
            torch.cuda.synchronize()
        self.starts.append(time.perf_counter())

    def steps(self) -> list[float]:
        return [after - before for before, after in zip(self.starts, self.starts[1:], strict=False)]


class Classifier(L.LightningModule):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.network(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Transformer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


def mlp() -> tuple[nn.Module, Tensor]:
    layers = [nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)]
    return nn.Sequential(*layers), torch.randn(128, 784)


def resnet18() -> tuple[nn.Module, Tensor]:
    network = torchvision.models.resnet18(num_classes=10)
    network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    network.maxpool = nn.Identity()
    return network, torch.randn(32, 3, 32, 32)


def transformer() -> tuple[nn.Module, Tensor]:
    return Transformer(256), torch.randn(16, 64, 256)


def run(
    make: Callable[[], tuple[nn.Module, Tensor]],
    every: int | None,
    steps: int,
    accelerator: str,
    peer: Callable[[], L.Callback] | None = None,
) -> list[float]:
    """Seconds of each step of one training: with our monitors, with those of others, or with none."""
    torch.manual_seed(0)
    network, x = make()
    data = TensorDataset(x.repeat(steps + 1, *[1] * (x.dim() - 1)), torch.randint(10, (len(x) * (steps + 1),)))
    clock = Clock()
    options = {"every_n_steps": every}
    monitors = [
        lt.ActivationMonitor(**options),
        lt.GradientFlowMonitor(**options),
        lt.TrainingDoctor(**options, report=False),
    ]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer = L.Trainer(
            max_steps=steps + 1,
            callbacks=[clock, *(monitors if every else []), *([] if peer is None else [peer()])],
            logger=CSVLogger(folder),
            accelerator=accelerator,
            devices=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        for monitor in monitors:
            monitor.show = lambda *args: None  # type: ignore[method-assign]  # pictures come after the training
        trainer.fit(Classifier(network), DataLoader(data, len(x)))
    return clock.steps()


OURS = {"ours": 1, "ours every 50": 50}
NETWORKS = {"mlp": mlp, "resnet18": resnet18, "transformer": transformer}


def memory(name: str, kind: str, accelerator: str) -> float:
    """MiB that a training in a process of its own holds at most; ``kind``: plain, one of OURS, or a peer's name."""
    given = [sys.executable, __file__, "--only", name, "--accelerator", accelerator, "--held-by", kind]
    done = subprocess.run(given, capture_output=True, text=True)
    return float(done.stdout.split()[-1]) if done.returncode == 0 else float("nan")


def held(name: str, kind: str, accelerator: str) -> float:
    """The same of this process."""
    run(NETWORKS[name], OURS.get(kind), 60, accelerator, peers.installed().get(kind))
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--only", nargs="*", default=["mlp", "resnet18", "transformer"])
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--alone", action="store_true", help="without those of others")
    parser.add_argument("--held-by", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    if options.held_by:
        print(held(options.only[0], options.held_by, options.accelerator))
        return
    print(describe())
    print(f"{'network':14}{'plain':>12}{'every step':>12}{'ratio':>8}{'aim':>6}{'every 50':>12}{'ratio':>8}{'aim':>6}")
    aims = {"mlp": (1.8, 1.03), "resnet18": (1.3, 1.01), "transformer": (1.5, 1.01)}
    for name, make in NETWORKS.items():
        if name not in options.only:
            continue
        others = {} if options.alone else peers.installed()
        of_peers: dict[str, list[float]] = {peer: [] for peer in others}
        plain, always, rarely, ratios, rare_ratios = [], [], [], [], []
        short = LAST if name == "mlp" else 12
        for _ in range(options.rounds):
            one = statistics.median(run(make, None, short, options.accelerator)[3:])
            every = statistics.median(run(make, 1, short, options.accelerator)[3:])
            steps = run(make, 50, LAST, options.accelerator)
            unprobed = statistics.median(steps[FIRST:49] + steps[51:LAST])
            fifty = (48 * unprobed + steps[49] + steps[50]) / 50
            plain.append(one)
            always.append(every)
            rarely.append(fifty)
            ratios.append(every / one)
            rare_ratios.append(fifty / unprobed)
            for peer, look in others.items():
                with contextlib.suppress(Exception):  # it fails on this network: then it has no line
                    theirs = statistics.median(run(make, None, short, options.accelerator, look)[3:])
                    of_peers[peer].append(theirs / one)
        if options.rounds:
            middle = [statistics.median(values) for values in (plain, always, ratios, rarely, rare_ratios)]
            aim = aims[name]
            print(
                f"{name:14}{middle[0] * 1e3:9.2f} ms{middle[1] * 1e3:9.2f} ms{middle[2]:8.2f}{aim[0]:6.2f}"
                f"{middle[3] * 1e3:9.2f} ms{middle[4]:8.3f}{aim[1]:6.2f}"
            )
        for peer, found in of_peers.items():
            if found:
                print(f"  {peer:24}{'':12}{statistics.median(found):8.2f}")
        if options.memory:
            without = memory(name, "plain", options.accelerator)
            more = {kind: memory(name, kind, options.accelerator) - without for kind in (*OURS, *of_peers)}
            told = ", ".join(f"{kind} {size:.0f}" for kind, size in more.items())
            print(f"  {name}: {without:.0f} MiB; more at most: {told}")


if __name__ == "__main__":
    main()
