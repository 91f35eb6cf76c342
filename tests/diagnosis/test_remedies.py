"""Remedies are given where what they are for was measured."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_tricks.diagnosis import Finding, find
from lightning_tricks.diagnosis.remedies import of_a_start, self_normalize, standardize
from lightning_tricks.probes import Snapshot
from lightning_tricks.surgery import self_normalize as self_normalized

from .sick import SICK
from .trainings import deep, digits, sgd, train


def looked(network: nn.Module, mean: float = 0.0, std: float = 1.0) -> Snapshot:
    torch.manual_seed(0)
    x, y = torch.randn(256, 64) * std + mean, digits()[1][:256]
    return train(network, steps=1, batches=[(x, y)])[0]


@pytest.mark.parametrize(
    ("mean", "std", "given"), [(0.0, 1.0, False), (0.2, 0.8, False), (3.0, 1.0, True), (0, 9, True)]
)
def test_an_input_is_normalised_unless_it_is(mean: float, std: float, given: bool) -> None:
    assert bool(standardize(looked(deep(nn.ReLU, 2), mean, std))) == given


def test_what_is_embedded_is_not_normalised() -> None:
    network = nn.Sequential(nn.Embedding(64, 8), nn.Flatten(), nn.Linear(64, 10))
    x, y = torch.randint(64, (64, 8)), digits()[1][:64]
    assert standardize(train(network, steps=1, batches=[(x, y)])[0]) == ()


def test_a_faint_start_of_normalised_data_is_not_sent_to_a_normalisation_of_the_data() -> None:
    (finding,) = (f for f in find(SICK["faint"].history()) if f.rank)
    assert "standardize_input" not in [remedy.action for remedy in finding.remedies]


@pytest.mark.parametrize("units", [nn.ReLU, nn.Tanh, nn.Sigmoid])
def test_the_line_that_makes_units_self_normalising_works_for_these_units(units: type[nn.Module]) -> None:
    name = units.__name__.lower()
    (remedy,) = self_normalize(name)
    assert ("old=" in remedy.text) == (units is not nn.ReLU)
    changed = self_normalized(deep(units, 1), **({} if units is nn.ReLU else {"old": name}))
    assert isinstance(changed[1], nn.SELU)
    assert self_normalize("selu") == ()


def test_a_batch_norm_that_is_there_is_not_asked_for() -> None:
    with_norm, without = looked(deep(nn.Tanh, 2, norm=nn.BatchNorm1d)), looked(deep(nn.Tanh, 2))
    actions = [[remedy.action for remedy in of_a_start(snapshot, "tanh", "0")] for snapshot in (with_norm, without)]
    assert actions == [["initialize", "swap_activation"], ["initialize", "insert_batch_norm", "swap_activation"]]


def sick(network: nn.Module, problem: str) -> Finding:
    torch.manual_seed(0)
    return next(f for f in find(train(network, steps=40, optimizer=sgd(0.01))) if f.problem == problem)


def test_layers_in_a_row_want_an_activation_between_them() -> None:
    finding = sick(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)), "linearity")
    assert [remedy.action for remedy in finding.remedies] == ["insert_activation"]
    assert finding.remedies[0].text == "put an activation between 0 and 1, such as nn.ReLU()"


@pytest.mark.parametrize("name", ["weights too small", "no activation", "weights too large", "deep", "shifted"])
def test_no_word_of_relu_networks_where_there_are_none(name: str) -> None:
    history = SICK[name].history()
    assert "relu" not in {record.function for record in history[-1].activations}
    for top in find(history):
        for finding in (top, *top.consequences):
            assert not any("ReLU networks" in r.text or "self_normalize(model)" in r.text for r in finding.remedies)


def test_weights_that_begin_equal_are_named() -> None:
    network = deep(nn.ReLU, 3)
    nn.init.constant_(network[2].weight, 0.1)
    assert sick(network, "symmetric_weights").remedies[0].text.endswith("lt.init.lecun_normal_(2.weight)")


def test_zero_mean_units_in_front_of_a_layer_need_no_others() -> None:
    (shifted,) = (f for f in find(SICK["shifted"].history()) if f.problem == "bias_shift")
    assert [remedy.action for remedy in shifted.remedies] == [
        "centre_input",
        "insert_batch_norm",
        "lower_learning_rate",
    ]
