"""A feature that is the target stands out; a strong feature, a threshold and the last lag do not."""

from __future__ import annotations

import importlib

import pytest
import torch

from lightning_tricks.experiments import leaking_features

module = importlib.import_module("lightning_tricks.experiments.data.leaking_features")
G = torch.Generator().manual_seed(0)
X = torch.randn(600, 6, generator=G)
Y = torch.arange(600) % 4


def alarms(x, y):
    return list(module.judged(leaking_features((x, y))))


@pytest.mark.parametrize("wrong", [0.0, 0.05, 0.2])
@pytest.mark.parametrize(
    "code", [lambda y: y.float(), lambda y: -3.0 * y + 100, lambda y: torch.tensor([5.0, 1, 9, 2])[y]]
)
def test_the_label_in_a_column(wrong, code):
    given = torch.where(torch.rand(600, generator=G) < wrong, torch.randint(4, (600,), generator=G), Y)
    x = X.clone()
    x[:, 3] = code(given)
    (finding,) = alarms(x, Y)
    assert finding.problem == "target_leak"
    assert finding.evidence["feature"] == "0[:, 3]"


def test_a_mark_of_several_pixels():
    images = torch.rand(600, 1, 12, 12, generator=G)
    images[:, 0, 1:3, 1:3] = Y[:, None, None] / 3
    (finding,) = alarms(images, Y)
    assert finding.evidence["feature"] == "0[:, 0, 1, 1]"


def test_a_token_at_one_position():
    tokens = torch.randint(50, (600, 12), generator=G)
    tokens[:, 0] = 100 + Y
    assert "0[:, 0]" in alarms(tokens, Y)[0].explanation


def test_a_column_of_a_table_in_a_dict():
    table = {"age": X[:, 0], "rest": X[:, 1:].clone()}
    assert not alarms(table, Y)
    table["rest"][:, 2] = 10.0 - Y
    (finding,) = alarms(table, Y)
    assert "rest" in finding.evidence["feature"]
    assert finding.evidence["feature"].endswith("[:, 2]")


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_numbers_that_are_in_a_column(noise):
    y = X @ torch.ones(6, 1) + torch.randn(600, 1, generator=G)
    x = torch.cat([X, 7 * y + 7 * noise * torch.randn(600, 1, generator=G)], 1)
    assert alarms(x, y)[0].evidence["feature"] == "0[:, 6]"
    assert not alarms(X, y)


@pytest.mark.parametrize(
    "label",
    [
        lambda x: (x[:, 0] > 0).long(),
        lambda x: torch.bucketize(x[:, 0].contiguous(), torch.tensor([-0.7, 0.0, 0.7])),
        lambda x: x.argmax(1),
        lambda x: (x[:, 0] * x[:, 1] > 0).long(),
    ],
    ids=["threshold", "quartiles", "argmax", "xor"],
)
def test_what_is_to_be_learned_is_no_leak(label):
    assert not alarms(X, label(X))


def strong(wrong):
    """Features that tell a class and hang together by what is hidden; one is made of both, or of the label."""
    hidden, y = torch.randn(800, generator=G), torch.arange(800) % 2
    x = torch.randn(800, 12, generator=G) * 0.4 + hidden[:, None] + 3.0 * y[:, None]
    flipped = torch.rand(800, generator=G) < 0.08 if wrong == "at random" else (hidden + 2 * y - 1).sign() != 2 * y - 1
    flipped = flipped & ((hidden.abs() > 1.4) | torch.tensor(wrong == "at random"))
    x[:, 4] = (y ^ flipped.long()).float()
    return x, y, flipped


def test_a_code_that_is_wrong_beside_features_that_are_as_strong():
    x, y, flipped = strong("at random")
    assert 0.05 < flipped.float().mean() < 0.12
    found = leaking_features((x, y))
    assert found.place == "0[:, 4]"
    assert found.numbers["next_open"] < 1.5 * found.numbers["open"]
    (finding,) = module.judged(found)
    assert "no other feature is odd" in finding.explanation


def test_a_code_of_nature_is_no_leak():
    x, y, flipped = strong("by what is hidden")
    assert 0.05 < flipped.float().mean() < 0.12
    found = leaking_features((x, y)).numbers
    assert found["code_open"] < module.LIMITS.written
    assert not alarms(x, y)


def test_votes_of_which_one_is_strong():
    party = torch.rand(600, generator=G) < 0.5
    right = torch.rand(600, 10, generator=G) < torch.linspace(0.6, 0.95, 10)
    assert not alarms((party[:, None] == right).float(), party.long())


@pytest.mark.parametrize("series", ["walk", "sine"])
def test_the_last_lag_of_a_series(series):
    time = torch.arange(700) * 0.05
    values = torch.randn(700, generator=G).cumsum(0) if series == "walk" else time.sin()
    x = values.unfold(0, 16, 1)
    assert not alarms(x[:-1], values[16:, None])


@pytest.mark.parametrize("y", [torch.rand(600, 3), torch.rand(600, 6, 6)], ids=["several", "a mask"])
def test_other_targets_are_not_judged(y):
    assert not leaking_features((X, y)).conclusive


def test_patterns_that_are_there_several_times():
    y = X @ torch.ones(6, 1) + torch.randn(600, 1, generator=G)
    assert not alarms(X.repeat(20, 1), y.repeat(20, 1))


def test_only_the_first_entry_of_many_is_an_input():
    y = torch.rand(600, generator=G)
    found = leaking_features([(X, X[:, 0], 2 * y + 1, y)])
    assert found.numbers["features"] == 6
    assert not list(module.judged(found))
