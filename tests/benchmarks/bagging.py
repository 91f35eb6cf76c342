"""K networks: one fit of a BaggingEnsemble against K fits, a loop by hand, a stack by hand and torchensemble.

python tests/benchmarks/bagging.py [--members 2 8 32] [--networks mlp] [--epochs 5] [--rounds 5]
python tests/benchmarks/bagging.py --memory       bytes of weights and optimiser state against those of one network

torchensemble is timed where it is installed. All competitors run in turns; seconds are medians over the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from machine import describe
from race import keep_freed_memory
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks.ensemble as le

BATCH = 64


class Block(nn.Module):
    """A transformer layer over the rows of an 8 x 8 image, without dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(8, 32), nn.Linear(32, 10)
        self.one, self.two = nn.LayerNorm(32), nn.LayerNorm(32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.view(-1, 8, 8))
        y = self.one(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head((x + self.mlp(self.two(x))).mean(1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(64, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def bn_dropout() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(128, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp, "wide": wide, "lenet": lenet, "bn_dropout": bn_dropout, "transformer": Block,
}  # fmt: skip


class Member(L.LightningModule):
    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.net = make()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def trainer(epochs: int, **options: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return L.Trainer(max_epochs=epochs, accelerator="cpu", enable_model_summary=False, **quiet, **options)


def digits() -> TensorDataset:
    from sklearn.datasets import load_digits

    loaded = load_digits()
    return TensorDataset(torch.tensor(loaded.data / 16, dtype=torch.float32)[:1437], torch.tensor(loaded.target)[:1437])


def ours(make: Callable[[], nn.Module], members: int, epochs: int, data: TensorDataset, backend: Any) -> str:
    ensemble = le.BaggingEnsemble(lambda: Member(make), members, task="classification", backend=backend)
    trainer(epochs).fit(ensemble, le.BootstrapDataModule(data, members, BATCH))
    return str(ensemble.used_backend)


def separate_fits(make: Callable[[], nn.Module], members: int, epochs: int, data: TensorDataset) -> None:
    sets = le.bootstrap(data, members)
    for number in range(members):
        loader = DataLoader(sets.subset(data, number), batch_size=BATCH, shuffle=True)
        trainer(epochs).fit(Member(make), loader)


def plain_loop(make: Callable[[], nn.Module], members: int, epochs: int, data: TensorDataset) -> None:
    """K networks one after the other: tensors indexed, fused Adam, nothing else."""
    x, y = data.tensors
    for indices in le.bootstrap(data, members).indices:
        net = make()
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
        for _ in range(epochs):
            for rows in indices[torch.randperm(len(indices))].split(BATCH):
                optimizer.zero_grad()
                F.cross_entropy(net(x[rows]), y[rows]).backward()
                optimizer.step()


def stack_by_hand(members: int, epochs: int, data: TensorDataset) -> None:
    """The MLP as three baddbmm: the bound, for this one network."""
    x, y = data.tensors
    indices = le.bootstrap(data, members).indices
    sizes = ((64, 128), (128, 128), (128, 10))
    weights = [nn.Parameter((torch.rand(members, a, b) * 2 - 1) / a**0.5) for a, b in sizes]
    biases = [nn.Parameter(torch.zeros(members, 1, b)) for _, b in sizes]
    optimizer = torch.optim.Adam([*weights, *biases], lr=1e-3, fused=True)
    for _ in range(epochs):
        order = indices.gather(1, torch.rand(indices.shape).argsort(1))
        for rows in order.split(BATCH, 1):
            hidden = x[rows]
            for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                hidden = torch.baddbmm(bias, hidden, weight)
                hidden = hidden.relu() if layer < 2 else hidden
            optimizer.zero_grad()
            (F.cross_entropy(hidden.reshape(-1, 10), y[rows].reshape(-1)) * members).backward()
            optimizer.step()


class Estimator(nn.Module):
    """torchensemble builds its members from a class."""

    make: Callable[[], nn.Module] = staticmethod(mlp)

    def __init__(self) -> None:
        super().__init__()
        self.net = self.make()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def peer(make: Callable[[], nn.Module], members: int, epochs: int, data: TensorDataset) -> None:
    from torchensemble import BaggingClassifier

    Estimator.make = staticmethod(make)
    model = BaggingClassifier(estimator=Estimator, n_estimators=members, cuda=False)
    model.set_criterion(nn.CrossEntropyLoss())
    model.set_optimizer("Adam", lr=1e-3)
    loader = DataLoader(data, batch_size=BATCH, shuffle=True)
    with contextlib.redirect_stdout(io.StringIO()):
        model.fit(loader, epochs=epochs, log_interval=10**9, save_model=False)


def compare(name: str, members: int, epochs: int, rounds: int, data: TensorDataset, clock: Callable[[], float]) -> None:
    make, used = NETWORKS[name], [""]

    def auto() -> None:
        used[0] = ours(make, members, epochs, data, "auto")

    competitors: dict[str, Callable[[], object]] = {
        "ours": auto,
        "ours, vmap": lambda: ours(make, members, epochs, data, "vmap"),
        "ours, loop": lambda: ours(make, members, epochs, data, "loop"),
        "K Lightning fits": lambda: separate_fits(make, members, epochs, data),
        "plain loop": lambda: plain_loop(make, members, epochs, data),
    }
    if name == "mlp":
        competitors["stack by hand"] = lambda: stack_by_hand(members, epochs, data)
    if importlib.util.find_spec("torchensemble"):
        competitors["torchensemble"] = lambda: peer(make, members, epochs, data)
    seconds: dict[str, list[float]] = {key: [] for key in competitors}
    for _ in range(rounds):
        for key, run in competitors.items():
            start = clock()
            run()
            seconds[key].append(clock() - start)
    middle = {key: statistics.median(values) for key, values in seconds.items()}
    least = {key: min(values) for key, values in seconds.items()}
    for key in competitors:
        label = f"{key} ({used[0]})" if key == "ours" else key
        ratios = f"{middle[key] / middle['ours']:8.2f} x ours{least[key] / least['ours']:8.2f} x by minima"
        print(f"{name:12s}{members:4d}  {label:20s}{middle[key]:9.3f} s{ratios}", flush=True)


class Bytes(L.Callback):
    """Counts what a training holds, every storage once."""

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        held = [*pl_module.parameters()]
        for optimizer in trainer.optimizers:
            held += [value for group in optimizer.param_groups for value in group["params"]]
            held += [value for state in optimizer.state.values() for value in state.values()]
        storages = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in held}
        self.total = sum(storages.values())


def memory(data: TensorDataset) -> None:
    for name, make in NETWORKS.items():
        one = Bytes()
        trainer(1, callbacks=[one]).fit(Member(make), DataLoader(data, batch_size=BATCH))
        for members in (2, 8, 32):
            counted = Bytes()
            ensemble = le.BaggingEnsemble(lambda make=make: Member(make), members, task="classification")
            trainer(1, callbacks=[counted]).fit(ensemble, le.BootstrapDataModule(data, members, BATCH))
            print(f"{name:12s}{members:4d} members: {counted.total / one.total:7.3f} x one network", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=["mlp"])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="of the process: for a machine that others use, too")
    parser.add_argument("--memory", action="store_true", help="count bytes instead of seconds")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    for logger in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    print(describe())
    keep_freed_memory()  # as in the other benchmarks: pages fetched again would be charged to whoever comes next
    if options.memory:
        memory(digits())
        return
    clock = time.process_time if options.cpu_time else time.perf_counter
    for name in options.networks:
        for members in options.members:
            compare(name, members, options.epochs, options.rounds, digits(), clock)


if __name__ == "__main__":
    main()
