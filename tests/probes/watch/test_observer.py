"""What a step knows of itself."""

import torch
from torch import nn

from lightning_tricks.probes.measure.regularization import Dropped
from lightning_tricks.probes.measure.tallies import ActivationTally, Derived, ErrorSignal
from lightning_tricks.probes.watch.observer import Observer


def observer(layers=("*",)):
    return Observer(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), layers, None)


def test_parameters_and_their_views_are_known_by_name():
    seen = observer()
    weight = seen._model[0].weight
    assert seen.parameter_name(weight) == "0.weight"
    assert seen.parameter_name(weight.T) == "0.weight"
    assert seen.parameter_name(torch.ones(2, 3)) is None
    assert seen.parameter_name("0.weight") is None
    assert seen.is_parameter(weight[0])
    assert seen.is_buffer(seen._model[1].running_mean)
    assert not seen.is_buffer(weight)


def test_a_matrix_computed_of_parameters_alone_is_a_weight():
    seen = observer()
    weight, bias = seen._model[0].weight, seen._model[0].bias
    x, own = torch.ones(2, 3), torch.ones(2, 3, requires_grad=True)
    assert seen.is_weight(weight.T)
    assert seen.is_weight((weight * bias[:, None]).T)
    assert seen.is_weight(weight @ weight.T)
    others = (
        weight * x,
        weight * own,
        x,
        own * own,
        (weight * bias[:, None]).relu(),
        x @ weight.T,
        x.T @ (x @ weight.T),
    )
    assert not any(seen.is_weight(other) for other in others)
    assert not seen.is_weight((weight * bias[:, None])[None])  # of three dimensions: as in an attention


def test_what_can_be_counted_is_chosen_by_name_and_has_values():
    seen = observer(["encoder.*"])
    assert seen.can_count("encoder.0", torch.ones(2))
    assert not seen.can_count("head", torch.ones(2))
    assert not seen.can_count("encoder.1", torch.ones(2, dtype=torch.complex64))
    assert seen.tallies.not_seen == {"encoder.1": "its values are complex numbers"}


def test_a_step_is_over_or_paused():
    seen = observer()
    assert seen.active
    with torch.no_grad():
        assert not seen.active  # the loop's own metrics
    seen.pause(True)
    assert not seen.active
    assert seen.gradients.paused
    assert seen.modules.paused
    seen.pause(False)
    assert seen.active
    seen.close()
    assert not seen.active


def test_linear_operations_hand_on_where_a_tensor_comes_from():
    seen = observer()
    tally = ActivationTally("tanh", "tanh", 1, -1, ErrorSignal())
    x, shifted, halves = torch.ones(4), torch.ones(4), torch.ones(4).chunk(2)
    seen.annotations.write(x, tally)
    seen.derive(shifted, seen.annotations.read(x))
    seen.derive(halves, seen.annotations.read(shifted), Dropped("dropout", 0.5))
    assert seen.activation_behind(halves[1]) is tally
    assert seen.annotations.read(halves[0]) == Derived(tally, Dropped("dropout", 0.5))
    assert seen.activation_behind(torch.ones(4)) is None
