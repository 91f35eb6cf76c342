"""Validation losses that climb away from their minimum are named; those of healthy trainings at rest are not."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_tricks import TrainingDoctor
from lightning_tricks.diagnosis import find
from lightning_tricks.diagnosis.history.progress import validations
from lightning_tricks.diagnosis.rules.overfitting import find_overfitting
from lightning_tricks.probes import Probe, Snapshot
from lightning_tricks.probes.records.loss_and_norm import LossRecord
from lightning_tricks.probes.records.weighted import WeightedRecord

LOADERS: dict[str, Callable[[], object]] = {
    "digits": load_digits,
    "wine": load_wine,
    "cancer": load_breast_cancer,
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def data(name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Three quarters to train with, one to validate, shuffled."""
    bunch = LOADERS[name]()
    x, y = torch.tensor(bunch.data, dtype=torch.float32), torch.tensor(bunch.target)  # type: ignore[attr-defined]
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-6)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(7))
    cut = 3 * len(x) // 4
    return x[order[:cut]], y[order[:cut]], x[order[cut:]], y[order[cut:]]


def train(
    name: str,
    *,
    hidden: int = 64,
    dropout: float = 0.0,
    examples: int | None = None,
    wrong: float = 0.0,
    steps: int = 500,
    learning_rate: float = 1e-3,
    order: int = 0,
) -> list[Snapshot]:
    """Adam on batches of 32, validated every 25 steps, looked at every 50; a share of the labels drawn at random.

    ``order``: by how much the validation's classes are moved.
    """
    x, y, x_val, y_val = data(name)
    classes = int(y.max()) + 1
    y_val = (y_val + order) % classes
    x, y = x[:examples], y[:examples].clone()
    y = torch.where(torch.rand(len(y)) < wrong, torch.randint(classes, y.shape), y)
    network = nn.Sequential(
        *(nn.Linear(x.shape[1], hidden), nn.ReLU(), nn.Dropout(dropout)),
        *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes)),
    )
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    history: list[Snapshot] = []
    losses: list[float] = []
    validation = math.nan
    for step in range(steps):
        if step and step % 25 == 0:
            network.eval()
            with torch.no_grad():
                validation = F.cross_entropy(network(x_val), y_val).item()
            network.train()
        looked = step % 50 == 0
        probe = Probe(network, optimizer, step=step)
        if looked:
            probe.open()
        chosen = torch.randint(len(x), (32,))
        optimizer.zero_grad()
        loss = F.cross_entropy(network(x[chosen]), y[chosen])
        loss.backward()
        optimizer.step()
        probe.close()
        if looked:
            history.append(
                dataclasses.replace(probe.snapshot(), recent_losses=tuple(losses), validation_loss=validation)
            )
            losses = []
        else:
            losses.append(loss.item())
    return history


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": 1e-3, "steps": 1000},
        {"learning_rate": 3e-3},
        {"hidden": 256},
        {"dropout": 0.5, "learning_rate": 3e-3},
    ],
    ids=["long", "fast", "wide", "dropout"],
)
def test_healthy_trainings_at_rest_stay_silent(name: str, options: dict[str, float]) -> None:
    history = train(name, **options)  # type: ignore[arg-type]
    assert history[-1].validation_loss < 0.3
    for looks in range(1, len(history) + 1):
        assert find_overfitting(history[:looks]) == []


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("examples", [40, 100])
def test_wrong_labels_learned_by_heart_are_found(name: str, examples: int) -> None:
    history = train(name, examples=examples, wrong=0.3, learning_rate=3e-3)
    (finding,) = find_overfitting(history)
    seen = [(snapshot.validation_loss, snapshot.step) for snapshot in history[1:]]
    assert (finding.evidence["its minimum"], finding.evidence["at step"]) == min(seen)
    assert finding.evidence["validation loss"] == seen[-1][0]
    assert finding.evidence["training loss"] < 0.1
    assert finding.layer is None
    assert finding.step == min(seen)[1]
    assert finding.severity == ("critical" if _hopeless(finding.evidence) else "warning")
    assert [remedy.action for remedy in finding.remedies][-1] == "bagging"
    assert finding in find(history)
    stored = [Snapshot.from_dict(snapshot.to_dict()) for snapshot in history]
    assert find_overfitting(stored) == [finding]


