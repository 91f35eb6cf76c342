"""Patterns that are mixed by an operation over their axis are named with the argument, where nothing is learned."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from lightning_tricks.diagnosis import diagnose
from lightning_tricks.diagnosis.rules.batch_mixing import find_batch_mixing, is_named, remedies_at
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.records.preflight import Place, PreflightRecord
from tests.diagnosis.custom import fit, said
from tests.diagnosis.sick import Cut8, Images

LSTM = Place("net.lstm", "lstm", "recurrence", "nn.LSTM", "", (64, 8, 8), (64, 8, 8), 0, 0, None, batch_first=False)
VIEW = Place("view", "view", "view", "", "", (8, 64, 16), (64, 128), 1, 0)
MIXED = PreflightRecord("net", 64, 0.0, 0.8, 1.0, LSTM)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def still(record: PreflightRecord | None = MIXED, last: float = 2.3, steps: int = 200) -> list[Snapshot]:
    """A training whose loss stays at what it began with, or does not."""
    losses = [2.3 + (last - 2.3) * step / steps for step in range(0, steps, 10)]
    noise = [loss + 0.001 * (-1) ** i for i, loss in enumerate(losses)]
    history = [Snapshot(10 * i, loss) for i, loss in enumerate(noise)]
    return [dataclasses.replace(history[0], preflight=record), *history[1:]]


def test_a_view_that_cuts_across_the_patterns_is_named_first() -> None:
    history = fit(Images(Cut8()), steps=110, preflight=True)
    found = find_batch_mixing(history)
    assert said(found) == [("warning", "layer")]
    assert ".transpose(0, 1).reshape(...) in place of .reshape(...)" in found[0].remedies[0].text
    assert "it cuts across the patterns" in found[0].explanation
    assert found[0].evidence["operation"] == "Cut8"
    assert [finding.problem for finding in diagnose(history).findings if finding.rank] == ["batch_mixing"]
    stored = [Snapshot.from_dict(snapshot.to_dict()) for snapshot in history]
    assert said(find_batch_mixing(stored)) == said(found)


def test_a_training_that_learns_is_left_alone() -> None:
    """Right networks mix, too."""
    assert said(find_batch_mixing(still())) == [("warning", "net.lstm")]
    (info,) = find_batch_mixing(still(last=0.1))
    assert info.severity == "info"
    assert [f.severity for f in find_batch_mixing(still()[:5])] == ["info"]  # too early to tell


def test_axes_that_are_exchanged_are_named_while_little_is_learned() -> None:
    """Which a softmax over the batch, or one sequence of all patterns, are not: these may be meant so."""
    falling = {"last": 1.2}
    assert said(find_batch_mixing(still(**falling))) == [("warning", "net.lstm")]
    assert said(find_batch_mixing(still(dataclasses.replace(MIXED, place=VIEW), **falling))) == [("warning", "view")]
    one_sequence = dataclasses.replace(LSTM, input_shape=(1, 64, 8), input_axis=1, output_axis=1, batch_first=True)
    softmax = Place("3", "softmax", "softmax", "nn.Softmax", "", (64, 10), (64, 10), 0, 0, 0)
    for place in (one_sequence, softmax):
        assert is_named(place)
        assert [f.severity for f in find_batch_mixing(still(dataclasses.replace(MIXED, place=place), **falling))] == [
            "info"
        ]


def test_only_an_operation_that_is_named_is_blamed() -> None:
    by_hand = dataclasses.replace(MIXED, place=Place("net.matmul", "matmul"))
    unknown = dataclasses.replace(MIXED, place=None)
    for record in (by_hand, unknown):
        assert [f.severity for f in find_batch_mixing(still(record))] == ["info"]


SOFTMAX = Place("3", "softmax", "softmax", "nn.Softmax", "", (64, 10), (64, 10), 0, 0, 0)
MEAN = Place("net.mean", "mean", "reduction", "", "", (64, 8), (8,), 0, None, 0)
SEQUENCE = dataclasses.replace(LSTM, input_shape=(1, 64, 8), input_axis=1, output_axis=1, batch_first=True)


@pytest.mark.parametrize(
    ("where", "severity"),
    [(SOFTMAX, "warning"), (MEAN, "warning"), (VIEW, "warning"), (SEQUENCE, "info"), (Place("a", "matmul"), "info")],
)
def test_patterns_that_meet_by_chance_are_not_to_be_mixed_even_where_it_learns(where: Place, severity: str) -> None:
    """Of those that a loader collates, any may meet any; batches that come as they are may be sets, graphs, tasks."""
    record = dataclasses.replace(MIXED, place=where, collated=True)
    (found,) = find_batch_mixing(still(record, last=0.1))
    assert found.severity == severity
    (found,) = find_batch_mixing(still(dataclasses.replace(record, collated=False), last=0.1))
    assert found.severity == "info"


def test_of_patterns_that_meet_by_chance_a_little_is_enough() -> None:
    record = dataclasses.replace(MIXED, place=MEAN, mixing=1e-3, collated=True)
    (found,) = find_batch_mixing(still(record, last=0.1))
    assert found.severity == "warning"
    assert "mean(dim=1)" in str(found.remedies[0])
    assert "runs over axis 0 of [64, 8], along which the patterns lie" in found.explanation
    assert find_batch_mixing(still(dataclasses.replace(record, collated=False))) == []


def test_what_does_not_mix_is_not_found() -> None:
    for record in (None, PreflightRecord(), dataclasses.replace(MIXED, mixing=0.01, place=None)):
        assert find_batch_mixing(still(record)) == []


def test_an_output_that_knows_no_pattern_needs_a_place() -> None:
    lost = dataclasses.replace(MIXED, mixing=0.0, own=0.0)
    assert said(find_batch_mixing(still(lost))) == [("warning", "net.lstm")]
    assert find_batch_mixing(still(dataclasses.replace(lost, place=None))) == []
    assert find_batch_mixing(still(dataclasses.replace(lost, own=math.nan))) == []


REMEDIES = {
    "nn.LSTM(..., batch_first=True)": LSTM,
    "nn.TransformerEncoderLayer(..., batch_first=True)": dataclasses.replace(
        LSTM, kind="attention", module="nn.MultiheadAttention", inside="nn.TransformerEncoderLayer"
    ),
    "nn.GRU(..., batch_first=False)": dataclasses.replace(LSTM, module="nn.GRU", batch_first=True),
    "nn.Softmax(dim=1)": Place("3", "softmax", "softmax", "nn.Softmax", "", (64, 10), (64, 10), 0, 0, 0),
    "cumsum(dim=2)": Place("cumsum", "cumsum", "cumulation", "", "", (64, 5, 3), (64, 5, 3), 0, 0, 0),
    ".transpose(0, 1).reshape(...) in place of .view(...)": VIEW,
}


@pytest.mark.parametrize("text", REMEDIES)
def test_the_argument_is_named(text: str) -> None:
    place = REMEDIES[text]
    assert is_named(place)
    assert text in remedies_at(place)[0].text


@pytest.mark.parametrize(
    "place",
    [
        Place("a", "scaled_dot_product_attention", "attention"),  # over a set, by whoever called it
        Place("a", "softmax", "softmax", dim=1, output_axis=0),
        Place("a", "view", "view", input_axis=0, output_axis=0),
        Place("a", "view", "view", output_axis=0),
    ],
)
def test_what_may_be_meant_so_is_not_named(place: Place) -> None:
    assert not is_named(place)
