"""Copies are found; what meets by chance, is oversampled or lies side by side in time is none."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

import lightning_tricks as lt
from lightning_tricks.experiments import duplicates
from lightning_tricks.experiments.data.patterns.neighbours import Data

module = importlib.import_module("lightning_tricks.experiments.data.duplicates")
G = torch.Generator().manual_seed(0)
X, Y = torch.randn(400, 8, generator=G), torch.arange(400) % 3
OTHERS = torch.randn(100, 8, generator=G)


def alarms(train, validation=None):
    data = Data(train, validation)
    counted = module._counted(data)
    made = lt.Experiment("duplicates", "", counted.answer.text, counted.answer.numbers)
    found = [*module.across(made, data, counted.twins), *module.contradicting(made, data, counted.contradicting)]
    return [each for each in found if each.rank]


def test_copies_within_the_training_are_no_alarm():
    again = torch.cat([X, X[:100]])
    found = duplicates((again, torch.cat([Y, Y[:100]])))
    assert found.numbers["repeated"] == 100
    assert found.numbers["copied"] == 200
    assert found.numbers["contradicting"] == 0
    assert not alarms((again, torch.cat([Y, Y[:100]])))


def test_near_copies_within_the_training_are_told_by_their_numbers():
    near = X[:12] + 0.01 * torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
    found = duplicates((torch.cat([X, near]), torch.cat([Y, Y[:12]])))
    assert found.numbers["nearly_repeated"] == 24
    assert ", 24 nearly (0, 1, 2, " in found.answer
    assert duplicates((X, Y)).numbers["nearly_repeated"] == 0
    assert not alarms((torch.cat([X, near]), torch.cat([Y, Y[:12]])))  # augmented copies are there on purpose


def test_a_sampler_that_draws_some_often():
    rare = WeightedRandomSampler(torch.where(Y == 0, 20.0, 1.0), 800, generator=torch.Generator().manual_seed(0))
    found = duplicates(DataLoader(TensorDataset(X, Y), 20, sampler=rare))
    assert found.numbers["drawn"] > 5
    assert found.numbers["repeated"] == 0


def test_copies_with_another_label():
    again = torch.cat([X, X[:20]]), torch.cat([Y, (Y[:20] + 1) % 3])
    found = duplicates(again)
    assert found.numbers["contradicting"] == 20
    assert [each.index for each in found.examples] == list(range(400, 420))
    (finding,) = alarms(again)
    assert finding.problem == "target_mismatch"
    assert "400, 401" in finding.remedies[0].text


def test_labels_of_several_raters_are_the_design():
    assert not alarms((torch.cat([X, X]), torch.cat([Y, torch.where(torch.arange(400) < 40, (Y + 1) % 3, Y)])))


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_copies_across_the_split(noise):
    validation = OTHERS.clone()
    validation[:10] = X[50:60] + noise * torch.randn(10, 8, generator=G)
    numbers = duplicates((X, Y), (validation, Y[:100])).numbers
    assert (numbers["across"], numbers["near"]) == ((10, 0) if noise == 0 else (0, 10))
    (finding,) = alarms((X, Y), (validation, Y[:100]))
    assert finding.problem == "validation_mismatch"
    assert "0, 1, 2" in str(finding.evidence)
    assert "50, 51, 52" in str(finding.evidence)


def test_another_split_of_the_same_has_none():
    assert duplicates((X, Y), (OTHERS, Y[:100])).numbers["across"] == 0
    assert not alarms((X, Y), (OTHERS, Y[:100]))


@pytest.mark.parametrize(("columns", "values"), [(6, 2), (8, 2), (4, 5), (12, 2)])
def test_few_different_inputs_meet_by_chance(columns, values):
    x = torch.randint(values, (500, columns), generator=G).float()
    assert not alarms((x[:400], Y), (x[400:], Y[:100]))


def test_the_same_data_set_twice_is_told_and_no_alarm():
    data = TensorDataset(X, Y)
    assert duplicates(DataLoader(data, 8), DataLoader(data, 8)).numbers["across"] == 400
    assert not alarms(DataLoader(data, 8), DataLoader(data, 8))


def test_one_graph_for_both_is_no_alarm():
    batches = [(X, Y)] * 3
    assert duplicates(batches, [(X, Y)]).numbers["same"]
    assert not alarms(batches, [(X, Y)])
    assert alarms(batches, [(X[:100], Y[:100])])


def windows(series: torch.Tensor, length: int = 16) -> torch.Tensor:
    return series.unfold(0, length, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_windows_that_are_split_at_random_overlap(channels):
    series = torch.randn(500, channels, generator=G).cumsum(0)
    x = windows(series.squeeze(-1)) if channels == 1 else windows(series).transpose(1, 2)
    mixed = torch.randperm(len(x), generator=G)
    y = torch.zeros(len(x))
    (finding,) = alarms((x[mixed[:400]], y[:400]), (x[mixed[400:]], y[400:]))
    assert "split in time" in finding.remedies[0].text
    assert not alarms((x[:400], y[:400]), (x[400:], y[400:]))  # some at the border overlap by right


def test_words_of_a_short_language_are_no_windows():
    following = torch.randint(12, (12, 2), generator=G)
    chain = [torch.randint(12, (600,), generator=G)]
    for _ in range(16):
        chain.append(following[chain[-1], torch.randint(2, (600,), generator=G)])
    x = torch.stack(chain, 1)
    assert duplicates((x[:500], x[:500, 0]), (x[500:], x[500:, 0])).numbers["windows"] == 0


def test_other_shapes_are_not_judged():
    assert not duplicates((X, Y), (X[:, :5], Y)).conclusive