class Module(L.LightningModule):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor]) -> None:
        self.log("val_loss", F.cross_entropy(self.network(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 3e-3)


def test_a_doctor_in_a_trainer_finds_it(tmp_path: Path) -> None:
    x, y, x_val, y_val = data("wine")
    x, y = x[:40], torch.where(torch.rand(40) < 0.3, torch.randint(3, (40,)), y[:40])
    network = nn.Sequential(nn.Linear(13, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 3))
    loaders = DataLoader(TensorDataset(x, y), 20, shuffle=True), DataLoader(TensorDataset(x_val, y_val), 64)
    doctor = TrainingDoctor(every_n_steps=25)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        L.Trainer(
            accelerator="cpu",
            max_epochs=100,
            check_val_every_n_epoch=10,
            callbacks=[doctor],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        ).fit(Module(network), *loaders)
    (finding,) = [found for found in doctor.diagnosis.findings if found.problem == "overfitting"]
    assert finding.rank > 0


def _hopeless(evidence: object) -> bool:
    now, lowest = evidence["validation loss"], evidence["its minimum"]  # type: ignore[index]
    return now >= 3 * lowest or now > evidence["loss of a guess"]  # type: ignore[index]


def made_up(losses: Sequence[float], validation: Sequence[float], *, guess: float = 2.0) -> list[Snapshot]:
    known = (LossRecord("cross_entropy", "cross_entropy", value=losses[0], chance=guess),)
    pairs = enumerate(zip(losses, validation, strict=True))
    return [Snapshot(10 * k, loss, losses=known, validation_loss=value) for k, (loss, value) in pairs]


TRAIN = (2.0, 1.0, 0.5, 0.2, 0.1, 0.05)


def test_it_takes_three_validations_in_a_row() -> None:
    climbing = (math.nan, 1.0, 1.6, 1.7, 1.8, 1.9)
    found = [find_overfitting(made_up(TRAIN, climbing)[:looks]) for looks in range(1, 7)]
    assert [len(findings) for findings in found] == [0, 0, 0, 0, 1, 1]
    assert found[-1][0].step == 10
    assert found[-1][0].severity == "warning"
    assert find_overfitting(made_up(TRAIN, (math.nan, 1.0, 1.6, 1.7, 1.2, 1.9))) == []


def test_a_validation_that_is_seen_twice_counts_once() -> None:
    history = made_up(TRAIN, (math.nan, 1.0, 1.6, 1.6, 1.6, 1.6))
    assert validations(history) == [1, 2]
    assert find_overfitting(history) == []


def test_back_over_a_guess_or_three_times_its_minimum_is_critical() -> None:
    over = made_up(TRAIN, (math.nan, 1.5, 2.1, 2.2, 2.3, 2.4))
    assert find_overfitting(over)[0].severity == "critical"
    thrice = made_up(TRAIN, (math.nan, 0.4, 1.0, 1.1, 1.2, 1.3))
    assert find_overfitting(thrice)[0].severity == "critical"


def test_without_a_training_loss_that_falls_it_is_none() -> None:
    """The learning rate, or data of another kind, and not what was learned by heart."""
    climbing = (math.nan, 1.0, 1.6, 1.7, 1.8, 1.9)
    assert find_overfitting(made_up((2.0, 0.5, 0.6, 0.7, 0.9, 1.4), climbing)) == []
    assert find_overfitting(made_up((2.0, 0.5, 0.5, 0.5, 0.5, 0.5), climbing)) == []
    assert find_overfitting(made_up((2.0, 1.5, 1.4, 1.3, 1.2, 1.1), climbing)) == []


def test_a_training_that_diverged_is_none() -> None:
    """Its loss comes down from where it was thrown, and is still over that of a guess."""
    losses, climbing = (2.0, 1e9, 1e8, 1e6, 1e5, 1e4), (math.nan, 1e20, 1e25, 1e25, 2e25, 3e25)
    assert find_overfitting(made_up(losses, climbing)) == []
    assert find_overfitting(made_up(losses, climbing, guess=math.nan)) == []


def test_a_validation_that_never_fitted_is_another_matter() -> None:
    """Wrong labels, or data on another scale: far worse than a guess from the first time on."""
    assert find_overfitting(made_up((2.0, 1.6, 1.0, 0.3, 0.2, 0.1), (math.nan, 2.3, 6.0, 8.0, 9.0, 9.5))) == []
    fell = made_up((2.0, 1.6, 1.0, 0.3, 0.2, 0.1), (math.nan, 1.8, 6.0, 8.0, 9.0, 9.5))
    noise = made_up((2.0, 2.0, 1.0, 0.3, 0.2, 0.1), (2.0, 2.05, 4.0, 6.0, 8.0, 9.0))
    assert [finding.severity for history in (fell, noise) for finding in find_overfitting(history)] == ["critical"] * 2


@pytest.mark.parametrize("learning_rate", [1e-3, 1e-2])
def test_classes_in_another_order_are_another_matter(learning_rate: float) -> None:
    history = train("digits", order=1, learning_rate=learning_rate)
    assert history[-1].validation_loss > 1.5 * history[1].validation_loss
    for looks in range(1, len(history) + 1):
        assert find_overfitting(history[:looks]) == []


def test_a_validation_loss_that_has_risen_as_much_before_may_come_back() -> None:
    up_and_down = (1.0, 2.0, 0.7, 1.3, 1.2, 1.4)
    assert find_overfitting(made_up((1.9, 1.0, 0.5, 0.2, 0.1, 0.05), up_and_down)) == []
    assert find_overfitting(made_up((1.9, 1.0, 0.5, 0.2, 0.1, 0.05), (2.0, 1.0, 0.7, 1.3, 1.2, 1.4))) != []


def test_remedies_are_for_this_network() -> None:
    history = made_up(TRAIN, (math.nan, 1.0, 1.6, 1.7, 1.8, 1.9))
    layers = ("linear", 32), ("linear", 256), ("linear", 10)
    weighted = tuple(WeightedRecord(f"net.{k}", kind, k, units=units) for k, (kind, units) in enumerate(layers))
    dense = [dataclasses.replace(snapshot, weighted=weighted) for snapshot in history]
    texts = {remedy.action: remedy.text for remedy in find_overfitting(dense)[0].remedies}
    assert "net.1" in texts["dropout"]
    assert "step 10" in texts["early_stopping"]
    assert "crops" not in texts["augment"]
    images = (dataclasses.replace(weighted[0], operation="conv2d"), *weighted[1:])
    found = find_overfitting([dataclasses.replace(snapshot, weighted=images) for snapshot in history])
    assert "crops" in found[0].remedies[0].text


def test_a_rise_that_costs_nothing_is_none() -> None:
    assert find_overfitting(made_up(tuple(0.01 * loss for loss in TRAIN), (math.nan, 0.02, 0.1, 0.1, 0.11, 0.12))) == []


def test_histories_without_numbers_are_no_finding() -> None:
    assert find_overfitting([Snapshot()]) == []
    assert find_overfitting(made_up(TRAIN, [math.nan] * 6)) == []
    assert find_overfitting(made_up([math.nan] * 6, (math.nan, 1.0, 1.6, 1.7, 1.8, 1.9))) == []
    assert find_overfitting(made_up(TRAIN, (math.nan, 1.0, math.inf, math.nan, 1.1, 1.0))) == []
    unknown = made_up(TRAIN, (math.nan, 1.0, 1.6, 1.7, 1.8, 1.9), guess=math.nan)
    assert find_overfitting(unknown)[0].severity == "warning"
