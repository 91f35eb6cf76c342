"""Batches and validation sets that are not drawn evenly, and are so by design."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from ...data import imbalanced
from ..kind import Plan, healthy
from .modules import (
    Drawn,
    Listed,
    Supervised,
    accuracy,
    adam,
    digits,
    in_order,
    mlp,
    nearest_accuracy,
    r_squared,
    shuffled,
)

SEEN, NEW = 60, 20  # classes of the training, and others of the validation


def _parts() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Patterns and labels of the seen classes, then of the new: eight features tell, twenty-four are a strong nuisance.

    All are mixed, so that what tells one class from another has to be learned, and holds for new classes.
    """
    classes, each = SEEN + NEW, 30
    y = torch.arange(classes).repeat_interleave(each)
    telling = torch.randn(classes, 8)[y] + 0.25 * torch.randn(len(y), 8)
    x = torch.cat([telling, 1.5 * torch.randn(len(y), 24)], 1) @ torch.linalg.qr(torch.randn(32, 32))[0]
    order = torch.randperm(len(y))
    x, y = x[order], y[order]
    return x[y < SEEN], y[y < SEEN], x[y >= SEEN], y[y >= SEEN]


def _groups(x: Tensor, y: Tensor, classes: int, each: int) -> tuple[Tensor, Tensor]:
    """So many patterns of each of so many classes, class after class."""
    labels = y.unique()
    chosen = labels[torch.randperm(len(labels))[:classes]]
    rows = [torch.where(y == label)[0] for label in chosen]
    index = torch.cat([row[torch.randperm(len(row))[:each]] for row in rows])
    return x[index], y[index]


class Prototypical(L.LightningModule):
    """Few-shot episodes (Snell et al. 2017): a query belongs to the nearest mean of a class's support."""

    def __init__(self, ways: int = 4, shots: int = 5, queries: int = 10) -> None:
        super().__init__()
        self.net, self.ways, self.shots, self.queries = mlp(32, 64, 16), ways, shots, queries

    def episode(self, x: Tensor) -> Tensor:
        z = self.net(x).view(self.ways, self.shots + self.queries, -1)
        prototypes = z[:, : self.shots].mean(1)
        return -(torch.cdist(z[:, self.shots :].flatten(0, 1), prototypes) ** 2)

    @property
    def labels(self) -> Tensor:
        return torch.arange(self.ways).repeat_interleave(self.queries)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.episode(batch[0]), self.labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.episode(batch[0]), self.labels), batch_size=1)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 1e-3)


@healthy("few-shot episodes", "accuracy on new classes", 0.8)
def few_shot(seed: int) -> Plan:
    x, y, x_new, y_new = _parts()
    module = Prototypical()

    def score() -> float:
        episodes = [_groups(x_new, y_new, 4, 15)[0] for _ in range(50)]
        return sum(accuracy(module.episode, each, module.labels) for each in episodes) / 50

    train = Drawn(lambda: _groups(x, y, 4, 15), 100)
    return Plan(module, train, score, Drawn(lambda: _groups(x_new, y_new, 4, 15), 20), epochs=4)


class Triplets(Supervised):
    """Batch-hard triplets (Hermans et al. 2017)."""

    def __init__(self, inputs: int, margin: float = 0.3) -> None:
        super().__init__(mlp(inputs, 64, 16), self._hardest, adam(1e-3))
        self.margin = margin

    def _hardest(self, z: Tensor, y: Tensor) -> Tensor:
        z = F.normalize(z, dim=1)
        apart, same = torch.cdist(z, z), y[:, None] == y[None]
        farthest = torch.where(same, apart, 0.0).amax(1)
        nearest = torch.where(same, 9.0, apart).amin(1)
        return F.relu(farthest - nearest + self.margin).mean()


@healthy("PxK batches with hard triplets", "accuracy of nearest neighbours", 0.92)
def hard_triplets(seed: int) -> Plan:
    """Eight patterns of each of eight classes, in order."""
    data, module = digits(), Triplets(64)
    return Plan(
        module,
        Drawn(lambda: _groups(data.x, data.y, 8, 8), 100),
        lambda: nearest_accuracy(module.net, data),
        Drawn(lambda: _groups(data.x_val, data.y_val, 8, 8), 5),
        epochs=4,
    )


@healthy("disjoint validation classes", "accuracy of nearest neighbours on new classes", 0.8)
def disjoint_classes(seed: int) -> Plan:
    """Metric learning: the validation is of classes that the training has never seen."""
    x, y, x_new, y_new = _parts()
    module, half = Triplets(32), len(x_new) // 2

    def score() -> float:
        z = F.normalize(module.net(x_new), dim=1)
        return float((y_new[:half][torch.cdist(z[half:], z[:half]).argmin(1)] == y_new[half:]).float().mean())

    return Plan(module, shuffled(x, y, batch=128), score, in_order(x_new, y_new, batch=128), epochs=25)


