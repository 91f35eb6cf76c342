"""Validations of other data than the training's are named; those that only look other are not."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt
from lightning_tricks.diagnosis import find
from lightning_tricks.diagnosis.coverage import coverage
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.diagnosis.rules.validation_mismatch import _by_chance, find_validation_mismatch
from lightning_tricks.probes import ChannelMoments, LossRecord, NormalizationRecord, Snapshot, ValidationRecord
from tests.callbacks.trainings import Classifier, fit

# --- through a Trainer --------------------------------------------------------------------------------------------


class Validated(Classifier):
    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))


def trained(x: Tensor, y: Tensor, x_val: Tensor, y_val: Tensor, epochs: int = 3) -> lt.Diagnosis:
    torch.manual_seed(0)
    doctor = lt.TrainingDoctor(every_n_steps=10, on_problem="log", report=False)
    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    train, validation = TensorDataset(x, y), TensorDataset(x_val, y_val)
    loaders = DataLoader(train, 32, shuffle=True), DataLoader(validation, 128)
    fit(Validated(network), [doctor], loaders[0], validation=loaders[1], max_epochs=epochs)
    return doctor.diagnosis


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, ...]:
    data = load_digits()
    x, y = torch.tensor((data.data - 4.88) / 6.02, dtype=torch.float32), torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    x, y = x[order][:800], y[order][:800]
    return x[:600], y[:600], x[600:], y[600:]


def test_a_good_training_is_healthy(digits: tuple[Tensor, ...]) -> None:
    diagnosis = trained(*digits)
    assert any(snapshot.validation is not None for snapshot in diagnosis.history)
    assert diagnosis.findings == []
    # In the order of the classes, every batch is unlike the whole; the validation is not.
    x, y, x_val, y_val = digits
    order = y_val.argsort()
    assert trained(x, y, x_val[order], y_val[order]).findings == []


def test_data_left_raw(digits: tuple[Tensor, ...]) -> None:
    x, y, x_val, y_val = digits
    diagnosis = trained(x, y, 6.02 * x_val + 4.88, y_val)
    (found,) = diagnosis.findings
    assert (found.problem, found.layer, found.severity) == ("validation_mismatch", "net.0", "warning")
    assert found.evidence["mean in validation"] == pytest.approx(4.88, abs=0.2)
    scale, line = found.evidence["standard deviation in validation"], found.remedies[0].text.partition("x = (x - ")[2]
    assert scale == pytest.approx(6.02, abs=0.2)
    assert [float(number) for number in line.rstrip(")").split(") / ")] == pytest.approx([4.88, 6.02], rel=0.05)


def test_classes_numbered_otherwise(digits: tuple[Tensor, ...]) -> None:
    x, y, x_val, y_val = digits
    diagnosis = trained(x, y, x_val, (y_val + 1) % 10, epochs=6)
    assert diagnosis.findings[0].problem == "validation_mismatch"
    assert diagnosis.findings[0].severity == "critical"
    assert "class_to_idx" in diagnosis.findings[0].remedies[0].text


def test_data_split_without_shuffling(digits: tuple[Tensor, ...]) -> None:
    x, y = torch.cat(digits[::2]), torch.cat(digits[1::2])
    order = y.argsort()
    last, first = order[:260], order[260:]  # the validation has the first three classes and a little of the fourth
    (found,) = trained(x[first], y[first], x[last], y[last]).findings
    assert found.problem == "validation_mismatch"
    assert "stratify" in found.remedies[0].text
    assert "0" in found.evidence["classes seen in validation only"].split(", ")


# --- the input ----------------------------------------------------------------------------------------------------


def of_input(train: ChannelMoments, validation: ChannelMoments, looks: int = 5) -> list[Finding]:
    record = ValidationRecord("net.0", tuple(range(len(train.mean))), looks, train, validation)
    return list(find_validation_mismatch([Snapshot(0), Snapshot(8, validation=record), Snapshot(16)]))


def moments(mean: float, std: float, channels: int = 3, patterns: int = 1000) -> ChannelMoments:
    return ChannelMoments(patterns, (mean,) * channels, (std,) * channels)


@pytest.mark.parametrize(
    ("train", "validation", "line"),
    [
        ((-0.06, 0.5), (0.47, 0.25), "x = (x - 0.5) / 0.5"),  # [-1, 1] and [0, 1]
        ((0.47, 0.25), (120.0, 63.75), "x = x / 255, as ToTensor()"),
        ((120.0, 63.75), (0.47, 0.25), "no division by 255"),
        ((0.0, 1.0), (0.0, 5.0), "x = x / 5"),
        ((0.0, 1.0), (-2.0, 1.0), "x = (x + 2) / 1"),
    ],
)
def test_other_scales(train: tuple[float, float], validation: tuple[float, float], line: str) -> None:
    (found,) = of_input(moments(*train), moments(*validation))
    assert (found.severity, found.step, found.layer) == ("warning", 8, "net.0")
    assert line in found.remedies[0].text
    assert all(criterion.holds for criterion in found.decided_by)


def test_near_enough_or_too_little_known() -> None:
    near = moments(0.5, 1.5)  # of training with dropout on its inputs, mixed or cropped images
    assert of_input(moments(0.0, 1.0), near) == []
    far = moments(9.0, 9.0)
    assert of_input(moments(0.0, 1.0), far)
    assert of_input(moments(0.0, 1.0), far, looks=2) == []
    assert of_input(moments(0.0, 1.0, patterns=15), far) == []
    assert of_input(moments(0.0, 1.0), moments(9.0, 9.0, patterns=15)) == []
    assert of_input(ChannelMoments(), ChannelMoments()) == []
    assert of_input(moments(math.nan, math.nan), far) == []


def test_most_channels_or_few() -> None:
    """Features of one scale that is large hide the others from the whole."""
    std = np.array([1000.0, *[1.0] * 9])
    train = ChannelMoments(500, (0.0,) * 10, tuple(std))
    (found,) = of_input(train, ChannelMoments(500, (0.0,) + (4.0,) * 9, tuple(std)))
    assert found.evidence["channels that are off"] == "9 of 10"
    assert found.evidence["the worst channel"] in range(1, 10)
    assert of_input(train, ChannelMoments(500, (0.0,) * 5 + (4.0,) * 5, tuple(std))) == []
    # those that vary in one of both only say nothing
    still = dataclasses.replace(train, std=(1000.0,) + (0.0,) * 9)
    assert of_input(still, ChannelMoments(500, (0.0,) + (4.0,) * 9, tuple(std))) == []


# --- the classes --------------------------------------------------------------------------------------------------


def of_classes(looks: np.ndarray, validation: np.ndarray, epochs: float = 3.0, **known: bool) -> list[Finding]:
    record = ValidationRecord(class_counts=tuple(validation.tolist()), looks=len(looks), **known)
    losses = [(LossRecord("cross_entropy", class_counts=tuple(counts.tolist())),) for counts in looks]
    at = np.linspace(0.0, epochs, len(looks))
    history = [Snapshot(8 * i, losses=each, epoch=at[i]) for i, each in enumerate(losses)]
    history[len(history) // 2] = dataclasses.replace(history[len(history) // 2], validation=record)
    return list(find_validation_mismatch(history))


@pytest.mark.parametrize("classes", [2, 10, 37, 100])
@pytest.mark.parametrize("kind", ["drawn", "few a batch", "sorted"])
def test_the_same_shares_are_the_same(classes: int, kind: str) -> None:
    rng = np.random.default_rng(classes)
    for _ in range(10):
        shares = rng.dirichlet(np.full(classes, 2.0))
        if kind == "drawn":
            looks = rng.multinomial(32, shares, 12)
        elif kind == "few a batch":
            looks = 8 * rng.multinomial(4, shares, 12)
        else:
            looks = 32 * rng.multinomial(1, shares, 12)
        assert of_classes(looks, rng.multinomial(500, shares)) == []


def test_other_shares() -> None:
    rng = np.random.default_rng(0)
    train, other = np.full(10, 0.1), np.array([0.0] * 5 + [0.2] * 5)
    looks, validation = rng.multinomial(32, train, 12), rng.multinomial(500, other)
    (found,) = of_classes(looks, validation)
    assert (found.severity, found.layer) == ("warning", None)
    assert found.evidence["total variation"] == pytest.approx(0.5, abs=0.1)
    assert of_classes(looks, validation, resampled=True) == []
    assert of_classes(looks, validation, whole=False) == []
    assert of_classes(looks, validation, epochs=0.9) == []
    assert of_classes(looks[:2], validation) == []
    assert of_classes(np.zeros((5, 10), int), validation) == []


def test_disjoint_classes_are_information() -> None:
    looks, validation = np.zeros((12, 10), int), np.zeros(10, int)
    looks[:, :5], validation[5:] = 6, 40
    (found,) = of_classes(looks, validation)
    assert found.severity == "info"
    assert found.evidence["classes seen in validation only"] == "5, 6, 7, 8, 9"


def test_a_set_that_was_balanced_is_information() -> None:
    """A test set of as many patterns of each class, or a training set made so; a cut leaves classes out."""
    rng = np.random.default_rng(0)
    long_tailed = np.array([60, 20, 10, 5, 5]) / 100
    for train, validation in ((long_tailed, np.full(5, 0.2)), (np.full(5, 0.2), long_tailed)):
        (found,) = of_classes(rng.multinomial(64, train, 12), (300 * validation).astype(int))
        assert found.severity == "info"
    (found,) = of_classes(rng.multinomial(64, np.full(5, 0.2), 12), np.array([150, 150, 0, 0, 0]))
    assert found.severity == "warning"


@pytest.mark.parametrize(("classes", "batch", "size"), [(5, 16, 60), (10, 32, 360), (50, 64, 2000)])
def test_chance_against_draws(classes: int, batch: int, size: int) -> None:
    rng = np.random.default_rng(classes)
    shares = rng.dirichlet(np.full(classes, 3.0))
    distances, points = [], []
    for _ in range(1000):
        looks, validation = rng.multinomial(batch, shares, 8), rng.multinomial(size, shares)
        distances.append(np.abs(looks.sum(0) / looks.sum() - validation / size).sum() / 2)
        points.append(_by_chance(looks.astype(float), validation.astype(float)))
    assert np.mean(points) == pytest.approx(np.quantile(distances, 0.99), rel=0.15)


# --- the loss -----------------------------------------------------------------------------------------------------


def of_loss(train: list[float], validation: list[float], guess: float = 2.0, **known: float) -> list[Snapshot]:
    """A look a validation, of an epoch each."""
    record = LossRecord("cross_entropy", "cross_entropy", patterns=32, chance=guess, target_min=0.0, target_max=9.0)
    first = known.get("first", 0.9)
    return [
        Snapshot(
            100 * i,
            loss * guess,
            losses=(dataclasses.replace(record, value=loss * guess),),
            recent_losses=(loss * guess,) * 12,
            validation_loss=validation[i] * guess,
            epoch=first + i,
        )
        for i, loss in enumerate(train)
    ]


FALLING = [0.9, 0.6, 0.3, 0.1, 0.05]


@pytest.mark.parametrize("train", [FALLING, [0.6, 0.3, 0.1, 0.05, 0.04]])
def test_a_loss_over_that_of_a_guess_from_the_start(train: list[float]) -> None:
    """Also where the first validation comes late and is but a little over."""
    (found,) = find_validation_mismatch(of_loss(train, [1.1, 1.8, 2.5, 4.0, 5.0]))
    assert (found.severity, found.step) == ("critical", 0)
    assert all(criterion.holds for criterion in found.decided_by)
    assert found.evidence["validation loss"] == pytest.approx(10.0)


def test_validations_before_anything_was_learned_say_nothing() -> None:
    history = of_loss([1.0, *FALLING], [1.1, 1.8, 2.5, 4.0, 5.0, 6.0])
    within = [dataclasses.replace(snapshot, epoch=snapshot.step / 1000) for snapshot in history]
    (found,) = find_validation_mismatch(within)
    assert found.severity == "critical"
    assert [each.problem for each in find(within) if each.rank] == ["validation_mismatch"]


@pytest.mark.parametrize(
    "validation",
    [
        [1.0, 1.0, 1.6, 2.5, 4.0],  # noise that is learned by heart: overfitting
        [0.8, 0.7, 0.9, 1.6, 2.5],
        [90.0, 60.0, 30.0, 10.0, 5.0],  # a sum over patterns
        [1.2, 1.8, 0.6, 0.3, 0.2],  # large steps at first, or batch norms that had to follow
        [1.1, 1.15, 1.1, 1.15, 1.1],
    ],
)
def test_losses_of_other_kinds(validation: list[float]) -> None:
    history = of_loss(FALLING, validation)
    for looks in range(1, len(history) + 1):
        assert list(find_validation_mismatch(history[:looks])) == []


def test_too_little_known_of_the_loss() -> None:
    sick = [1.2, 1.8, 2.5, 4.0, 5.0]
    assert list(find_validation_mismatch(of_loss(FALLING[:2], sick))) == []
    assert list(find_validation_mismatch(of_loss(FALLING, sick, first=4.0))) == []  # patterns that came more than once
    assert list(find_validation_mismatch(of_loss(FALLING, sick, guess=math.nan))) == []
    assert list(find_validation_mismatch(of_loss([1.0] * 5, sick))) == []


def test_what_batch_norms_are_to_blame_for() -> None:
    slow = NormalizationRecord("bn", 1, 8, 32, 32, True, 1e-4, log_variance_gap=2.0, variance_ratio=0.1)
    history = [dataclasses.replace(s, normalizations=(slow,)) for s in of_loss(FALLING, [1.2, 1.8, 2.5, 4.0, 5.0])]
    problems = [finding.problem for finding in find(history)]
    assert "batch_norm_mismatch" in problems
    assert "validation_mismatch" not in problems


def test_overfitting_follows_from_it() -> None:
    """A validation of raw data whose loss rises: the network is sure of answers to inputs that it does not know."""
    history = of_loss([0.9, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01], [0.9, 0.8, 1.5, 1.6, 1.7, 1.8, 2.0])
    assert [finding.problem for finding in find(history) if finding.rank] == ["overfitting"]
    record = ValidationRecord("net.0", (0,), 5, moments(0.0, 1.0, 1), moments(5.0, 6.0, 1))
    history[0] = dataclasses.replace(history[0], validation=record)
    (found,) = [finding for finding in find(history) if finding.rank]
    assert (found.problem, [each.problem for each in found.consequences]) == ("validation_mismatch", ["overfitting"])


def test_through_json() -> None:
    record = ValidationRecord("net.0", (0, 2), 4, moments(0.0, math.nan, 2), moments(1.0, 2.0, 2), (3, 4), False, True)
    stored = Snapshot(3, validation=record).to_dict()
    back = Snapshot.from_dict(stored).validation
    assert back is not None
    assert math.isnan(back.training.std[0])
    known = dataclasses.replace(record, training=ChannelMoments())
    assert dataclasses.replace(back, training=ChannelMoments()) == known
    stored["validation"]["of a later version"] = 1
    assert Snapshot.from_dict(stored).validation is not None
    del stored["validation"]
    assert Snapshot.from_dict(stored).validation is None


def test_a_training_without_validation_is_judged_as_before() -> None:
    seen = coverage([Snapshot(0, 1.0)], {"validation_mismatch": find_validation_mismatch.needs})
    assert seen.not_judged == ()
    assert list(find_validation_mismatch([Snapshot(step, 1.0) for step in range(5)])) == []
