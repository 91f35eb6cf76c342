"""independence and own_input: public forms of what a training's first step asks."""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lightning_tricks as lt
from lightning_tricks.experiments import independence, own_input

GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(8, 5, 6, generator=GENERATOR), torch.randn(8, generator=GENERATOR)
FLAT = X[:, 0], Y[:, None]


def attention(*, batch_first):
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=batch_first)


def first_unit(output, target):
    return F.mse_loss(output[:, 0, 0], target)


@pytest.mark.parametrize("batch_first", [True, False])
def test_an_axis_that_is_read_the_wrong_way(batch_first):
    found = independence(attention(batch_first=batch_first), (X, Y), first_unit)
    assert found.conclusive, found
    assert (found.numbers["mixing"] > 0.05) is not batch_first
    assert found.answer.startswith("no" if batch_first else "yes, first by")


class Tokens(nn.Module):
    def __init__(self, *, causal):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head, self.causal = nn.Embedding(9, 6), nn.Linear(6, 9), causal
        self.body = attention(batch_first=True)

    def forward(self, ids):
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1]) if self.causal else None
        return self.head(self.body(self.embed(ids), mask))


def by_position(output, target):
    return F.cross_entropy(output.flatten(0, 1), target.flatten())


@pytest.mark.parametrize("causal", [True, False])
def test_outputs_that_see_what_they_are_to_predict(causal):
    ids = torch.randint(9, (8, 13), generator=torch.Generator().manual_seed(1))
    found = independence(Tokens(causal=causal), (ids[:, :-1], ids[:, 1:]), by_position)
    assert found.conclusive, found
    assert (found.numbers["later"] > 0.05) is not causal


def test_a_softmax_over_one_unit_is_a_constant():
    net = nn.Sequential(nn.Linear(6, 1), nn.Softmax(-1))
    found = own_input(net, FLAT, F.mse_loss)
    assert found.numbers["own"] <= 1e-6
    assert "same for every input" in found.answer
    assert own_input(nn.Linear(6, 1), FLAT, F.mse_loss).numbers["own"] > 0.1


def test_a_checkup_does_not_ask_again_what_its_first_step_has_asked(monkeypatch):
    def refuse(*args):
        raise AssertionError("asked twice")

    monkeypatch.setattr(importlib.import_module("lightning_tricks.experiments.independence"), "preflight", refuse)
    (found,) = lt.checkup(attention(batch_first=False), (X, Y), first_unit, experiments="independence").experiments
    assert found.numbers["mixing"] > 0.05


class Dying(nn.Module):
    """Rectifiers that the first steps switch off for good: a large rate, and a bias that only falls."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.last = nn.Linear(6, 8), nn.Linear(8, 1)

    def forward(self, x):
        return self.last((self.hidden(x) - 100).relu())


def test_a_network_that_is_a_constant_after_the_steps_is_a_finding():
    torch.manual_seed(0)
    data = torch.randn(32, 6), torch.randn(32, 1)
    without, with_it = (
        lt.checkup(Dying(), data, F.mse_loss, num_batches=2, experiments=names) for names in ("none", "own_input")
    )
    assert "collapsed_output" not in {finding.problem for finding in without.findings if finding.rank}
    (finding,) = (each for each in with_it.findings if each.problem == "collapsed_output")
    assert finding.severity == "warning"
    assert finding.proof == with_it.experiments[0]


def test_a_head_that_begins_at_zero_is_none():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    nn.init.zeros_(net[2].weight)
    data = torch.randn(32, 6), torch.randn(32, 1)
    assert own_input(net, data, F.mse_loss).numbers["own"] <= 1e-6
    diagnosis = lt.checkup(net, data, F.mse_loss, num_batches=2, experiments="own_input")
    assert not any(finding.rank for finding in diagnosis.findings)
