"""The bias problem is named where and when it began, whatever the training makes of it."""

from __future__ import annotations

import dataclasses

import pytest

from lightning_tricks.diagnosis.rules.bias_shift import find_bias_shift
from lightning_tricks.probes import ActivationRecord, ParameterRecord, Snapshot, WeightedRecord

STEPS = (0, 1, 2, 4, 8, 16, 32)


def layer(
    name: str, energy: float, drift: float = 0.0, coherence: float = 0.1, std: float = 1.0, patterns: int = 64
) -> tuple[WeightedRecord, ParameterRecord]:
    """A layer of 64 weights into each unit, independent updates of which have a coherence of .125."""
    return (
        WeightedRecord(name, fan_in=64, patterns=patterns, mean_energy=energy, std=std),
        ParameterRecord(f"{name}.weight", layer=name, fan_in=64, mean_drift=drift, update_coherence=coherence),
    )


def history(*looks: list[tuple[WeightedRecord, ParameterRecord]]) -> list[Snapshot]:
    """Of looks at hidden layers; an output layer, which is not judged, comes behind them."""
    ends = [[*layers, layer("out", 0.99, 9.0, 0.99)] for layers in looks]
    return [
        Snapshot(step, weighted=tuple(w for w, _ in layers), parameters=tuple(p for _, p in layers))
        for step, layers in zip(STEPS, ends, strict=False)
    ]


def test_it_is_named_where_it_began_though_only_a_later_layer_shows_it_to_the_end() -> None:
    """Units that were thrown onto a flat side hand on a constant, and the weights before them move no more."""
    begun = [layer("0", 0.02), layer("1", 0.93, 20.0, 0.95), layer("2", 0.97, 40.0, 0.97)]
    ruined = [layer("0", 0.02), layer("1", 0.5, 2.0, 0.9), layer("2", 0.99, 300.0, 0.99)]
    (found,) = find_bias_shift(history(begun, begun, ruined, ruined, ruined, ruined))
    assert (found.layer, found.step, found.severity) == ("1", 0, "critical")
    assert found.evidence["mean energy"] == 0.93


def test_it_stays_named_while_its_input_stays_one_sided_though_the_steps_fade() -> None:
    looks = [[layer("0", 1.0, drift, coherence)] for drift, coherence in ((6.0, 0.5), (4.0, 0.5), (1.0, 0.4))]
    settled = [[layer("0", 1.0, 0.1, 0.2)]] * 3
    (found,) = find_bias_shift(history(*looks, *settled))
    assert (found.layer, found.step, found.severity) == ("0", 0, "critical")
    centred = [[layer("0", 0.3, 0.1, 0.2)]] * 3
    assert find_bias_shift(history(*looks, *centred)) == []


@pytest.mark.parametrize(("patterns", "named"), [(4, 0), (8, 1)])
def test_the_mean_of_a_handful_of_patterns_is_no_mean(patterns: int, named: int) -> None:
    looks = [[layer("0", 0.98, 0.7, 0.9, patterns=patterns)]] * 6
    assert len(find_bias_shift(history(*looks))) == named


@pytest.mark.parametrize(("first", "later", "named"), [(0.07, 0.01, 1), (0.01, 0.07, 0)])
def test_a_signal_that_is_faint_from_the_start_is_another_problem(first: float, later: float, named: int) -> None:
    looks = [[layer("0", 1.0, 500.0, 1.0, std)] for std in (first, first, *[later] * 4)]
    assert len(find_bias_shift(history(*looks))) == named


def test_weights_that_move_together_by_little_move_no_mean() -> None:
    assert find_bias_shift(history(*[[layer("0", 0.98, 0.1, 0.9)]] * 6)) == []


@pytest.mark.parametrize(
    ("units", "first", "others"),
    [("", "standardize_input", False), ("relu", "centre_input", True), ("tanh", "centre_input", False)],
)
def test_data_are_normalised_and_units_of_one_sign_exchanged(units: str, first: str, others: bool) -> None:
    before = (ActivationRecord("act", units, order=1),) if units else ()
    looks = []
    for look in history(*[[layer("0", 0.98, 0.7, 0.9)]] * 6):
        weighted = tuple(dataclasses.replace(w, order=2 + k, input_mean=3.0) for k, w in enumerate(look.weighted))
        looks.append(dataclasses.replace(look, activations=before, weighted=weighted))
    (found,) = find_bias_shift(looks)
    actions = [remedy.action for remedy in found.remedies]
    assert (actions[0], "swap_activation" in actions) == (first, others)


@pytest.mark.parametrize(("before", "named"), [(0.98, ["0"]), (0.02, [])])
def test_what_begins_at_a_faint_layer_hides_none_before_it(before: float, named: list[str]) -> None:
    faint = [layer("0", 0.02), layer("1", 1.0, 500.0, 1.0, 0.01)]
    later = [layer("0", before, 6.0, 0.95), layer("1", 1.0, 500.0, 1.0, 0.01)]
    found = find_bias_shift(history(faint, *[later] * 6))
    assert [each.layer for each in found] == named
