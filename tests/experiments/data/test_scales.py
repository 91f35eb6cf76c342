"""Another unit is found, of some patterns or of validation; wide, skewed, coded and drifting data have one."""

from __future__ import annotations

import importlib

import pytest
import torch

import lightning_tricks as lt
from lightning_tricks.experiments import constant_features, scales
from lightning_tricks.experiments.data.patterns.neighbours import Data

module = importlib.import_module("lightning_tricks.experiments.data.scales")
G = torch.Generator().manual_seed(0)
Y = torch.arange(600) % 2
IMAGES = torch.rand(600, 3, 8, 8, generator=G)
TABLE = torch.randn(600, 5, generator=G)


def alarms(x, x_val=None, y=Y):
    data = Data((x, y), None if x_val is None else (x_val, y[: len(x_val)]))
    answer, unit = module._measured(data)
    made = lt.Experiment("scales", "", answer.text, answer.numbers)
    return [*module.judged(made, data, unit), *module.of_validation(made, data)]


@pytest.mark.parametrize("count", [6, 30, 120])
def test_images_of_bytes_beside_others(count):
    x = IMAGES.clone()
    x[100 : 100 + count] *= 255
    (finding,) = alarms(x)
    assert finding.problem == "unnormalized_input"
    assert finding.evidence["patterns"] == count
    assert "100, 101" in finding.remedies[0].text
    assert "x / 25" in finding.remedies[0].text
    assert scales((x, Y)).examples[0].picture


@pytest.mark.parametrize("values", [TABLE, TABLE.exp()], ids=["of both signs", "positive"])
def test_a_column_of_another_source(values):
    x = values.clone()
    x[200:260, 2] *= 1000
    (finding,) = alarms(x)
    assert "0[:, 2]" in finding.explanation


@pytest.mark.parametrize(
    "x",
    [
        TABLE,
        TABLE.mul(2).exp(),
        TABLE / torch.randn(600, 5, generator=G),
        torch.where(TABLE > 0, TABLE.exp() * 100, 0.0),
        torch.tensor([1.0, 1000.0])[(TABLE > 0).long()],
        torch.cat([TABLE, 1e5 * torch.rand(600, 2, generator=G)], 1),
        IMAGES * torch.rand(600, 1, 1, 1, generator=G),
        torch.randint(30_000, (600, 12), generator=G),
    ],
    ids=["normal", "skewed", "wide", "zeros", "codes", "units by column", "dark and bright", "tokens"],
)
def test_one_unit(x):
    assert not alarms(x)
    assert not alarms(x[:400], x[400:])


def test_a_class_that_is_a_hundred_times_larger():
    x = TABLE.exp()
    x[Y == 1, 0] *= 300
    assert not alarms(x)


@pytest.mark.parametrize("change", [lambda x: 255 * x, lambda x: (x - 0.5) / 0.1, lambda x: 1 - x - 3])
def test_validation_that_is_prepared_otherwise(change):
    (finding,) = alarms(IMAGES[:400], change(IMAGES[400:]))
    assert finding.problem == "validation_mismatch"


def told(x):
    """Targets that can be predicted."""
    return x[:, 0] + (2 * x[:, 1]).sin()


WIDE = torch.cat([TABLE[:, :1] * 7 + 30, torch.rand(600, 1, generator=G), TABLE[:, 2:]], 1)  # three are standard


@pytest.mark.parametrize("scaled", ["training", "validation"])
@pytest.mark.parametrize("order", [torch.arange(600), WIDE[:, 2].argsort()], ids=["random", "sorted"])
def test_a_scaler_that_was_forgotten_of_a_few_columns(scaled, order):
    x, y = WIDE[order], told((WIDE - WIDE.mean(0)) / WIDE.std(0))[order]
    every_third = torch.arange(600) % 3 == 0
    parts = {"training": x[~every_third], "validation": x[every_third]}
    parts[scaled] = (parts[scaled] - WIDE.mean(0)) / WIDE.std(0)
    data = Data((parts["training"], y[~every_third]), (parts["validation"], y[every_third]))
    answer, _ = module._measured(data)
    assert answer.numbers["off"] < module.LIMITS.share
    made = lt.Experiment("scales", "", answer.text, answer.numbers)
    (finding,) = module.of_validation(made, data)
    assert finding.problem == "validation_mismatch"
    assert "0[:, 0] (" in finding.evidence["features"]
    assert [each.name for each in finding.decided_by][-1] == "what that gains"


def test_validation_of_another_group():
    groups = torch.arange(600) // 300
    x = TABLE + 4 * groups[:, None]
    y = told(x[:, :2] / 4)
    in_validation = (groups == 1) & (torch.arange(600) % 2 == 0)
    training = (groups == 0) | (torch.arange(600) % 20 == 11)
    data = Data((x[training], y[training]), (x[in_validation], y[in_validation]))
    answer, _ = module._measured(data)
    assert answer.numbers["off"] > module.LIMITS.share
    assert not list(module.of_validation(lt.Experiment("scales", "", answer.text, answer.numbers), data))


def test_data_that_drift_in_time():
    walk = torch.randn(600, 5, generator=G).cumsum(0)
    assert not alarms(walk[:400], walk[400:])
    windows = torch.randn(620, generator=G).cumsum(0).unfold(0, 16, 1)
    assert not alarms(windows[:400], windows[400:])


def test_constant_features():
    x = TABLE.clone()
    x[:400, [1, 4]] = 2.0
    x[400:, 4] = 2.0
    found = constant_features((x[:400], Y[:400]), (x[400:], Y[400:])).numbers
    assert found == {"features": 5, "constant": 2, "vary_in_validation": 1}
