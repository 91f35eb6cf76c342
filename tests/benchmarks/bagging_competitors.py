"""The networks of the benchmark of bagging, and what trains K of them: by this library, by Lightning, by hand."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as L
import torch
import torch.nn.functional as F
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


def trainer(epochs: int, device: str = "cpu", **options: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    settings = {"accelerator": "gpu" if device == "cuda" else "cpu", "devices": 1, "enable_model_summary": False}
    return L.Trainer(max_epochs=epochs, **settings, **quiet, **options)


def digits() -> TensorDataset:
    from sklearn.datasets import load_digits

    loaded = load_digits()
    return TensorDataset(torch.tensor(loaded.data / 16, dtype=torch.float32)[:1437], torch.tensor(loaded.target)[:1437])


def images() -> TensorDataset:
    """As many numbers as digits has, for a machine without scikit-learn."""
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.rand(1437, 64, generator=generator), torch.randint(10, (1437,), generator=generator))


def ours(
    make: Callable[[], nn.Module],
    members: int,
    epochs: int,
    data: TensorDataset,
    backend: Any,
    device: str = "cpu",
    **options: Any,
) -> str:
    ensemble = le.BaggingEnsemble(lambda: Member(make), members, task="classification", backend=backend)
    trainer(epochs, device, **options).fit(ensemble, le.BootstrapDataModule(data, members, BATCH))
    return str(ensemble.used_backend)


def separate_fits(
    make: Callable[[], nn.Module], members: int, epochs: int, data: TensorDataset, device: str = "cpu", **options: Any
) -> None:
    """K Trainers one after the other, a DataLoader each."""
    sets = le.bootstrap(data, members)
    for number in range(members):
        loader = DataLoader(sets.subset(data, number), batch_size=BATCH, shuffle=True)
        trainer(epochs, device, **options).fit(Member(make), loader)


def plain_loop(
    make: Callable[[], nn.Module], members: int, epochs: int, data: TensorDataset, device: str = "cpu"
) -> None:
    """K networks one after the other: tensors indexed on the device, fused Adam, nothing else."""
    for indices in le.bootstrap(data, members).indices:
        net = make().to(device)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
        draws = Draws(data, indices.unsqueeze(0), device)
        for x, y in itertools.chain.from_iterable(itertools.repeat(draws, epochs)):
            optimizer.zero_grad()
            F.cross_entropy(net(x[0]), y[0]).backward()
            optimizer.step()


class Draws:
    """Batches ``[K, B, ...]`` of an epoch, indexed on the device: what a loop by hand does."""

    def __init__(self, data: TensorDataset, indices: Tensor, device: str) -> None:
        self.tensors = [tensor.to(device) for tensor in data.tensors]
        self.indices = indices.to(device)

    def __len__(self) -> int:
        return -(-self.indices.shape[1] // BATCH)

    def __iter__(self) -> Iterator[list[Tensor]]:
        order = self.indices.gather(1, torch.rand(self.indices.shape, device=self.indices.device).argsort(1))
        for rows in order.split(BATCH, 1):
            yield [tensor[rows] for tensor in self.tensors]


class OneOf:
    """The batches ``[B, ...]`` of the only network."""

    def __init__(self, draws: Draws) -> None:
        self.draws = draws

    def __len__(self) -> int:
        return len(self.draws)

    def __iter__(self) -> Iterator[list[Tensor]]:
        return ([part[0] for part in batch] for batch in self.draws)


def one_fit(
    make: Callable[[], nn.Module], epochs: int, data: TensorDataset, device: str = "cpu", **options: Any
) -> None:
    """One network in a Trainer, its patterns indexed on the device."""
    draws = Draws(data, le.bootstrap(data, 1).indices, device)
    trainer(epochs, device, **options).fit(Member(make), OneOf(draws))


class ByHand(L.LightningModule):
    """K of the MLP as three baddbmm, which is the bound for this one network; and what a Trainer adds to that.

    No hook, nothing logged, a fused optimiser: what is left beside the arithmetic is Lightning's own.
    """

    def __init__(self, members: int) -> None:
        super().__init__()
        sizes = ((64, 128), (128, 128), (128, 10))
        self.weights = nn.ParameterList((torch.rand(members, a, b) * 2 - 1) / a**0.5 for a, b in sizes)
        self.biases = nn.ParameterList(torch.zeros(members, 1, b) for _, b in sizes)
        self.members = members

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch, list(zip(self.weights, self.biases, strict=True)))

    def loss(self, batch: Any, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
        hidden, y = batch
        for number, (weight, bias) in enumerate(layers):
            hidden = torch.baddbmm(bias, hidden, weight)
            hidden = hidden.relu() if number < 2 else hidden
        return F.cross_entropy(hidden.reshape(-1, 10), y.reshape(-1)) * self.members

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3, fused=True)


def stack_by_hand(members: int, epochs: int, data: TensorDataset, device: str = "cpu") -> None:
    draws = Draws(data, le.bootstrap(data, members).indices, device)
    module = ByHand(members).to(device)
    optimizer = module.configure_optimizers()
    layers = list(zip(module.weights, module.biases, strict=True))
    for _ in range(epochs):
        for batch in draws:
            optimizer.zero_grad()
            module.loss(batch, layers).backward()
            optimizer.step()


def stack_in_a_trainer(members: int, epochs: int, data: TensorDataset, device: str = "cpu", **options: Any) -> None:
    """The same in a Trainer: the floor of whatever trains with Lightning."""
    draws = Draws(data, le.bootstrap(data, members).indices, device)
    trainer(epochs, device, **options).fit(ByHand(members), draws)


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