class OneTaskEach(L.LightningModule):
    """A body and a head for each task; a batch is of one task."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(mlp(64, 64, 64), nn.ReLU())
        self.heads = nn.ModuleDict({"digit": nn.Linear(64, 10), "odd": nn.Linear(64, 2), "sum": nn.Linear(64, 1)})

    def _loss(self, task: str, x: Tensor, y: Tensor) -> Tensor:
        output = self.heads[task](self.body(x))
        return F.mse_loss(output[:, 0], y) if task == "sum" else F.cross_entropy(output, y)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self._loss(*batch)
        self.log("train_loss", loss, batch_size=64)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self._loss(*batch), batch_size=64)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 1e-3)


@healthy("one task per batch", "accuracy of the hardest task", 0.93)
def one_task_per_batch(seed: int) -> Plan:
    data = digits()

    def targets(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        ink = x.mean(1)
        return {"digit": y, "odd": y % 2, "sum": (ink - ink.mean()) / ink.std()}

    tasks, tasks_val = targets(data.x, data.y), targets(data.x_val, data.y_val)

    def draw() -> tuple[str, Tensor, Tensor]:
        task = ("digit", "odd", "sum")[int(torch.randint(3, ()))]
        index = torch.randint(len(data.x), (64,))
        return task, data.x[index], tasks[task][index]

    module = OneTaskEach()

    def score() -> float:
        features = module.body(data.x_val)
        return min(accuracy(module.heads[task], features, tasks_val[task]) for task in ("digit", "odd"))

    val = Listed([(task, data.x_val, y) for task, y in tasks_val.items()])
    return Plan(module, Drawn(draw, 150), score, val, epochs=5)


@healthy("stream in order of time", "R2 on what comes after", 0.7)
def stream(seed: int) -> Plan:
    """A demand with the time of the day and of the year, read once, hour after hour, never shuffled."""
    hours = torch.arange(16000.0)
    noise = torch.zeros(len(hours))
    for k in range(1, len(hours)):
        noise[k] = 0.9 * noise[k - 1] + 0.2 * torch.randn(())
    demand = torch.sin(hours * 2 * torch.pi / 24) + 0.7 * torch.cos(hours * 2 * torch.pi / 2000) + noise
    demand = (demand - demand.mean()) / demand.std()
    x, y = demand.unfold(0, 25, 1)[:, :24], demand.unfold(0, 25, 1)[:, 24:]
    module, cut = Supervised(mlp(24, 32, 1), F.mse_loss, adam(1e-3)), 14000
    return Plan(
        module,
        in_order(x[:cut], y[:cut], batch=32),
        lambda: r_squared(module(x[cut:]), y[cut:]),
        in_order(x[cut:], y[cut:]),
    )


@healthy("class-sorted validation", "accuracy", 0.94)
def sorted_validation(seed: int) -> Plan:
    """The validation comes class after class, as from folders."""
    data = digits()
    order = data.y_val.argsort()
    module = Supervised(mlp(64, 64, 10), F.cross_entropy, adam(1e-3))
    return Plan(
        module,
        shuffled(data.x, data.y),
        lambda: accuracy(module, data.x_val, data.y_val),
        in_order(data.x_val[order], data.y_val[order], batch=32),
        epochs=20,
    )


def _mean_recall(net: nn.Module, x: Tensor, y: Tensor) -> float:
    return sum(accuracy(net, x[y == label], y[y == label]) for label in y.unique()) / len(y.unique())


@healthy("balanced sampler", "mean recall", 0.88)
def balanced_sampler(seed: int) -> Plan:
    """Half of the classes are rare; they are drawn as often as the others, and validated as they are."""
    data = imbalanced(digits(), 0.15, seed)
    weights = 1 / data.y.bincount().float()[data.y]
    sampler = WeightedRandomSampler(weights.tolist(), 1000)
    rare = (data.y_val < 5) | (torch.rand(len(data.y_val)) < 0.15)
    module = Supervised(mlp(64, 64, 10), F.cross_entropy, adam(1e-3))
    return Plan(
        module,
        DataLoader(TensorDataset(data.x, data.y), 64, sampler=sampler, drop_last=True),
        lambda: _mean_recall(module, data.x_val, data.y_val),
        in_order(data.x_val[rare], data.y_val[rare]),
        epochs=25,
    )


@healthy("class-weighted cross-entropy", "mean recall", 0.88)
def class_weights(seed: int) -> Plan:
    """Half of the classes are rare and weigh as much more."""
    data = imbalanced(digits(), 0.15, seed)
    counts = data.y.bincount().float()
    module = Supervised(mlp(64, 64, 10), nn.CrossEntropyLoss(weight=counts.mean() / counts), adam(1e-3))
    return Plan(
        module,
        shuffled(data.x, data.y),
        lambda: _mean_recall(module, data.x_val, data.y_val),
        in_order(data.x_val, data.y_val),
        epochs=30,
    )
