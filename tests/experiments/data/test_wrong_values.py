"""Targets of other patterns are found and counted; noise of any tail, skew and size is none."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from lightning_tricks.experiments import wrong_values

module = importlib.import_module("lightning_tricks.experiments.data.wrong_values")
G = torch.Generator().manual_seed(0)
X = torch.randn(700, 5, generator=G)
CLEAN = (X[:, 0] * 2).sin() + X[:, 1:].sum(1)
NORMAL = torch.randn(700, generator=G)
CAUCHY = NORMAL / torch.randn(700, generator=G)


def alarms(y, x=X):
    found = wrong_values((x, y))
    return found.conclusive and list(module.judged(found))


def mixed(y, share):
    which = torch.randperm(len(y), generator=G)[: int(share * len(y))]
    y = y.clone()
    y[which] = y[which.roll(1)]
    return y, set(which.tolist())


@pytest.mark.parametrize("share", [0.05, 0.2])
@pytest.mark.parametrize("noise", [0.3 * NORMAL, 0.05 * CAUCHY], ids=["normal", "heavy"])
def test_targets_of_other_patterns(share, noise):
    y, which = mixed(CLEAN + noise, share)
    found = wrong_values((X, y[:, None]))
    assert abs(found.numbers["share"] - share) < share / 3
    assert found.numbers["low"] <= share <= found.numbers["high"]
    (finding,) = module.judged(found)
    assert finding.problem == "target_mismatch"
    assert len({each.index for each in found.examples[:12]} & which) >= 10


def test_prices_in_another_currency_and_a_sign_that_is_lost():
    y = CLEAN.exp() * (0.1 * NORMAL).exp()
    y[:50] *= 1000
    assert alarms(y)
    y = CLEAN + 0.2 * NORMAL
    y[:50] *= -1
    assert alarms(y)


@pytest.mark.parametrize(
    "y",
    [
        CLEAN + 0.3 * NORMAL,
        CLEAN + 2.0 * NORMAL,
        CLEAN + 0.1 * CAUCHY,
        CLEAN + 0.5 * CAUCHY,
        CLEAN + 0.2 * (1.5 * NORMAL).exp(),
        CLEAN + 0.3 * NORMAL * X[:, 0].exp(),
        CLEAN.exp() * (0.5 * NORMAL).exp(),
        (CLEAN + 0.3 * NORMAL).clamp(-1.5, 1.5),
        torch.where(torch.arange(700) % 10 == 0, CLEAN + 3 * NORMAL, CLEAN + 0.2 * NORMAL),
        NORMAL,
        CAUCHY,
    ],
    ids=[
        "normal",
        "large",
        "heavy",
        "heavier",
        "skewed",
        "uneven",
        "prices",
        "clipped",
        "outliers",
        "unrelated",
        "cauchy",
    ],
)
def test_noise_is_no_error(y):
    assert not alarms(y)


def test_what_has_no_scale_is_not_asked():
    assert not wrong_values((X, torch.arange(700) % 3)).conclusive
    assert not wrong_values((X, CLEAN.round())).conclusive
    assert not wrong_values((X, CLEAN.relu().where(X[:, 0] > 0, 0.0))).conclusive
    assert not wrong_values((X, torch.stack([CLEAN, NORMAL], 1))).conclusive


def test_scores_of_equal_values_are_equal():
    scores = module.normal_scores(np.array([1.0, 1.0, 2.0, 5.0]))
    assert scores[0] == scores[1] < scores[2] < scores[3]
