"""One class for every input and weights the wrong way round are named; what is rare by right or weighed is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.diagnosis import find
from lightning_tricks.diagnosis.finding import Finding
from lightning_tricks.diagnosis.rules.class_imbalance import find_class_imbalance
from lightning_tricks.diagnosis.rules.overfitting import find_overfitting
from lightning_tricks.diagnosis.rules.validation_mismatch import find_validation_mismatch
from lightning_tricks.probes import Probe, Snapshot, ValidationRecord

Loss = Callable[[Tensor, Tensor], Tensor]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def fit(loss: Loss, y: Tensor, *, signal: float = 0.0, steps: int = 121, rate: float = 0.3) -> list[Snapshot]:
    """A layer and its bias on 1000 patterns that tell as much of their class; 16 steps are an epoch."""
    outputs = 1 if y.is_floating_point() else int(y.max()) + 1
    x = torch.randn(len(y), 8)
    x[:, 0] += signal * y.flatten()
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, outputs))
    stepper = torch.optim.SGD(net.parameters(), rate)
    history = []
    for step in range(steps):
        chosen = torch.randint(len(y), (64,))
        probe = Probe(net, stepper, step=step)
        if step < 3 or step % 20 == 0:
            probe.open()
        stepper.zero_grad()
        loss(net(x[chosen]), y[chosen]).backward()
        stepper.step()
        probe.close()
        if step < 3 or step % 20 == 0:
            history.append(replace(probe.snapshot(), epoch=step / 16))
    return history


def labels(*shares: float) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(shares)), torch.tensor([round(1000 * each) for each in shares]))


def binary(share: float) -> Tensor:
    return labels(1.0 - share, share).float()[:, None]


def only(found: Sequence[Finding]) -> Finding:
    (finding,) = found
    return finding


def weighted(*weights: float) -> Loss:
    return lambda out, y: F.cross_entropy(out, y, weight=torch.tensor(weights))


@pytest.mark.parametrize(
    ("loss", "y", "line"),
    [
        (F.cross_entropy, labels(0.9, 0.06, 0.04), "weight=torch.tensor(["),
        (F.cross_entropy, labels(0.9, *[0.01] * 10), "y.bincount()"),
        (F.binary_cross_entropy_with_logits, binary(0.1), "pos_weight=torch.tensor("),
        (lambda out, y: F.binary_cross_entropy(out.sigmoid(), y), binary(0.1), "pos_weight=torch.tensor("),
    ],
    ids=["classes", "many classes", "logits", "probabilities"],
)
def test_the_frequent_class_for_every_input_is_named_with_the_weights(loss: Loss, y: Tensor, line: str) -> None:
    finding = only(find_class_imbalance(fit(loss, y, rate=0.03)))
    assert finding.severity == "warning"
    assert line in finding.remedies[0].text
    assert finding.evidence["of them answered rightly"] == 0
    assert {each.action for each in finding.remedies} >= {"class_weights", "initialize_bias", "change_metric"}
    bias = next(each.text for each in finding.remedies if each.action == "initialize_bias")
    assert ("nn.init.constant_(model[2].bias, -2." in bias) is ("pos_weight" in line)


def test_it_is_no_network_that_tells_the_rare_class() -> None:
    assert find_class_imbalance(fit(F.binary_cross_entropy_with_logits, binary(0.1), signal=6.0)) == []


def test_a_loss_that_is_under_that_of_the_answer_is_no_fault() -> None:
    """The rare class is never answered, and there is more to be said of it all the same."""
    history = fit(F.binary_cross_entropy_with_logits, binary(0.03), signal=1.5, steps=401, rate=1.0)
    assert not any(finding.rank for finding in find_class_imbalance(history))


@pytest.mark.parametrize(
    ("loss", "y"),
    [(F.cross_entropy, labels(0.5, 0.5)), (weighted(0.1, 0.9), labels(0.9, 0.1))],
    ids=["even", "weighed"],
)
def test_classes_that_count_alike_are_no_imbalance(loss: Loss, y: Tensor) -> None:
    assert find_class_imbalance(fit(loss, y)) == []


def test_it_is_early_to_tell() -> None:
    history = fit(F.binary_cross_entropy_with_logits, binary(0.1), rate=0.03)
    assert find_class_imbalance(history[:-2]) == []
    assert find_class_imbalance([replace(each, epoch=each.step / 100) for each in history]) == []
    warming = [replace(each, learning_rate=1e-4 * each.step) for each in history]
    assert find_class_imbalance(warming) == []


def test_an_output_that_is_the_same_for_all_is_another_fault() -> None:
    history = [
        replace(each, losses=tuple(replace(record, input_variation=0.0) for record in each.losses))
        for each in fit(F.binary_cross_entropy_with_logits, binary(0.1), rate=0.03)
    ]
    assert find_class_imbalance(history) == []


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        (weighted(0.9, 0.1), labels(0.9, 0.1)),
        (weighted(2.0, 1.0, 0.2), labels(0.7, 0.2, 0.1)),
        (lambda out, y: F.binary_cross_entropy_with_logits(out, y, pos_weight=torch.tensor(0.1)), binary(0.1)),
        (lambda out, y: F.binary_cross_entropy_with_logits(out, y, weight=0.1 + 0.9 * (1 - y)), binary(0.1)),
    ],
    ids=["two", "three", "pos_weight", "weight"],
)
def test_weights_that_push_the_frequent_class_are_named_at_once(loss: Loss, y: Tensor) -> None:
    history = fit(loss, y, signal=3.0, steps=8, rate=0.1)
    looks = [replace(each, step=step) for step, each in enumerate([*history, *history, *history])]
    finding = only(find_class_imbalance(looks))
    assert finding.severity == "warning"
    assert next(each for each in find(looks) if each.rank).problem == "class_imbalance"


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        (weighted(0.1, 0.9), labels(0.9, 0.1)),
        (weighted(1.0, 1.2, 1.0), labels(0.7, 0.2, 0.1)),
        (weighted(1.0, 0.0), labels(0.9, 0.1)),
        (weighted(9.0, 1.0), labels(0.5, 0.5)),
    ],
    ids=["inverse", "alike", "left out", "even classes"],
)
def test_other_weights_are_none(loss: Loss, y: Tensor) -> None:
    assert find_class_imbalance(fit(loss, y, signal=3.0)) == []


def test_an_old_record_says_nothing() -> None:
    history = [
        replace(each, losses=tuple(replace(r, smoothing=float("nan")) for r in each.losses))
        for each in fit(F.binary_cross_entropy_with_logits, binary(0.1), rate=0.03)
    ]
    assert find_class_imbalance(history) == []


def validated(history: Sequence[Snapshot], losses: Sequence[float], counts: tuple[int, ...]) -> list[Snapshot]:
    """The same with validations of that mixture at the last looks."""
    record, first = ValidationRecord(looks=3, class_counts=counts), len(history) - len(losses)
    return [
        replace(s, validation_loss=losses[i - first], validation=record if i == first else None) if i >= first else s
        for i, s in enumerate(history)
    ]


@pytest.fixture(scope="module")
def rare() -> list[Snapshot]:
    """A training with 2 % of one class that learns some of it."""
    torch.manual_seed(0)
    return fit(F.cross_entropy, labels(0.98, 0.02), signal=4.0)


def test_even_validation_at_a_guess_shows_that_only_the_shares_are_learned(rare: list[Snapshot]) -> None:
    found = only(list(find_class_imbalance(validated(rare, [1.2, 1.5, 1.6, 1.7], (500, 500)))))
    assert found.severity == "warning"
    assert (found.evidence["frequent class"], found.evidence["its share on validation"]) == (0, 0.5)
    assert found.evidence["loss of a guess there"] == pytest.approx(math.log(2.0))


@pytest.mark.parametrize(
    ("losses", "counts"),
    [
        ([0.8, 0.7, 0.6, 0.5], (500, 500)),
        ([0.3, 0.25, 0.2, 0.2], (980, 20)),
        ([1.2, 1.5, 1.6, 1.7], ()),
        ([1.2, 1.5], (500, 500)),
    ],
    ids=["better than a guess there", "of the same shares", "nothing known of the classes", "two validations"],
)
def test_validation_that_shows_no_imbalance(rare: list[Snapshot], losses: list[float], counts: tuple[int, ...]) -> None:
    assert not [found for found in find_class_imbalance(validated(rare, losses, counts)) if found.rank]


def test_other_shares_on_validation_are_no_overfitting_and_no_other_labels(rare: list[Snapshot]) -> None:
    sick = validated([replace(s, epoch=1.0) for s in rare], [0.6, 1.2, 1.5, 1.6, 1.7], (500, 500))
    assert not [f for f in (*find_overfitting(sick), *find_validation_mismatch(sick)) if f.rank]
    alike = validated([replace(s, epoch=1.0) for s in rare], [0.6, 1.2, 1.5, 1.6, 1.7], (980, 20))
    assert [f for f in (*find_overfitting(alike), *find_validation_mismatch(alike)) if f.rank]
